//! Where the repository, the cache and the state lie when nobody says so.
//!
//! Root's are system folders. Others' follow the XDG base directories. Under systemd, which sets
//! no HOME, the unit's `CacheDirectory=` and `StateDirectory=` count.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// What decides about places, read once.
pub struct Surroundings<'a> {
    pub root: bool,
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Surroundings<'_> {
    /// Of an absolute path; others are ignored, as the XDG specification asks.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        (self.variable)(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    }

    /// The first of the folders that systemd lists, separated by colons.
    fn unit_folder(&self, name: &str) -> Option<PathBuf> {
        let value = (self.variable)(name)?;
        let first = value.as_bytes().split(|b| *b == b':').next()?;
        let path = PathBuf::from(OsStr::from_bytes(first));
        path.is_absolute().then_some(path)
    }

    fn home_folder(&self, xdg: &str, below_home: &str) -> Option<PathBuf> {
        self.folder(xdg)
            .or_else(|| Some(self.folder("HOME")?.join(below_home)))
            .map(|folder| folder.join("podkeep"))
    }

    /// The repository's path. `given` is what `--repo` or PODKEEP_REPO says.
    pub fn repository(&self, given: Option<&OsStr>) -> Result<PathBuf, Failure> {
        let hint = "--repo or PODKEEP_REPO names it: a path";
        match given {
            Some(given) if given.is_empty() => Err(Failure::usage(
                "the repository's path is empty".to_owned(),
                hint,
            )),
            Some(given) if has_scheme(given) => Err(Failure::usage(
                format!(
                    "{} is no repository that this version can reach",
                    given.display()
                ),
                hint,
            )),
            Some(given) => Ok(PathBuf::from(given)),
            None if self.root => Ok(PathBuf::from("/var/lib/podkeep/repository")),
            None => self
                .home_folder("XDG_DATA_HOME", ".local/share")
                .map(|folder| folder.join("repository"))
                .ok_or_else(|| Failure::no_place("the repository", hint)),
        }
    }

    /// The cache's folder. `given` is what `--cache-dir` or PODKEEP_CACHE_DIR says.
    pub fn cache(&self, given: Option<&Path>) -> Result<PathBuf, Failure> {
        if let Some(given) = given {
            return Ok(given.to_path_buf());
        }
        if let Some(folder) = self.unit_folder("CACHE_DIRECTORY") {
            return Ok(folder);
        }
        if self.root {
            return Ok(PathBuf::from("/var/cache/podkeep"));
        }
        self.home_folder("XDG_CACHE_HOME", ".cache").ok_or_else(|| {
            Failure::no_place("the cache", "--cache-dir or PODKEEP_CACHE_DIR names it")
        })
    }

    /// The folder of what must last: this host's identity and what runs hold.
    pub fn state(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = self.folder("PODKEEP_STATE_DIR") {
            return Ok(folder);
        }
        if let Some(folder) = self.unit_folder("STATE_DIRECTORY") {
            return Ok(folder);
        }
        if self.root {
            return Ok(PathBuf::from("/var/lib/podkeep"));
        }
        self.home_folder("XDG_STATE_HOME", ".local/state")
            .ok_or_else(|| Failure::no_place("the state folder", "PODKEEP_STATE_DIR names it"))
    }
}

impl Surroundings<'_> {
    /// Where Podman keeps what is backed up, unless it is configured otherwise.
    pub fn protected(&self) -> Vec<PathBuf> {
        if self.root {
            return vec![PathBuf::from("/var/lib/containers/storage")];
        }
        self.folder("XDG_DATA_HOME")
            .or_else(|| Some(self.folder("HOME")?.join(".local/share")))
            .map(|folder| folder.join("containers/storage"))
            .into_iter()
            .collect()
    }
}

/// The first of `protected` that lies on the file system of `repository`, if any.
pub fn neighbour(repository: &Path, protected: &[PathBuf]) -> Option<PathBuf> {
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let here = device(repository)?;
    protected
        .iter()
        .find(|path| device(path) == Some(here))
        .cloned()
}

/// `ssh://`, `s3://`, ...: never the start of a path that somebody means.
fn has_scheme(repo: &OsStr) -> bool {
    let Some(text) = repo.to_str() else {
        return false;
    };
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'+')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(root: bool, variables: &[(&str, &str)], look: impl Fn(&Surroundings<'_>) -> T) -> T {
        look(&Surroundings {
            root,
            variable: &|name| {
                variables
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| OsString::from(value))
            },
        })
    }

    #[test]
    fn o_05_root_needs_no_environment() {
        with(true, &[], |s| {
            assert_eq!(
                s.repository(None).unwrap(),
                Path::new("/var/lib/podkeep/repository")
            );
            assert_eq!(s.cache(None).unwrap(), Path::new("/var/cache/podkeep"));
            assert_eq!(s.state().unwrap(), Path::new("/var/lib/podkeep"));
        });
    }

    #[test]
    fn users_have_their_own_folders() {
        with(
            false,
            &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative")],
            |s| {
                assert_eq!(
                    s.repository(None).unwrap(),
                    Path::new("/home/a/.local/share/podkeep/repository")
                );
                assert_eq!(s.cache(None).unwrap(), Path::new("/home/a/.cache/podkeep"));
            },
        );
        with(false, &[], |s| {
            assert!(s.repository(None).is_err());
            assert!(s.cache(None).is_err());
            assert!(s.cache(Some(Path::new("/c"))).is_ok());
        });
        with(false, &[("CACHE_DIRECTORY", "/var/cache/x:/y")], |s| {
            assert_eq!(s.cache(None).unwrap(), Path::new("/var/cache/x"));
        });
    }

    #[test]
    fn a_repository_is_a_path() {
        with(true, &[], |s| {
            assert!(s.repository(Some(OsStr::new("ssh://host/r"))).is_err());
            assert!(s.repository(Some(OsStr::new(""))).is_err());
            assert_eq!(
                s.repository(Some(OsStr::new("a b"))).unwrap(),
                Path::new("a b")
            );
        });
    }
}
