//! Volumes: what Podman says of them, the record that a snapshot keeps of one, and who uses it.
//!
//! Where a volume's content is decides what can be read. A plain volume is the directory
//! `_data`. A volume with `type`, `device` or mount options is a mount that exists only while a
//! container runs: its `_data` is empty otherwise, and reading that would save nothing and call
//! it a success. Volumes of the image driver and of plugins keep their data elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::command::{Podman, PodmanError, Purpose, failure, parse};
use super::replay::Version;

/// Bytes of a stored definition, which may come from anybody who can write snapshots.
const DEFINITION_BYTES_MAX: usize = 4 << 20;
/// Labels or options of a definition.
const PAIRS_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 255;
/// Containers that one `podman container inspect` is asked for.
const CONTAINERS_PER_CALL: usize = 100;
const DEFINITION_FORMAT: u32 = 1;
/// Options that Podman keeps by a project quota.
const LIMITS: [&str; 2] = ["size", "inodes"];
/// The first Podman to which the size of a tmpfs is no quota.
const SIZED_TMPFS_SINCE: (u32, u32) = (4, 8);
/// What `-o o=...` may hold without making the volume a mount.
const PLAIN_OPTIONS: [&str; 6] = ["uid", "gid", "size", "inodes", "noquota", "timeout"];

/// A volume as `podman volume ls` and `inspect` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub definition: VolumeDefinition,
    /// The directory `_data`.
    pub mountpoint: PathBuf,
}

/// What a snapshot keeps of a volume besides its files. Stored as JSON with sorted keys; what it
/// has is never taken away, only added to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDefinition {
    /// 1.
    pub format: u32,
    pub name: String,
    pub driver: String,
    pub labels: BTreeMap<String, String>,
    /// As Podman shows them: `UID`, `GID`, `SIZE`, ... repeat what `o` holds.
    pub options: BTreeMap<String, String>,
    pub scope: String,
    pub anonymous: bool,
    pub uid: u32,
    pub gid: u32,
    /// RFC 3339, as Podman shows it.
    pub created_at: String,
    /// The first container that mounts it would fill it from its image, and re-own it. Podman
    /// 4.3 tells only of the first.
    pub needs_copy_up: bool,
    pub needs_chown: bool,
}

/// Where a volume's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeContent {
    /// In its directory, always.
    Directory,
    /// In what its options mount, while it is mounted.
    Mount,
    /// In an image and what was changed of it (driver `image`).
    Image,
    /// Wherever a plugin keeps it.
    Plugin,
}

/// Names of the containers that have a volume, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    pub all: Vec<String>,
    /// Those that have it mounted: running, paused, starting, stopping.
    pub running: Vec<String>,
}

/// What an existing volume has otherwise than a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    Driver,
    Labels,
    Options,
}

