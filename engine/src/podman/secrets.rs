//! Secrets: containers/common's list of them, and their bytes where a driver gives them.
//!
//! The file driver keeps all secrets of a host in one JSON file; it is read itself, since only
//! Podman 4.7 and later show a secret. Other drivers (`pass`, `shell`) are asked through Podman.
//! Nothing here writes a secret's bytes anywhere, and no error quotes them.
//!
//! Source: containers/common `pkg/secrets` (secrets.go, secretsdb.go, filedriver).

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::command::{Podman, PodmanError, Purpose, failure};
use super::definition::{SECRET_BYTES_MAX, SecretDefinition};
use super::files::read_file;

/// Bytes of secrets.json, and of the file driver's data of all secrets.
const LIST_BYTES_MAX: usize = 64 << 20;
const DATA_BYTES_MAX: usize = 1 << 30;
const SECRETS_MAX: usize = 65_536;
/// Tries to read list and data that belong together.
const TRIES_MAX: usize = 5;
const DATA_FILE: &str = "secretsdata.json";

/// The secrets of a host, without their bytes, sorted by name.
pub fn list_secrets(graph_root: &Path) -> Result<Vec<SecretDefinition>, PodmanError> {
    let path = graph_root.join("secrets/secrets.json");
    match read_file(&path, LIST_BYTES_MAX) {
        Ok(bytes) => parse_list(&bytes).map_err(|cause| wrong("list", "secrets", cause)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => {
            let cause = format!("{}: {error}", path.display());
            Err(wrong("list", "secrets", cause))
        }
    }
}

/// A secret with its bytes, if there is one of that name. Where its driver cannot be read, `data`
/// stays `None`, and the second value says why.
pub fn read_secret(
    podman: &Podman,
    graph_root: &Path,
    name: &str,
) -> Result<Option<(SecretDefinition, Option<String>)>, PodmanError> {
    let object = format!("secret {name}");
    let mut cause = String::new();
    for _ in 0..TRIES_MAX {
        let found = list_secrets(graph_root)?;
        let Some(mut secret) = found.into_iter().find(|secret| secret.name == name) else {
            return Ok(None);
        };
        let data = match secret.driver.as_str() {
            "file" => file_data(&secret),
            _ => shown_data(podman, &secret),
        };
        match data {
            Ok(data) => {
                // Replaced meanwhile: its bytes may be the new ones under the old record.
                let again = list_secrets(graph_root)?;
                if again.contains(&secret) {
                    secret.data = Some(data);
                    return Ok(Some((secret, None)));
                }
                cause = "it changes all the time".into();
            }
            Err(why) if secret.driver == "file" => cause = why,
            Err(why) => return Ok(Some((secret, Some(why)))),
        }
    }
    Err(wrong("read", object, cause))
}

/// The list as secrets.json has it. Errors are in words, and hold nothing of the file.
fn parse_list(bytes: &[u8]) -> Result<Vec<SecretDefinition>, String> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        secrets: Option<BTreeMap<String, Listed>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Listed {
        name: String,
        id: String,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
        #[serde(default)]
        metadata: Option<BTreeMap<String, String>>,
        #[serde(default)]
        created_at: String,
        #[serde(default)]
        updated_at: String,
        driver: String,
        #[serde(default)]
        driver_options: Option<BTreeMap<String, String>>,
    }
    let list: List =
        serde_json::from_slice(bytes).map_err(|error| format!("secrets.json: {error}"))?;
    let listed = list.secrets.unwrap_or_default();
    if listed.len() > SECRETS_MAX {
        return Err(format!("secrets.json has more than {SECRETS_MAX} secrets"));
    }
    let mut secrets: Vec<SecretDefinition> = listed
        .into_values()
        .map(|listed| SecretDefinition {
            format: 1,
            id: listed.id,
            name: listed.name,
            driver: listed.driver,
            driver_options: listed.driver_options.unwrap_or_default(),
            labels: listed.labels.unwrap_or_default(),
            metadata: listed.metadata.unwrap_or_default(),
            created_at: listed.created_at,
            updated_at: listed.updated_at,
            data: None,
        })
        .collect();
    secrets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(secrets)
}

/// From the file driver's own file.
fn file_data(secret: &SecretDefinition) -> Result<Vec<u8>, String> {
    let folder = secret.driver_options.get("path");
    let folder = folder.ok_or("its driver does not say where its file is")?;
    let path = Path::new(folder).join(DATA_FILE);
    let bytes =
        read_file(&path, DATA_BYTES_MAX).map_err(|error| format!("{}: {error}", path.display()))?;
    // What serde says would quote the data.
    let stored: BTreeMap<String, String> = serde_json::from_slice(&bytes)
        .map_err(|_| format!("{} is not understood", path.display()))?;
    let data = stored.get(&secret.id).ok_or_else(|| {
        let path = path.display();
        format!("{path} does not hold it")
    })?;
    let data = STANDARD.decode(data);
    data.map_err(|_| format!("{} does not hold it in base64", path.display()))
}

