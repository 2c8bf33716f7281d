//! Writing a file tree: in-root, complete before it is seen, resumable.
//!
//! A tree is staged beside its place and swapped in when all of it is there ([`staging`],
//! [`swap`]); a merge goes straight into what is there, entry by entry ([`tree`]), and so does what
//! is laid over it ([`laid_over`]). Nothing is
//! reached by a path of more than one name, and no link is followed ([`directory`]). What fails for
//! one entry or one attribute is a finding, grouped ([`failures`]); only a disk that is full or
//! cannot be written ends a restore, and then what is staged stays for the next run.

mod attributes;
mod directory;
mod failures;
mod file;
mod inode;
mod laid_over;
mod remove;
mod space;
mod staging;
mod swap;
mod tree;
mod writer;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use podkeep_format::id::TreeId;
use rustix::fs::{FileType, IFlags, Mode, XattrFlags};
use rustix::io::Errno;

pub use self::space::{Room, free_below, room, room_below};
pub use self::staging::PREFIX as STAGING_PREFIX;

use self::attributes::Rules;
use self::staging::{Staging, TREE};
use self::swap::Place;
use self::tree::Way;
use self::writer::Writer;
use super::{FsError, FsErrorKind, TreeWriter};
use crate::chunk::Chunking;

/// A piece that is asked for is no longer than this: 16 MiB, above every chunk size.
const PIECE_BYTES_MAX: u32 = 16 << 20;

/// Where a tree goes: a name in a directory that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Raw path, absolute or relative, of any length; links in it are followed.
    pub parent: Vec<u8>,
    /// One name. A link there is refused, never followed.
    pub name: Vec<u8>,
}

/// What to do with what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse a directory that is not empty, and any file.
    Refuse,
    /// The tree wins for each entry, others stay. Of a single file: the file is replaced.
    Merge,
    /// Exactly the tree; what was there is kept until success.
    Replace,
    /// The tree is the upper directory of an overlay mount, and is laid over what is there as the kernel
    /// would show it: an entry hides one of any other type, a character device 0:0 removes what has its
    /// name, a directory with `trusted.overlay.opaque` begins empty.
    ///
    /// Source: Linux, Documentation/filesystems/overlayfs.rst.
    LaidOver,
    /// The steps say what is otherwise than in the tree that stands there, and change it where it
    /// lies: nobody uses it, and whoever is cut off replaces it. A file's parts that are
    /// [`PartBytes::Present`](super::PartBytes::Present) stay.
    Change,
}

/// How a complete tree gets to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// One step; two renames where the file system has no exchange.
    Exchange,
    /// Away with the old, in with the new; undone by the next run when it is cut off.
    TwoRenames,
    /// The directory itself stays, its entries are exchanged. Taken by itself for mount points,
    /// btrfs subvolumes and directories with a project quota of their own. Undone by the next run when it is cut off.
    InPlace,
}

/// What the root of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    Directory,
    /// One file or other node, whose step names directory 0 as its parent. Its entry's name
    /// does not matter: it gets the destination's.
    Single,
}

/// SELinux labels. By default the place gives them, and recorded ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Put on the staged root before its first entry is made.
    pub root: Option<Vec<u8>>,
    /// Restore the recorded labels.
    pub keep: bool,
}

/// What to write, and how.
#[derive(Clone)]
pub struct WriteSpec {
    /// What findings are about: the item's text form.
    pub object: String,
    pub destination: Destination,
    pub root_kind: RootKind,
    pub existing: Existing,
    pub swap: Swap,
    /// Computes the ids of what is there, for [`TreeWriter::present`].
    pub chunking: Arc<Chunking>,
    /// At least 1.
    pub threads: usize,
    /// What is staged is gone on with only if it was staged for the same root.
    pub root: TreeId,
    pub labels: Labels,
    /// Bytes that the tree will need, holes not counted; a place that has certainly less room is
    /// refused at once. `None`: not known.
    pub bytes_expected: Option<u64>,
}