impl Difference {
    pub fn word(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Labels => "labels",
            Self::Options => "options",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    name: String,
    driver: String,
    mountpoint: PathBuf,
    #[serde(default)]
    created_at: String,
    labels: Option<BTreeMap<String, String>>,
    options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    anonymous: bool,
    #[serde(default, rename = "UID")]
    uid: u32,
    #[serde(default, rename = "GID")]
    gid: u32,
    #[serde(default)]
    needs_copy_up: bool,
    #[serde(default)]
    needs_chown: bool,
}

impl From<Shown> for Volume {
    fn from(shown: Shown) -> Self {
        Self {
            definition: VolumeDefinition {
                format: DEFINITION_FORMAT,
                name: shown.name,
                driver: shown.driver,
                labels: shown.labels.unwrap_or_default(),
                options: shown.options.unwrap_or_default(),
                scope: shown.scope,
                anonymous: shown.anonymous,
                uid: shown.uid,
                gid: shown.gid,
                created_at: shown.created_at,
                needs_copy_up: shown.needs_copy_up,
                needs_chown: shown.needs_chown,
            },
            mountpoint: shown.mountpoint,
        }
    }
}

/// All volumes, sorted by name.
pub fn list_volumes(podman: &Podman) -> Result<Vec<Volume>, PodmanError> {
    let purpose = Purpose {
        action: "list",
        object: "volumes",
    };
    // `null` when there is none.
    let shown: Option<Vec<Shown>> = podman.json(purpose, &["volume", "ls", "--format", "json"])?;
    let mut volumes: Vec<Volume> = shown
        .unwrap_or_default()
        .into_iter()
        .map(Volume::from)
        .collect();
    volumes.sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
    Ok(volumes)
}

/// One volume; `None`: there is none of that name. Podman would take the beginning of a name for
/// the name.
pub fn inspect_volume(podman: &Podman, name: &str) -> Result<Option<Volume>, PodmanError> {
    if !is_volume_name(name) {
        return Ok(None);
    }
    let object = format!("volume {name}");
    let purpose = Purpose {
        action: "inspect",
        object: &object,
    };
    let ended = podman.end(
        purpose,
        &["volume", "inspect", "--format", "json", name],
        b"",
    )?;
    if !ended.status.success() {
        let error = failure(purpose, &ended);
        return match error.not_found {
            true => Ok(None),
            false => Err(error),
        };
    }
    let shown: Vec<Shown> = parse(purpose, &ended.stdout)?;
    let found = shown.into_iter().find(|volume| volume.name == name);
    Ok(found.map(Volume::from))
}

/// Which containers have which volumes.
pub fn users_of_volumes(podman: &Podman) -> Result<HashMap<String, Users>, PodmanError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        id: String,
        mounts: Option<Vec<String>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Container {
        name: String,
        state: State,
        mounts: Option<Vec<Mount>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        status: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Mount {
        #[serde(rename = "Type")]
        kind: String,
        #[serde(default)]
        name: String,
    }
    let purpose = Purpose {
        action: "list",
        object: "containers",
    };
    let listed: Option<Vec<Listed>> = podman.json(purpose, &["ps", "-a", "--format", "json"])?;
    let ids: Vec<String> = listed
        .unwrap_or_default()
        .into_iter()
        .filter(|container| container.mounts.as_ref().is_none_or(|m| !m.is_empty()))
        .map(|container| container.id)
        .collect();
    let mut users: HashMap<String, Users> = HashMap::new();
    for ids in ids.chunks(CONTAINERS_PER_CALL) {
        let mut arguments = vec!["container", "inspect", "--format", "json"];
        arguments.extend(ids.iter().map(String::as_str));
        let ended = podman.end(purpose, &arguments, b"")?;
        // Of containers that went meanwhile podman complains, and shows the others.
        let containers: Vec<Container> = match parse(purpose, &ended.stdout) {
            Ok(containers) => containers,
            Err(_) if !ended.status.success() => return Err(failure(purpose, &ended)),
            Err(error) => return Err(error),
        };
        for container in containers {
            let holds = !matches!(
                container.state.status.as_str(),
                "created" | "configured" | "exited" | "stopped" | "dead" | "removing"
            );
            for mount in container.mounts.unwrap_or_default() {
                if mount.kind != "volume" {
                    continue;
                }
                let user = users.entry(mount.name).or_default();
                if holds {
                    user.running.push(container.name.clone());
                }
                user.all.push(container.name.clone());
            }
        }
    }
    for user in users.values_mut() {
        for names in [&mut user.all, &mut user.running] {
            names.sort_unstable();
            names.dedup();
        }
    }
    Ok(users)
}

impl VolumeDefinition {
    /// A plain volume, for want of a definition.
    pub fn plain(name: &str) -> Self {
        Self {
            format: DEFINITION_FORMAT,
            name: name.to_owned(),
            driver: "local".into(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            scope: "local".into(),
            anonymous: false,
            uid: 0,
            gid: 0,
            created_at: String::new(),
            needs_copy_up: false,
            needs_chown: false,
        }
    }

    /// The same volume always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and maps with string keys cannot fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`encode`](Self::encode) wrote, and refuses what Podman would not take or would
    /// take for something else. `Err` is the cause.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > DEFINITION_BYTES_MAX {
            return Err(format!("it has more than {DEFINITION_BYTES_MAX} bytes"));
        }
        let definition: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if definition.format != DEFINITION_FORMAT {
            return Err(format!("its format {} is not known", definition.format));
        }
        if !is_volume_name(&definition.name) {
            return Err("it holds a name that no volume can have".into());
        }
        if definition.labels.len() > PAIRS_MAX || definition.options.len() > PAIRS_MAX {
            return Err("it holds too many labels or options".into());
        }
        let texts = [&definition.labels, &definition.options]
            .into_iter()
            .flatten()
            .flat_map(|(name, value)| [name, value])
            .chain([&definition.driver]);
        for text in texts {
            if text.contains('\0') {
                return Err("it holds a NUL".into());
            }
        }
        if definition.driver.is_empty() {
            return Err("it names no driver".into());
        }
        Ok(definition)
    }

