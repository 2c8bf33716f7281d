//! Priming: a volume that is restored must stay as it is when its first container starts.
//!
//! Podman marks a new volume: the first container that mounts it fills it from its image when it
//! is empty, and gives its root the owner and mode of the image's directory (Podman 4.3 also when
//! it is full). Only a first use takes the marks away. So the volume gets one: a container that
//! mounts it over a directory in which its image has one file. `podman init` is enough, for it
//! mounts everything before it looks for the command, which is not there. Then the container and
//! the image go, and so does the file.
//!
//! Names and a label say whose they are. A lock in the state folder keeps two runs apart; that it
//! is not empty says that something of a run that was cut off may be left, which the next run
//! removes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::command::{Podman, PodmanError, Purpose, failure};
use super::volume::{Volume, inspect_volume};

/// The file that a primed volume holds until it is removed.
pub const SEED_NAME: &str = ".podkeep-prime";
const SEED: &[u8] = b"podkeep primes this volume\n";
const IMAGE: &str = "localhost/podkeep-prime:1";
const CONTAINER: &str = "podkeep-prime";
const LABEL: &str = "io.podkeep.prime=1";
const DIRECTORY: &str = "podkeep-prime";
const LOCK_FILE: &str = "prime.lock";

/// The right to prime; at most one at a time for each state folder.
pub struct Primer<'a> {
    podman: &'a Podman,
    lock: File,
}

impl<'a> Primer<'a> {
    /// Waits for another run's priming, and removes what a run that was cut off left. `state` is
    /// there.
    pub fn lock(podman: &'a Podman, state: &Path) -> Result<Self, PodmanError> {
        let path = state.join(LOCK_FILE);
        let failed =
            |cause: std::io::Error| PodmanError::new("lock", path.display().to_string(), cause);
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| failed(errno.into()))?;
        let mut first = [0];
        let left = lock.read(&mut first).map_err(failed)? > 0;
        let primer = Self { podman, lock };
        if left {
            primer.clean_up()?;
        }
        Ok(primer)
    }

    /// Takes the marks off a volume, whose content and root attributes stay. Returns the volume as
    /// it is then. Does nothing when it has no marks.
    pub fn prime(&self, volume: &Volume) -> Result<Volume, PodmanError> {
        let definition = &volume.definition;
        if !definition.needs_copy_up && !definition.needs_chown {
            return Ok(volume.clone());
        }
        let name = definition.name.as_str();
        let object = format!("volume {name}");
        let purpose = Purpose {
            action: "prime",
            object: &object,
        };
        let failed = |cause: std::io::Error| PodmanError::new("prime", object.as_str(), cause);
        let data = open_data(&volume.mountpoint).map_err(|e| failed(e.into()))?;
        let before = rustix::fs::fstat(&data).map_err(|e| failed(e.into()))?;
        let was_empty = is_empty(&data).map_err(|e| failed(e.into()))?;

        (&self.lock).write_all(b"primes\n").map_err(failed)?;
        self.lock.sync_all().map_err(failed)?;
        let used = self.use_once(name);
        // Whatever came of it, nothing of ours stays.
        let cleaned = self.clean_up();
        let said = used?;
        cleaned?;

        remove_seed(&volume.mountpoint).map_err(|e| failed(e.into()))?;
        rustix::fs::fchown(
            &data,
            Some(rustix::fs::Uid::from_raw(before.st_uid)),
            Some(rustix::fs::Gid::from_raw(before.st_gid)),
        )
        .and_then(|()| rustix::fs::fchmod(&data, Mode::from_raw_mode(before.st_mode)))
        .map_err(|e| failed(e.into()))?;
        let primed = inspect_volume(self.podman, name)?
            .ok_or_else(|| PodmanError::new("prime", object.as_str(), "it went meanwhile"))?;
        let marks = &primed.definition;
        let fills = marks.needs_copy_up && was_empty && !marks.is_nocopy();
        if marks.needs_chown || fills {
            return Err(PodmanError::new(
                purpose.action,
                object.as_str(),
                format!("a first use left its marks on it: {said}"),
            ));
        }
        Ok(primed)
    }

    /// Mounts the volume in a container once. Returns what `podman init` said.
    fn use_once(&self, name: &str) -> Result<String, PodmanError> {
        let object = format!("volume {name}");
        let purpose = Purpose {
            action: "prime",
            object: &object,
        };
        let podman = self.podman;
        podman.run(purpose, &["import", "-q", "-", IMAGE], &image())?;
        let mount = format!("{name}:/{DIRECTORY}");
        podman.run(
            purpose,
            &[
                "create",
                "--name",
                CONTAINER,
                "--label",
                LABEL,
                "--network",
                "none",
                "--pull",
                "never",
                "--log-driver",
                "none",
                "--volume",
                &mount,
                IMAGE,
                "/there-is-no-command",
            ],
            b"",
        )?;
        let ended = podman.end(purpose, &["init", CONTAINER], b"")?;
        Ok(match ended.status.success() {
            true => "podman init went well".into(),
            false => failure(purpose, &ended).cause,
        })
    }

    /// Removes the container and the image, if they are there.
    fn clean_up(&self) -> Result<(), PodmanError> {
        let purpose = Purpose {
            action: "remove",
            object: "what primes volumes",
        };
        let podman = self.podman;
        let filter = format!("label={LABEL}");
        let ids = podman.run(
            purpose,
            &["ps", "-a", "-q", "--no-trunc", "--filter", &filter],
            b"",
        )?;
        for id in String::from_utf8_lossy(&ids).split_ascii_whitespace() {
            podman.run(purpose, &["rm", "-f", id], b"")?;
        }
        let image = podman.end(purpose, &["image", "exists", IMAGE], b"")?;
        if image.status.success() {
            podman.run(purpose, &["rmi", IMAGE], b"")?;
        }
        self.lock
            .set_len(0)
            .and_then(|()| std::io::Seek::rewind(&mut &self.lock))
            .map_err(|error| PodmanError::new("clear", LOCK_FILE, error))
    }
}