/// Through Podman, which prints it and a line end.
fn shown_data(podman: &Podman, secret: &SecretDefinition) -> Result<Vec<u8>, String> {
    let object = format!("secret {}", secret.name);
    let purpose = Purpose {
        action: "read",
        object: &object,
    };
    let arguments = [
        "secret",
        "inspect",
        "--showsecret",
        "--format",
        "{{.SecretData}}",
        &secret.name,
    ];
    let ended = podman
        .end(purpose, &arguments, b"")
        .map_err(|error| error.cause)?;
    if !ended.status.success() {
        return Err(failure(purpose, &ended).cause);
    }
    let mut data = ended.stdout;
    if data.pop() != Some(b'\n') {
        return Err("what podman shows of it does not end as expected".into());
    }
    match data.len() {
        len if len > SECRET_BYTES_MAX => Err(format!("it has more than {SECRET_BYTES_MAX} bytes")),
        _ => Ok(data),
    }
}

fn wrong(action: &'static str, object: impl Into<String>, cause: String) -> PodmanError {
    PodmanError::new(action, object, cause)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::command::tests::fake;
    use super::*;

    const ID: &str = "e3072781300c9048b5a18b443";

    fn store(root: &Path, driver: &str) {
        let folder = root.join("secrets/filedriver");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(
            root.join("secrets/secrets.json"),
            format!(
                r#"{{"secrets":{{"{ID}":{{"name":"s1","id":"{ID}","labels":{{"empty":""}},
                "metadata":{{"Chunk":"1"}},"createdAt":"2026-11-28T19:01:45.7Z","driver":"{driver}",
                "driverOptions":{{"path":"{}"}}}}}},"nameToID":{{}},"idToName":{{}}}}"#,
                folder.display()
            ),
        )
        .unwrap();
        std::fs::write(
            folder.join(DATA_FILE),
            format!(r#"{{"{ID}":"{}"}}"#, STANDARD.encode(b"x\xff\n")),
        )
        .unwrap();
    }

    #[test]
    fn c_14_the_bytes_of_a_file_secret_are_exact() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(folder.path(), "exit 1");
        store(folder.path(), "file");
        let listed = list_secrets(folder.path()).unwrap();
        assert_eq!(listed.len(), 1);
        assert!(listed[0].data.is_none());
        let (secret, why) = read_secret(&podman, folder.path(), "s1").unwrap().unwrap();
        assert_eq!((secret.data.as_deref(), why), (Some(&b"x\xff\n"[..]), None));
        assert_eq!(secret.labels["empty"], "");
        assert_eq!(secret.metadata["Chunk"], "1");
        assert_eq!(SecretDefinition::decode(&secret.encode()), Ok(secret));
        assert!(read_secret(&podman, folder.path(), "s2").unwrap().is_none());
        assert!(list_secrets(Path::new("/nowhere")).unwrap().is_empty());
    }

    #[test]
    fn c_14_other_drivers_are_asked_through_podman_or_named() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), "shell");
        let podman = fake(folder.path(), r#"printf 'x\377\n\n'"#);
        let (secret, why) = read_secret(&podman, folder.path(), "s1").unwrap().unwrap();
        assert_eq!((secret.data.as_deref(), why), (Some(&b"x\xff\n"[..]), None));
        let podman = fake(
            folder.path(),
            "echo 'Error: unknown flag: --showsecret' >&2; exit 125",
        );
        let (secret, why) = read_secret(&podman, folder.path(), "s1").unwrap().unwrap();
        assert_eq!(secret.data, None);
        assert!(why.unwrap().contains("unknown flag"));
    }

    #[test]
    fn errors_hold_nothing_of_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(folder.path(), "exit 1");
        store(folder.path(), "file");
        let data = folder.path().join("secrets/filedriver").join(DATA_FILE);
        for odd in [
            format!(r#"{{"{ID}":"hunter2!"}}"#),
            format!(r#"{{"{ID}":["hunter2"]}}"#),
            r#"{"other":"hunter2"}"#.into(),
        ] {
            std::fs::write(&data, odd).unwrap();
            let error = read_secret(&podman, folder.path(), "s1").unwrap_err();
            assert!(!error.to_string().contains("hunter"), "{error}");
            assert!(error.to_string().contains("secret s1"), "{error}");
        }
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(folder.path().join("secrets/secrets.json"), "{").unwrap();
        assert!(list_secrets(folder.path()).is_err());
    }
}