    pub fn content(&self) -> VolumeContent {
        match self.driver.as_str() {
            "image" => return VolumeContent::Image,
            "local" | "" => {}
            _ => return VolumeContent::Plugin,
        }
        let mounts =
            self.options
                .iter()
                .any(|(name, value)| match name.to_ascii_lowercase().as_str() {
                    "type" | "device" => !value.is_empty(),
                    "o" => value.split(',').any(|option| {
                        let name = option.split('=').next().unwrap_or_default();
                        !name.is_empty()
                            && !PLAIN_OPTIONS.contains(&name.to_ascii_lowercase().as_str())
                    }),
                    _ => false,
                });
        match mounts {
            true => VolumeContent::Mount,
            false => VolumeContent::Directory,
        }
    }

    /// What it mounts, for people: "nfs server:/export".
    pub fn mount_source(&self) -> String {
        let option = |name: &str| self.options.get(name).map_or("", String::as_str);
        format!("{} {}", option("type"), option("device"))
            .trim()
            .to_owned()
    }

    /// Podman keeps a limit on its size or number of files, by a project quota on `_data`.
    pub fn has_quota(&self) -> bool {
        !self.clone().drop_quota().is_empty()
    }

    /// Its files go when it is unmounted.
    pub fn is_tmpfs(&self) -> bool {
        self.options.get("type").is_some_and(|kind| kind == "tmpfs")
    }

    /// Whether this Podman can make it only where there are project quotas. Since 4.8 the size of a tmpfs
    /// is an option of its mount.
    pub fn needs_quota(&self, podman: Version) -> bool {
        self.has_quota() && !(self.is_tmpfs() && podman.is_at_least(SIZED_TMPFS_SINCE))
    }

    /// Takes the limits on its size and number of files away, and says what they were: "size=10M".
    pub fn drop_quota(&mut self) -> String {
        let is_limit = |option: &str| {
            let name = option.split('=').next().unwrap_or_default();
            LIMITS.iter().any(|limit| name.eq_ignore_ascii_case(limit))
        };
        let mut dropped = Vec::new();
        if let Some(options) = self.options.remove("o") {
            let (limits, kept): (Vec<&str>, Vec<&str>) =
                options.split(',').partition(|option| is_limit(option));
            dropped.extend(limits.into_iter().map(str::to_owned));
            if !kept.is_empty() {
                self.options.insert("o".into(), kept.join(","));
            }
        }
        for limit in LIMITS {
            let name = limit.to_ascii_uppercase();
            if let Some(value) = self.options.remove(&name)
                && !dropped.iter().any(|known| known.starts_with(limit))
            {
                dropped.push(format!("{limit}={value}"));
            }
        }
        dropped.join(",")
    }

