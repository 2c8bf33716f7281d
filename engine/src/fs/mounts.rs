//! What is mounted where, as this process sees it.
//!
//! Source: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A host with 10,000 containers has some 4 MB.
const MOUNTS_BYTES_MAX: usize = 16 << 20;

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// "ext4", "fuse.sshfs"
    pub kind: String,
    /// "/dev/sda1", "nas:/export"
    pub source: String,
    /// Of the file system, not of this mount of it.
    pub options: Vec<String>,
}

/// The mounts of this process's namespace, as they are now.
pub struct Mounts(Vec<u8>);

impl Mounts {
    /// `None`: it cannot be told.
    pub fn now() -> Option<Self> {
        let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
        (mounts.len() <= MOUNTS_BYTES_MAX).then_some(Self(mounts))
    }

    /// What a path lies on, which has no links in it.
    pub fn of(&self, path: &Path) -> Option<Mount> {
        let mut best: Option<(usize, Mount)> = None;
        for line in self.0.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b' ');
            let Some(point) = fields.nth(4).map(unescaped) else {
                continue;
            };
            let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
            let (Some(kind), Some(source), options) = (rest.next(), rest.next(), rest.next())
            else {
                continue;
            };
            // Of several mounts at one point the last is on top.
            let deep = point.as_os_str().len();
            if path.starts_with(&point) && best.as_ref().is_none_or(|(len, _)| deep >= *len) {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let options = text(options.unwrap_or_default());
                let mount = Mount {
                    kind: text(kind),
                    source: text(source),
                    options: options.split(',').map(str::to_owned).collect(),
                };
                best = Some((deep, mount));
            }
        }
        Some(best?.1)
    }
}

/// Blanks, tabs, line ends and backslashes are written as `\NNN`, in octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let code = field
            .get(at + 1..at + 4)
            .filter(|_| field[at] == b'\\')
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(field[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_the_last_mount_of_the_deepest_point() {
        let mounts = Mounts(
            b"22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
              31 22 0:51 / /mnt/with\\040blank rw - fuse.sshfs u@h:/ rw,user_id=0\n\
              32 22 8:2 / /mnt/disk rw shared:5 - xfs /dev/sdb1 rw,prjquota\n\
              33 32 8:3 / /mnt/disk rw - ext4 /dev/sdc1\nnonsense\n"
                .to_vec(),
        );
        let kind = |path: &str| mounts.of(Path::new(path)).unwrap().kind;
        assert_eq!(kind("/srv"), "ext4");
        assert_eq!(kind("/mnt/with blank/x"), "fuse.sshfs");
        assert_eq!(kind("/mnt/disks"), "ext4");
        let top = mounts.of(Path::new("/mnt/disk/x")).unwrap();
        assert_eq!(
            (&*top.source, &*top.options),
            ("/dev/sdc1", &[String::new()][..])
        );
        assert_eq!(Mounts(Vec::new()).of(Path::new("/")), None);
        assert!(Mounts::now().unwrap().of(Path::new("/")).is_some());
    }
}
