//! Where the repository, the cache and the state lie when nobody says so.
//!
//! Root's are system folders. Others' follow the XDG base directories. Under systemd, which sets
//! no HOME, the unit's `CacheDirectory=` and `StateDirectory=` count.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use podkeep_engine::link::Address;

use crate::failure::{Failure, shell_word};

/// Where a repository lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Path(PathBuf),
    Remote(Address),
    /// Where the podkeep that gave this one something to do has it, in its words.
    Handed(String),
}

impl Place {
    /// The path, where it is one of this host.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Remote(_) | Self::Handed(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Remote(address) => address.fmt(f),
            Self::Handed(words) => words.fmt(f),
        }
    }
}

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

    /// Where the repository lies. `given` is what `--repo` or PODKEEP_REPO says.
    pub fn repository(&self, given: Option<&OsStr>) -> Result<Place, Failure> {
        let hint = "--repo or PODKEEP_REPO names it: a path, or ssh://[LOGIN@]HOST[:PORT]/PATH";
        match given {
            Some(given) if given.is_empty() => Err(Failure::usage(
                "the repository's path is empty".to_owned(),
                hint,
            )),
            Some(given) if Address::is_one(given) => match Address::parse(given) {
                Ok(address) => Ok(Place::Remote(address)),
                Err(defect) => Err(Failure::usage(
                    format!("{} is no repository: {defect}", given.display()),
                    hint,
                )),
            },
            Some(given) if has_scheme(given) => Err(Failure::usage(
                format!(
                    "{} is no repository that this version can reach",
                    given.display()
                ),
                hint,
            )),
            Some(given) => match scp_form(given) {
                Some(url) if !Path::new(given).exists() => Err(Failure::usage(
                    format!(
                        "{} is a path of this host, and there is none",
                        given.display()
                    ),
                    format!(
                        "on another host: {}; here: {}",
                        shell_word(&url),
                        shell_word(&format!("./{}", given.display()))
                    ),
                )),
                _ => Ok(Place::Path(PathBuf::from(given))),
            },
            None if self.root => Ok(Place::Path(PathBuf::from("/var/lib/podkeep/repository"))),
            None => self
                .home_folder("XDG_DATA_HOME", ".local/share")
                .map(|folder| Place::Path(folder.join("repository")))
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

/// `[login@]host:path`, as scp and rsync write it, in the form that podkeep takes. What stands
/// behind the colon is all path there, also where it begins with digits.
fn scp_form(repo: &OsStr) -> Option<String> {
    let (host, path) = repo.to_str()?.split_once(':')?;
    if host.is_empty() || host.contains('/') || path.is_empty() {
        return None;
    }
    let home = match path.starts_with('/') {
        true => "",
        false => "/~/",
    };
    Some(format!("ssh://{host}{home}{path}"))
}

/// `s3://`, ...: never the start of a path that somebody means.
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
                s.repository(None).unwrap().local(),
                Some(Path::new("/var/lib/podkeep/repository"))
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
                    s.repository(None).unwrap().local(),
                    Some(Path::new("/home/a/.local/share/podkeep/repository"))
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
    fn a_repository_is_a_path_or_on_another_host() {
        with(true, &[], |s| {
            let place = |text: &str| s.repository(Some(OsStr::new(text)));
            for none in ["", "s3://bucket/r", "ssh://host", "ssh://host:x/r"] {
                assert!(place(none).is_err(), "{none}");
            }
            assert_eq!(place("a b").unwrap().local(), Some(Path::new("a b")));
            let remote = place("ssh://bk@nas:2222/srv/r").unwrap();
            assert_eq!(remote.local(), None);
            assert_eq!(remote.to_string(), "ssh://bk@nas:2222/srv/r");
        });
    }

    #[test]
    fn t_05_the_form_of_scp_is_met_with_the_one_that_is_meant() {
        with(true, &[], |s| {
            let hint = |text: &str| s.repository(Some(OsStr::new(text))).unwrap_err().hint;
            let hint = |text: &str| hint(text).unwrap_or_default();
            assert!(hint("bk@h:/p").contains("ssh://bk@h/p"));
            // Digits behind the colon are a path there, never a port.
            assert!(hint("bk@h:2222/p").contains("ssh://bk@h/~/2222/p"));
            for path in ["./a:b", "/srv/a:b", "a/b:c"] {
                let place = s.repository(Some(OsStr::new(path))).unwrap();
                assert_eq!(place.local(), Some(Path::new(path)));
            }
        });
    }
}