    /// Containers never fill it from their image.
    pub fn is_nocopy(&self) -> bool {
        let asked = |name: &str| name.eq_ignore_ascii_case("nocopy");
        self.options.keys().any(|name| asked(name))
            || self
                .options
                .get("o")
                .is_some_and(|options| options.split(',').any(asked))
    }

    /// The arguments of the `podman volume create` that makes it as `name`.
    pub fn create_arguments(&self, name: &str) -> Vec<String> {
        let mut arguments = vec!["volume".into(), "create".into()];
        arguments.extend(["--driver".into(), self.driver.clone()]);
        for (label, value) in &self.labels {
            arguments.extend(["--label".into(), format!("{label}={value}")]);
        }
        let mut mount_options: Vec<String> = self
            .options
            .get("o")
            .map(|options| options.split(',').map(str::to_owned).collect())
            .unwrap_or_default();
        for (option, value) in &self.options {
            let lower = option.to_ascii_lowercase();
            if option == "o" {
                continue;
            }
            if self.driver == "local"
                && option.chars().all(|c| c.is_ascii_uppercase())
                && PLAIN_OPTIONS.contains(&lower.as_str())
            {
                // Podman's own repetition of a part of `o`.
                let has = mount_options.iter().any(|part| {
                    let name = part.split('=').next().unwrap_or_default();
                    name.eq_ignore_ascii_case(&lower)
                });
                if !has {
                    mount_options.push(match lower.as_str() {
                        "noquota" => lower,
                        _ => format!("{lower}={value}"),
                    });
                }
                continue;
            }
            let text = match value.is_empty() {
                true => option.clone(),
                false => format!("{option}={value}"),
            };
            arguments.extend(["--opt".into(), text]);
        }
        mount_options.retain(|option| !option.is_empty());
        if !mount_options.is_empty() {
            arguments.extend(["--opt".into(), format!("o={}", mount_options.join(","))]);
        }
        arguments.push(name.to_owned());
        arguments
    }

    /// What `there`, a volume that exists, has otherwise.
    pub fn differences(&self, there: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        if self.driver != there.driver {
            differences.push(Difference::Driver);
        }
        if self.labels != there.labels {
            differences.push(Difference::Labels);
        }
        if self.options != there.options {
            differences.push(Difference::Options);
        }
        differences
    }
}

impl Volume {
    /// Makes a volume as `name`, which must not be there.
    pub fn create(
        podman: &Podman,
        definition: &VolumeDefinition,
        name: &str,
    ) -> Result<Self, PodmanError> {
        let object = format!("volume {name}");
        let purpose = Purpose {
            action: "create",
            object: &object,
        };
        if !is_volume_name(name) {
            return Err(PodmanError::new(
                purpose.action,
                object,
                "Podman takes letters, digits and _.- as a name, and a letter or digit first",
            ));
        }
        podman.run(purpose, &definition.create_arguments(name), b"")?;
        inspect_volume(podman, name)?
            .ok_or_else(|| PodmanError::new(purpose.action, object, "it is not there afterwards"))
    }

    /// Removes a volume that no container has; its content goes with it.
    pub fn remove(podman: &Podman, name: &str) -> Result<(), PodmanError> {
        let object = format!("volume {name}");
        let purpose = Purpose {
            action: "remove",
            object: &object,
        };
        podman.run(purpose, &["volume", "rm", name], b"").map(drop)
    }

    /// Mounts what its options say. Needs root.
    pub fn mount(podman: &Podman, name: &str) -> Result<(), PodmanError> {
        let object = format!("volume {name}");
        let purpose = Purpose {
            action: "mount",
            object: &object,
        };
        podman
            .run(purpose, &["volume", "mount", name], b"")
            .map(drop)
    }