/// Prepares the place; changes nothing at it before [`TreeWriter::finish`] unless it is merged
/// into. An entry's extended attributes must all be inline, however large: whoever reads the
/// repository resolves them.
///
/// Errors: `NotFound` (no such parent directory), `Refused` (something is there, a link, another
/// restore to the same place), `NoSpace`.
pub fn open(spec: WriteSpec) -> Result<Box<dyn TreeWriter>, FsError> {
    let Destination { parent, name } = &spec.destination;
    let mut shown = parent.clone();
    if !shown.ends_with(b"/") {
        shown.push(b'/');
    }
    shown.extend_from_slice(name);
    if !directory::is_name(name) {
        return Err(FsError::new(
            "restore to",
            &shown,
            FsErrorKind::Refused,
            "its name is not allowed",
        ));
    }
    let parent =
        directory::open_path(parent).map_err(|errno| FsError::from_errno("open", parent, errno))?;
    let mut place = Place {
        parent,
        name: name.clone(),
        shown,
        existing: spec.existing,
        swap: spec.swap,
    };

    // What a run that was cut off left, before anything is judged by what is there.
    let staging_name = staging::staging_name(name);
    let mut beside_shown = spec.destination.parent.clone();
    beside_shown.push(b'/');
    beside_shown.extend_from_slice(&staging_name);
    let beside = Staging::find(&place.parent, &staging_name, &beside_shown)?;
    if let Some(staging) = &beside {
        staging.recover_beside(&place.parent, name)?;
    }
    let single = spec.root_kind == RootKind::Single;
    let inside_shown = [&place.shown[..], &staging_name[..]].join(&b'/');
    let mut inside = None;
    let mut there = None;
    match place.kind()? {
        None => {}
        Some(FileType::Directory) if single => return Err(place.refused("it is a directory")),
        Some(FileType::Directory) => {
            let fd = place.open()?;
            if place.must_stay(&fd) {
                place.swap = Swap::InPlace;
            }
            inside = Staging::find(&fd, &staging_name, &inside_shown)?;
            if let Some(staging) = &inside {
                staging.recover_inside(&fd)?;
            }
            if spec.existing == Existing::Refuse && !place.is_empty(&fd)? {
                return Err(place.refused("it is not empty"));
            }
            there = Some(fd);
        }
        Some(FileType::Symlink) if !single => {
            return Err(place.refused("it is a symbolic link"));
        }
        Some(_) if !single => return Err(place.refused("it is no directory")),
        Some(_) if spec.existing == Existing::Refuse => {
            return Err(place.refused("it is there already"));
        }
        Some(_) => {}
    }

    let layout = there.as_ref().map(|fd| inode::flags(fd) & inode::LAYOUT);
    let writer = match there {
        None if spec.existing == Existing::Change => {
            return Err(place.refused("there is nothing that could be changed"));
        }
        Some(fd)
            if matches!(
                spec.existing,
                Existing::Merge | Existing::LaidOver | Existing::Change
            ) =>
        {
            // What was staged for this place is of no use to a merge.
            for staging in [beside, inside].into_iter().flatten() {
                staging.remove()?;
            }
            open_direct(spec, place, fd)?
        }
        there => {
            let in_place = there.filter(|_| place.swap == Swap::InPlace);
            let staging = match (&in_place, inside, beside) {
                (Some(_), Some(staging), None) | (None, None, Some(staging)) => staging,
                (Some(fd), inside, beside) => {
                    if let Some(beside) = beside {
                        beside.remove()?;
                    }
                    match inside {
                        Some(staging) => staging,
                        None => Staging::make(fd, &staging_name, &inside_shown)?,
                    }
                }
                (None, inside, beside) => {
                    if let Some(inside) = inside {
                        inside.remove()?;
                    }
                    match beside {
                        Some(staging) => staging,
                        None => Staging::make(&place.parent, &staging_name, &beside_shown)?,
                    }
                }
            };
            open_staged(
                spec,
                place,
                staging,
                in_place,
                layout.unwrap_or(IFlags::empty()),
            )?
        }
    };
    Ok(Box::new(writer))
}

fn open_staged(
    spec: WriteSpec,
    place: Place,
    staging: Staging,
    in_place: Option<OwnedFd>,
    layout: IFlags,
) -> Result<Writer, FsError> {
    let single = spec.root_kind == RootKind::Single;
    let resumed = staging.resume(&spec.root, !single)?;
    let failed = |errno| staging.error("prepare", errno);
    if let Some(expected) = spec.bytes_expected
        && !resumed
        && let Some(free) = space::bytes_free(&staging.fd)
        && free < expected
    {
        let cause = format!("{expected} bytes are needed, {free} are free");
        // Made for nothing.
        staging.remove()?;
        let kind = FsErrorKind::NoSpace;
        return Err(FsError::new("restore to", &place.shown, kind, cause));
    }
    let check_times = !attributes::keeps_nanoseconds(&staging.fd);
    let label = |fd: &OwnedFd| match &spec.labels.root {
        None => Ok(()),
        Some(label) => rustix::fs::fsetxattr(fd, "security.selinux", label, XattrFlags::empty()),
    };
    label(&staging.fd).map_err(failed)?;
    let root = if single {
        rustix::io::fcntl_dupfd_cloexec(&staging.fd, 3).map_err(failed)?
    } else {
        if !resumed {
            rustix::fs::mkdirat(&staging.fd, TREE, Mode::RWXU).map_err(failed)?;
        }
        let tree = match directory::open_directory(&staging.fd, TREE) {
            Err(Errno::ACCESS) => {
                remove::make_accessible(&staging.fd, TREE).map_err(failed)?;
                directory::open_directory(&staging.fd, TREE).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        if resumed {
            inode::unlock(&tree);
        }
        // Without copy-on-write, compressed: as whoever made the place wants its content. Where it
        // cannot be set, the content lies as it does elsewhere.
        if !layout.is_empty() {
            let _ = inode::set_flags(&tree, layout, layout);
        }
        label(&tree).map_err(failed)?;
        rustix::fs::fchmod(&tree, Mode::RWXU).map_err(failed)?;
        tree
    };
    let rules = Rules {
        keep_labels: spec.labels.keep,
        projects: inode::project(&staging.fd) == 0,
        inherited: resumed,
        check_times,
    };
    let mut writer = Writer::new(spec, place, Way::Staged { resumed }, root, rules)?;
    writer.staging = Some(staging);
    writer.in_place = in_place;
    Ok(writer)
}

fn open_direct(spec: WriteSpec, place: Place, root: OwnedFd) -> Result<Writer, FsError> {
    if inode::is_locked(&root) {
        return Err(place.refused("it is immutable or append-only"));
    }
    match crate::fs::lock::lock_exclusive(&root) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(place.refused("another restore to the same place is running"));
        }
        Err(errno) => return Err(FsError::from_errno("lock", &place.shown, errno)),
    }
    let rules = Rules {
        keep_labels: spec.labels.keep,
        projects: inode::project(&root) == 0,
        inherited: true,
        check_times: true,
    };
    let way = match spec.existing {
        Existing::Change => Way::Staged { resumed: true },
        _ => Way::Direct,
    };
    Writer::new(spec, place, way, root, rules)
}