/// Removes the file that priming puts into a volume, if it is there and ours.
pub fn remove_seed(data: &Path) -> Result<(), Errno> {
    let data = open_data(data)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let seed = match rustix::fs::openat(&data, SEED_NAME, flags, Mode::empty()) {
        Ok(seed) => File::from(seed),
        Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mut content = Vec::new();
    let read = seed.take(SEED.len() as u64 + 1).read_to_end(&mut content);
    if read.is_ok() && content == SEED {
        rustix::fs::unlinkat(&data, SEED_NAME, AtFlags::empty())?;
    }
    Ok(())
}

fn open_data(data: &Path) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(rustix::fs::CWD, data, flags, Mode::empty())
}

fn is_empty(directory: &std::os::fd::OwnedFd) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A layer of one directory with one file, as a POSIX ustar archive.
fn image() -> Vec<u8> {
    let mut archive = Vec::new();
    let directory = format!("{DIRECTORY}/");
    archive.extend_from_slice(&header(&directory, b'5', 0o755, 0));
    let name = format!("{directory}{SEED_NAME}");
    archive.extend_from_slice(&header(&name, b'0', 0o644, SEED.len()));
    archive.extend_from_slice(SEED);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// Owned by root, of 1970.
fn header(name: &str, kind: u8, mode: u32, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::super::command::tests::fake;
    use super::*;

    /// A podman that keeps a log of its calls and shows a volume as marked until it was initialised.
    const SCRIPT: &str = r#"
echo "$*" >> "$0.log"
case "$1 $2" in
    "volume inspect")
        marks=true
        [ -e "$0.used" ] && marks=false
        echo "[{\"Name\":\"web\",\"Driver\":\"local\",\"Mountpoint\":\"$(dirname "$0")/_data\",
              \"NeedsCopyUp\":$marks,\"NeedsChown\":$marks}]" ;;
    "init podkeep-prime")
        [ -e "$0.broken" ] || touch "$0.used"
        echo "podkeep primes this volume" > "$(dirname "$0")/_data/.podkeep-prime"
        chmod 0711 "$(dirname "$0")/_data"
        echo "Error: no such command" >&2; exit 127 ;;
    "ps -a") echo cafe ;;
esac"#;

    fn calls(folder: &Path) -> Vec<String> {
        let log = std::fs::read_to_string(folder.join("podman.log")).unwrap();
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        log.lines().map(first).collect()
    }

    #[test]
    fn a_marked_volume_is_used_once_and_left_as_it_was() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("_data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o770)).unwrap();
        let podman = fake(folder.path(), SCRIPT);
        let volume = inspect_volume(&podman, "web").unwrap().unwrap();
        let primer = Primer::lock(&podman, folder.path()).unwrap();
        let primed = primer.prime(&volume).unwrap();
        assert!(!primed.definition.needs_copy_up && !primed.definition.needs_chown);
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        let mode = std::fs::metadata(&data).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o770);
        assert_eq!(
            calls(folder.path()),
            [
                "volume", "import", "create", "init", "ps", "rm", "image", "rmi", "volume"
            ]
        );
        let lock = std::fs::metadata(folder.path().join(LOCK_FILE)).unwrap();
        assert_eq!(lock.len(), 0, "nothing is left to clean up");
        // It has no marks any more: nothing is done.
        primer.prime(&primed).unwrap();
        assert_eq!(calls(folder.path()).len(), 9);
    }

    #[test]
    fn marks_that_stay_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("_data")).unwrap();
        std::fs::write(folder.path().join("podman.broken"), "").unwrap();
        let podman = fake(folder.path(), SCRIPT);
        let volume = inspect_volume(&podman, "web").unwrap().unwrap();
        let primer = Primer::lock(&podman, folder.path()).unwrap();
        let error = primer.prime(&volume).unwrap_err();
        assert!(error.cause.contains("no such command"), "{error}");
    }

    #[test]
    fn what_a_run_that_was_cut_off_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK_FILE), "primes\n").unwrap();
        let podman = fake(folder.path(), SCRIPT);
        drop(Primer::lock(&podman, folder.path()).unwrap());
        assert_eq!(calls(folder.path()), ["ps", "rm", "image", "rmi"]);
        drop(Primer::lock(&podman, folder.path()).unwrap());
        assert_eq!(calls(folder.path()).len(), 4, "only once");
    }

    #[test]
    fn a_seed_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let seed = folder.path().join(SEED_NAME);
        std::fs::write(&seed, "mine").unwrap();
        remove_seed(folder.path()).unwrap();
        assert!(seed.exists());
        std::fs::write(&seed, SEED).unwrap();
        remove_seed(folder.path()).unwrap();
        assert!(!seed.exists());
    }

    #[test]
    fn the_image_is_an_archive_that_tar_reads() {
        #[expect(clippy::disallowed_methods, reason = "a test asks tar")]
        let mut tar = std::process::Command::new("tar");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image.tar");
        std::fs::write(&file, image()).unwrap();
        let listed = tar.arg("-tf").arg(&file).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        assert_eq!(
            String::from_utf8_lossy(&listed.stdout),
            "podkeep-prime/\npodkeep-prime/.podkeep-prime\n"
        );
        assert_eq!(image().len() % 512, 0);
    }
}