    /// Takes one [`mount`](Self::mount) back.
    pub fn unmount(podman: &Podman, name: &str) -> Result<(), PodmanError> {
        let object = format!("volume {name}");
        let purpose = Purpose {
            action: "unmount",
            object: &object,
        };
        podman
            .run(purpose, &["volume", "unmount", name], b"")
            .map(drop)
    }
}

/// What Podman takes as the name of a volume (libpod's `NameRegex`).
fn is_volume_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::super::command::tests::fake;
    use super::*;

    fn with_options(options: &[(&str, &str)]) -> VolumeDefinition {
        let mut definition = VolumeDefinition::plain("web");
        for (name, value) in options {
            definition
                .options
                .insert((*name).to_owned(), (*value).to_owned());
        }
        definition
    }

    #[test]
    fn v_05_what_a_volume_mounts_decides_where_its_content_is() {
        for (options, expected) in [
            (&[][..], VolumeContent::Directory),
            (
                &[("type", "tmpfs"), ("device", "tmpfs")],
                VolumeContent::Mount,
            ),
            (
                &[("device", "/srv/data"), ("o", "bind")],
                VolumeContent::Mount,
            ),
            (&[("o", "nodev")], VolumeContent::Mount),
            (
                &[
                    ("UID", "1000"),
                    ("o", "uid=1000,gid=1001,size=10M,inodes=5"),
                ],
                VolumeContent::Directory,
            ),
            (&[("nocopy", "")], VolumeContent::Directory),
        ] {
            assert_eq!(with_options(options).content(), expected, "{options:?}");
        }
        for (driver, expected) in [
            ("image", VolumeContent::Image),
            ("rclone", VolumeContent::Plugin),
        ] {
            let mut definition = with_options(&[]);
            definition.driver = driver.into();
            assert_eq!(definition.content(), expected);
        }
    }

    #[test]
    fn v_14_every_label_is_an_argument_of_its_own() {
        let mut definition = with_options(&[
            ("o", "uid=1000,gid=1001"),
            ("UID", "1000"),
            ("GID", "1001"),
            ("SIZE", "10M"),
            ("nocopy", ""),
        ]);
        definition.labels = [("empty", ""), ("k", "a=b\nc, d")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        assert_eq!(
            definition.create_arguments("other"),
            [
                "volume",
                "create",
                "--driver",
                "local",
                "--label",
                "empty=",
                "--label",
                "k=a=b\nc, d",
                "--opt",
                "nocopy",
                "--opt",
                "o=uid=1000,gid=1001,size=10M",
                "other"
            ]
        );
    }

    #[test]
    fn definitions_are_read_back_and_odd_ones_refused() {
        let mut definition = with_options(&[("type", "nfs"), ("device", "h:/x")]);
        definition.labels.insert("a".into(), "é\n\"".into());
        let bytes = definition.encode();
        assert_eq!(VolumeDefinition::decode(&bytes), Ok(definition.clone()));
        assert_eq!(definition.mount_source(), "nfs h:/x");
        // Of a later version: what is not known is passed over.
        let text = String::from_utf8(bytes).unwrap();
        let more = text.replacen('{', "{\"later\":[1],", 1);
        assert_eq!(VolumeDefinition::decode(more.as_bytes()), Ok(definition));
        for (from, to) in [
            ("\"format\":1", "\"format\":2"),
            ("\"name\":\"web\"", "\"name\":\"--help\""),
            ("\"name\":\"web\"", "\"name\":\"../web\""),
            ("\"driver\":\"local\"", "\"driver\":\"\""),
            ("h:/x", "h\\u0000x"),
        ] {
            let odd = text.replace(from, to);
            assert_ne!(odd, text);
            assert!(VolumeDefinition::decode(odd.as_bytes()).is_err(), "{odd}");
        }
        assert!(VolumeDefinition::decode(b"").is_err());
        assert!(VolumeDefinition::decode(&vec![b' '; DEFINITION_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn quotas_are_seen() {
        assert!(with_options(&[("o", "size=1G")]).has_quota());
        assert!(with_options(&[("INODES", "100")]).has_quota());
        assert!(!with_options(&[("o", "uid=5")]).has_quota());
        let tmpfs = with_options(&[("type", "tmpfs"), ("o", "size=8m,uid=5"), ("SIZE", "8m")]);
        assert!(tmpfs.needs_quota(Version::parse("4.7.2")));
        assert!(!tmpfs.needs_quota(Version::parse("4.8.0")));
    }

    #[test]
    fn v_17_a_quota_is_dropped_with_podman_s_repetition_of_it() {
        for (options, said, left) in [
            (
                &[
                    ("o", "size=10M,uid=5,inodes=100"),
                    ("SIZE", "10M"),
                    ("INODES", "100"),
                ][..],
                "size=10M,inodes=100",
                Some("uid=5"),
            ),
            (&[("SIZE", "1G"), ("UID", "5")], "size=1G", None),
            (&[("o", "SIZE=1G")], "SIZE=1G", None),
            (&[("o", "uid=5")], "", Some("uid=5")),
        ] {
            let mut volume = with_options(options);
            assert_eq!(volume.drop_quota(), said, "{options:?}");
            assert_eq!(volume.options.get("o").map(String::as_str), left);
            assert!(!volume.has_quota() && !volume.options.contains_key("SIZE"));
        }
    }

    #[test]
    fn volumes_and_their_users_are_what_podman_shows() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(
            folder.path(),
            r#"case "$*" in
"volume ls --format json") echo '[
  {"Name":"web","Driver":"local","Mountpoint":"/v/web/_data","CreatedAt":"2026-01-02T03:04:05Z",
   "Labels":{"a":""},"Options":{},"Scope":"local","MountCount":0,"LockNumber":3},
  {"Name":"abc","Driver":"local","Mountpoint":"/v/abc/_data","Labels":null,"Options":null,
   "Anonymous":true,"NeedsCopyUp":true,"UID":5}]' ;;
"ps -a --format json") echo '[{"Id":"01","Mounts":["/x"]},{"Id":"02","Mounts":null},
                              {"Id":"03","Mounts":[]}]' ;;
"container inspect --format json 01 02") echo '[
  {"Name":"b","State":{"Status":"running"},"Mounts":[{"Type":"volume","Name":"web"},
                                                     {"Type":"volume","Name":"web"}]},
  {"Name":"a","State":{"Status":"exited"},"Mounts":[{"Type":"volume","Name":"web"},
                                                    {"Type":"bind","Source":"/s"}]}]'
  echo 'Error: no such container 02' >&2; exit 125 ;;
