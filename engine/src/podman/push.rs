//! Pushing an image to a registry.
//!
//! skopeo takes an OCI layout as it is. Podman pushes only what is in its store: where there is no
//! skopeo, the layout is loaded for that, and goes again unless the image was there before. Both
//! compress the layers, each version in its own way, so that only the registry can tell the digest.

use std::path::Path;
use std::time::Duration;

use super::command::{Podman, PodmanError, Purpose};
use super::load::{LOAD_TIME_MAX, POLICY, load_layout};

/// A push that takes longer hangs.
const PUSH_TIME_MAX: Duration = Duration::from_secs(4 * 3600);
/// Bytes of the file that a digest is written to.
const DIGEST_BYTES_MAX: u64 = 256;
/// Of a name of an image.
const REFERENCE_BYTES_MAX: usize = 1024;

/// Pushes the image of an OCI layout, whose ID is `id`. `reference` is where to, as `podman push` has
/// it, without a transport. `is_here`: the store holds the image. Returns the digest that it has in
/// the registry, "sha256:...". Nobody but us may write to the folder of the layout.
pub fn push(
    podman: &Podman,
    layout: &Path,
    id: &str,
    is_here: bool,
    reference: &str,
) -> Result<String, PodmanError> {
    let purpose = Purpose {
        action: "push",
        object: &format!("image {id} to {reference}"),
    };
    let failed =
        |cause: &dyn std::fmt::Display| PodmanError::new(purpose.action, purpose.object, cause);
    if !is_reference(reference) {
        return Err(failed(&"that is no name of an image in a registry"));
    }
    let place = format!("docker://{reference}");
    let digest_file = layout.join("digest");
    let policy = layout.join("policy.json");
    std::fs::write(&policy, POLICY).map_err(|error| failed(&error))?;
    let run = |program: &Podman, arguments: &[&std::ffi::OsStr]| {
        let ended = program.end_within(purpose, arguments, b"", PUSH_TIME_MAX)?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(super::command::failure(purpose, &ended)),
        }
    };
    match podman.relative("skopeo") {
        Some(skopeo) => {
            let mut from = std::ffi::OsString::from("oci:");
            from.push(layout);
            run(
                &skopeo,
                &[
                    "--policy".as_ref(),
                    policy.as_os_str(),
                    "copy".as_ref(),
                    "--quiet".as_ref(),
                    "--digestfile".as_ref(),
                    digest_file.as_os_str(),
                    &from,
                    place.as_ref(),
                ],
            )?;
        }
        None => {
            if !is_here {
                load_layout(podman, purpose, layout, &policy)?;
            }
            let pushed = run(
                podman,
                &[
                    "push".as_ref(),
                    "--quiet".as_ref(),
                    "--signature-policy".as_ref(),
                    policy.as_os_str(),
                    "--digestfile".as_ref(),
                    digest_file.as_os_str(),
                    id.as_ref(),
                    place.as_ref(),
                ],
            );
            if !is_here {
                let removed = podman.end_within(purpose, &["rmi", id], b"", LOAD_TIME_MAX)?;
                if pushed.is_ok() && !removed.status.success() {
                    return Err(super::command::failure(purpose, &removed));
                }
            }
            pushed?;
        }
    }
    read_digest(&digest_file).map_err(|cause| failed(&cause))
}

fn is_reference(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && text.len() <= REFERENCE_BYTES_MAX && text.chars().all(allowed) && text.contains('/')
}

fn read_digest(file: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let read = opened.take(DIGEST_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    let digest = text.trim();
    let digits = digest.strip_prefix("sha256:").unwrap_or_default();
    match podkeep_format::id::DiffId::from_hex(digits) {
        Some(_) => Ok(digest.to_owned()),
        None => Err("nothing tells the digest that it has there".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::podman::command::tests::fake;

    const ID: &str = "0123";

    /// Podman alone pushes what it loaded for that, and leaves nothing behind.
    #[test]
    fn without_skopeo_the_image_is_loaded_and_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let digest = format!("sha256:{}", "ab".repeat(32));
        let script = format!(
            r#"echo "$1" >> {0}/calls
               case $1 in push) [ "$7" = {ID} ] && [ "$8" = docker://h:5000/a/b:1 ] || exit 1; echo {digest} > "$6" ;; esac"#,
            folder.path().display()
        );
        let podman = fake(folder.path(), &script);
        // Of the fake's PATH only its own folder has no skopeo for sure.
        let path = (
            std::ffi::OsString::from("PATH"),
            folder.path().as_os_str().to_owned(),
        );
        let podman = Podman::find(&[path]).unwrap_or(podman);
        let layout = tempfile::tempdir().unwrap();
        let calls = || {
            let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
            std::fs::remove_file(folder.path().join("calls")).unwrap();
            calls
        };
        let pushed = push(&podman, layout.path(), ID, false, "h:5000/a/b:1");
        assert_eq!(pushed.unwrap(), digest);
        assert_eq!(calls(), "load\npush\nrmi\n");
        push(&podman, layout.path(), ID, true, "h:5000/a/b:1").unwrap();
        assert_eq!(calls(), "push\n");
        push(&podman, layout.path(), ID, false, "h:5000/other:1").unwrap_err();
        assert_eq!(calls(), "load\npush\nrmi\n");
    }

    #[test]
    fn only_a_name_in_a_registry_is_pushed_to() {
        for name in ["h:5000/a/b:1", "quay.io/x/y@sha256:00", "localhost/a"] {
            assert!(is_reference(name), "{name}");
        }
        for name in ["", "-x/y", "a b/c", "web", "docker://h/a b", "h/a;b"] {
            assert!(!is_reference(name), "{name}");
        }
    }
}
