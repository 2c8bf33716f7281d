//! Which part of a tree is read, and how it is taken.

use std::collections::{BTreeMap, BTreeSet};

use podkeep_format::tree::Time;
use rustix::fs::FileType;

use super::stat::Stat;

/// A scan takes all of a tree unless it is told otherwise.
#[derive(Clone, Debug, Default)]
pub enum View {
    #[default]
    Whole,
    /// Files that lie apart from each other, and the directories that lead to them.
    Only(OnlyPaths),
    /// The upper directory of an overlay mount, which holds what was changed of the directories
    /// below it: what was removed stands there as a character device 0:0, and a directory that
    /// hides the one below carries the attribute `trusted.overlay.opaque`. Other attributes of
    /// overlayfs are of that one mount; whiteouts have no owner and no time. A mount that was made
    /// in a user namespace (`in_user_namespace`) uses attributes of `user.` instead: they are kept
    /// as if root had made it.
    ///
    /// Source: Linux, Documentation/filesystems/overlayfs.rst; fuse-overlayfs, `main.c`.
    OverlayUpper { in_user_namespace: bool },
    /// A whole root of which only what was changed is taken, in the form of an upper directory.
    Changed {
        /// With all directories above them.
        changed: BTreeSet<Vec<u8>>,
        /// By the directory that they were in.
        removed: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    },
}

/// Paths below the root, without a slash in front.
#[derive(Clone, Debug, Default)]
pub struct OnlyPaths(BTreeSet<Vec<u8>>);

impl FromIterator<Vec<u8>> for OnlyPaths {
    fn from_iter<I: IntoIterator<Item = Vec<u8>>>(paths: I) -> Self {
        Self(paths.into_iter().collect())
    }
}

impl OnlyPaths {
    /// Whether a path is one of them, or on the way to one.
    fn covers(&self, path: &[u8]) -> bool {
        self.0.contains(path) || self.is_on_the_way(path)
    }

    fn is_on_the_way(&self, path: &[u8]) -> bool {
        if path.is_empty() {
            return !self.0.is_empty();
        }
        let below = [path, b"/"].concat();
        let next = self.0.range(below.clone()..).next();
        next.is_some_and(|next| next.starts_with(&below))
    }
}

/// What overlayfs notes on an inode, of mounts that only root may make.
const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";
/// The same of mounts of user namespaces, and of a program that mounts for them.
const USER_PREFIXES: [&[u8]; 2] = [b"user.overlay.", b"user.fuseoverlayfs."];
const OVERLAY_OPAQUE: &[u8] = b"trusted.overlay.opaque";

impl View {
    /// Whether the entry at a path is read.
    pub fn takes(&self, path: &[u8]) -> bool {
        match self {
            Self::Only(paths) => paths.covers(path),
            Self::Changed { changed, .. } => changed.contains(path),
            Self::Whole | Self::OverlayUpper { .. } => true,
        }
    }

    /// Every entry is taken, whatever its path.
    pub fn takes_all(&self) -> bool {
        matches!(self, Self::Whole | Self::OverlayUpper { .. })
    }

    /// The name by which an attribute is kept. `None`: it is not one of the tree's.
    pub fn kept_xattr(&self, name: Vec<u8>) -> Option<Vec<u8>> {
        let Self::OverlayUpper { in_user_namespace } = self else {
            return Some(name);
        };
        let own = match in_user_namespace {
            true => &USER_PREFIXES[..],
            false => &[],
        };
        let prefixes = own.iter().chain([&OVERLAY_PREFIX]);
        let rest = prefixes
            .copied()
            .find_map(|prefix| name.strip_prefix(prefix));
        match rest {
            None => Some(name),
            Some(b"opaque") => Some(OVERLAY_OPAQUE.to_vec()),
            Some(_) => None,
        }
    }

    pub fn is_of_single_files(&self) -> bool {
        matches!(self, Self::Only(_))
    }

    /// Whether the directory at a path is nothing but the way to what is read.
    pub fn only_passes(&self, path: impl FnOnce() -> Vec<u8>) -> bool {
        match self {
            Self::Only(paths) => paths.is_on_the_way(&path()),
            _ => false,
        }
    }

    /// A directory that is only on the way has the time of whatever else happens in it: none.
    pub fn directory_time(&self, path: impl FnOnce() -> Vec<u8>, time: Time) -> Time {
        match self.only_passes(path) {
            true => Time::default(),
            false => time,
        }
    }

    /// Names that were removed from the directory at a path.
    pub fn removed_from(&self, path: &[u8]) -> impl Iterator<Item = &[u8]> {
        let removed = match self {
            Self::Changed { removed, .. } => removed.get(path),
            _ => None,
        };
        removed.into_iter().flatten().map(Vec::as_slice)
    }

    /// Whether an entry stands for something that was removed.
    pub(super) fn is_whiteout(&self, stat: &Stat) -> bool {
        let nothing = stat.kind == FileType::CharacterDevice && stat.rdev == (0, 0);
        matches!(self, Self::OverlayUpper { .. }) && nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_directory_of_a_user_is_kept_as_root_s_would_be() {
        let kept = |in_user_namespace, name: &str| {
            let view = View::OverlayUpper { in_user_namespace };
            let kept = view.kept_xattr(name.as_bytes().to_vec());
            kept.map(|name| String::from_utf8(name).unwrap())
        };
        let opaque = Some("trusted.overlay.opaque".to_owned());
        for (name, of_root, of_user) in [
            ("trusted.overlay.opaque", opaque.clone(), opaque.clone()),
            ("trusted.overlay.origin", None, None),
            (
                "user.overlay.opaque",
                Some("user.overlay.opaque".into()),
                opaque.clone(),
            ),
            (
                "user.fuseoverlayfs.opaque",
                Some("user.fuseoverlayfs.opaque".into()),
                opaque,
            ),
            (
                "user.overlay.origin",
                Some("user.overlay.origin".into()),
                None,
            ),
            ("user.own", Some("user.own".into()), Some("user.own".into())),
        ] {
            assert_eq!(kept(false, name), of_root, "{name}");
            assert_eq!(kept(true, name), of_user, "{name}");
        }
    }

    #[test]
    fn only_the_way_to_a_path_and_the_path_are_taken() {
        let paths = ["etc/a/x", "srv"].map(|path| path.as_bytes().to_vec());
        let view = View::Only(paths.into_iter().collect());
        for (path, taken) in [
            ("", true),
            ("etc", true),
            ("etc/a", true),
            ("etc/a/x", true),
            ("etc/a/xy", false),
            ("etc/ab", false),
            ("et", false),
            ("srv", true),
            ("srv/b", false),
        ] {
            assert_eq!(view.takes(path.as_bytes()), taken, "{path}");
        }
        let time = Time { secs: 1, nanos: 0 };
        assert_eq!(
            view.directory_time(|| b"etc".to_vec(), time),
            Time::default()
        );
        assert_eq!(view.directory_time(|| b"srv".to_vec(), time), time);
        assert!(!View::Only(OnlyPaths::default()).takes(b""));
        assert!(View::Whole.takes(b"x"));
    }
}