*) echo "Error: what is $*?" >&2; exit 125 ;;
esac"#,
        );
        let volumes = list_volumes(&podman).unwrap();
        assert_eq!(volumes.len(), 2);
        assert_eq!(volumes[0].definition.name, "abc");
        assert!(volumes[0].definition.anonymous && volumes[0].definition.needs_copy_up);
        assert_eq!(volumes[0].definition.uid, 5);
        assert_eq!(volumes[1].definition.labels["a"], "");
        assert_eq!(volumes[1].mountpoint, PathBuf::from("/v/web/_data"));
        let users = users_of_volumes(&podman).unwrap();
        assert_eq!(users.len(), 1);
        assert_eq!(users["web"].all, ["a", "b"]);
        assert_eq!(users["web"].running, ["b"]);
    }

    #[test]
    fn a_name_is_never_taken_for_a_prefix_or_an_option() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(
            folder.path(),
            r#"echo '[{"Name":"web-old","Driver":"local","Mountpoint":"/v/web-old/_data"}]'"#,
        );
        assert_eq!(inspect_volume(&podman, "web").unwrap(), None);
        assert_eq!(inspect_volume(&podman, "--all").unwrap(), None);
        let plain = VolumeDefinition::plain("web");
        assert!(Volume::create(&podman, &plain, "--all").is_err());
    }
}
