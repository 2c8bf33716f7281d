//! Loading an image into another user's store.
//!
//! The layout lies where nobody but root may look, and stays there: the user's podman gets it as an
//! oci-archive on its standard input. The policy goes by way of a file that everybody may read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podkeep_format::tree::Time;

use super::command::{Ended, Podman, PodmanError, Purpose};
use crate::fs::tar::{NewMember, TarType, TarWriter};

const BLOBS: &str = "blobs/sha256";
/// Files of a layout: a manifest, a configuration and some layers.
const BLOBS_MAX: usize = 10_000;
/// Where everybody may read.
const FOLDER_OF_ALL: &str = "/tmp";
const COPY_BYTES: usize = 1 << 20;

pub(super) fn load(
    podman: &Podman,
    purpose: Purpose<'_>,
    layout: &Path,
    policy: &str,
    time: Duration,
) -> Result<Ended, PodmanError> {
    let policy = PolicyFile::write(policy)
        .map_err(|error| PodmanError::new("write", "a signature policy", error))?;
    let policy = policy.0.to_string_lossy().into_owned();
    let arguments = ["load", "--quiet", "--signature-policy", &policy];
    podman.end_fed(purpose, &arguments, &|out| archive(layout, out), time)
}

/// Removed when it is dropped.
struct PolicyFile(PathBuf);

impl PolicyFile {
    fn write(text: &str) -> io::Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("podkeep-policy-{}.json", podkeep_format::id::hex(&random));
        let path = Path::new(FOLDER_OF_ALL).join(name);
        // A file of that name that is there already is somebody else's.
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)?;
        let written = Self(path);
        file.write_all(text.as_bytes())?;
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o644))?;
        Ok(written)
    }
}

impl Drop for PolicyFile {
    fn drop(&mut self) {
        // It says nothing to anybody.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The layout as an oci-archive.
fn archive(layout: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut tar = TarWriter::new(out);
    for folder in ["blobs/", "blobs/sha256/"] {
        tar.member(&member(folder, TarType::Directory))?;
    }
    let mut names = vec!["oci-layout".to_owned(), "index.json".to_owned()];
    for entry in std::fs::read_dir(layout.join(BLOBS))?.take(BLOBS_MAX) {
        let name = entry?.file_name();
        names.push(format!("{BLOBS}/{}", name.to_string_lossy()));
    }
    names.sort_unstable();
    let mut buffer = vec![0; COPY_BYTES];
    for name in names {
        let mut file = File::open(layout.join(&name))?;
        let size = file.metadata()?.len();
        tar.member(&member(&name, TarType::File { size }))?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                len => tar.content(&buffer[..len])?,
            }
        }
    }
    tar.finish().map(drop)
}

fn member<'a>(path: &'a str, what: TarType<'a>) -> NewMember<'a> {
    NewMember {
        path: path.as_bytes(),
        what,
        mode: match what {
            TarType::Directory => 0o755,
            _ => 0o644,
        },
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        records: &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_becomes_an_archive_that_tar_reads() {
        let folder = tempfile::tempdir().unwrap();
        let layout = folder.path().join("layout");
        std::fs::create_dir_all(layout.join(BLOBS)).unwrap();
        for (name, content) in [
            ("oci-layout", "{}"),
            ("index.json", "{\"manifests\":[]}"),
            ("blobs/sha256/aa", "x"),
        ] {
            std::fs::write(layout.join(name), content).unwrap();
        }
        let mut bytes = Vec::new();
        archive(&layout, &mut bytes).unwrap();
        let file = folder.path().join("a.tar");
        std::fs::write(&file, &bytes).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test asks tar")]
        let mut tar = std::process::Command::new("tar");
        let listed = tar.arg("-tf").arg(&file).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&listed.stdout),
            "blobs/\nblobs/sha256/\nblobs/sha256/aa\nindex.json\noci-layout\n"
        );
    }

    #[test]
    fn a_policy_is_there_for_everybody_and_goes() {
        use std::os::unix::fs::PermissionsExt;
        let policy = PolicyFile::write("{}").unwrap();
        let path = policy.0.clone();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        drop(policy);
        assert!(!path.exists());
    }
}
