//! Upper directories of overlay mounts, laid over a copy of what was below them: the kernel's own view
//! says what has to come out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use podkeep_engine::fs::write::Existing;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::drive::{self, Source};
use crate::mount::Mounted;
use crate::{mktree, oracle};

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// What an image may hold.
fn fill(root: &Path) {
    for path in [
        "etc/changed",
        "etc/removed",
        "etc/same",
        "opaque/below/file",
        "opaque/file",
        "gone/deep/er/file",
        "to-file/a",
        "to-link/a",
        "to-node/a",
        "moved/a/b",
        "names/one",
        "removed-and-made",
    ] {
        write(root, path, &format!("image {path}\n"));
    }
    fs::hard_link(root.join("names/one"), root.join("names/two")).unwrap();
    write(root, "to-directory", "was a file");
    symlink("etc/same", root.join("link-to-file")).unwrap();
    symlink("etc", root.join("link-to-directory")).unwrap();
    let attribute = |name: &str, value: &[u8]| {
        let path = root.join("etc/changed");
        rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    attribute("user.kept", b"1");
    attribute("user.removed", b"2");
}

/// What a container may do to it.
fn change(root: &Path) {
    let at = |path: &str| root.join(path);
    write(root, "etc/changed", "container");
    rustix::fs::removexattr(at("etc/changed"), "user.removed").unwrap();
    fs::remove_file(at("etc/removed")).unwrap();
    for directory in ["opaque", "gone", "to-file", "to-link", "to-node"] {
        fs::remove_dir_all(at(directory)).unwrap();
    }
    write(root, "opaque/own", "own");
    rustix::fs::chmod(at("opaque"), Mode::from_raw_mode(0o2750)).unwrap();
    write(root, "to-file", "is a file");
    symlink("gone", at("to-link")).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, at("to-node"), FileType::Fifo, mode, 0).unwrap();
    fs::remove_file(at("to-directory")).unwrap();
    write(root, "to-directory/file", "in it");
    // As `mv` does where the file system cannot: a copy, and away with the old one.
    write(root, "moved-to/a/b", "image moved/a/b\n");
    fs::remove_dir_all(at("moved")).unwrap();
    write(root, "names/one", "no more the same as two");
    fs::hard_link(at("etc/changed"), at("etc/another-name")).unwrap();
    fs::remove_file(at("link-to-directory")).unwrap();
    write(root, "link-to-directory/file", "behind no link");
    fs::remove_file(at("removed-and-made")).unwrap();
    write(root, "removed-and-made", "again");
    write(root, "new/deep/file", "new");
    rustix::fs::chown(
        at("etc"),
        Some(rustix::fs::Uid::from_raw(7)),
        Some(rustix::fs::Gid::from_raw(8)),
    )
    .unwrap();
}

#[test]
fn an_upper_directory_laid_over_a_copy_gives_what_the_mount_shows() {
    let scratch = mktree::Scratch::new();
    let [lower, upper, work, copy] = ["lower", "upper", "work", "copy"].map(|name| {
        let path = scratch.join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    // The copy has other times: those of what stays below do not count.
    fill(&lower);
    fill(&copy);
    let mounted = Mounted::overlay(&lower, &upper, &work);
    change(mounted.path());
    for round in ["once", "once more"] {
        let source = Source::read_upper(&upper);
        let (_, findings) = source
            .restore(drive::spec(&copy, Existing::LaidOver))
            .unwrap();
        assert_eq!(findings, [], "{round}");
        let options = oracle::Options {
            mtime: false,
            ..oracle::Options::default()
        };
        oracle::assert_same(mounted.path(), &copy, &options);
        // What the container changed has its time, to the nanosecond.
        let record = |root: &Path| oracle::read(root).unwrap();
        let (shown, made) = (record(mounted.path()), record(&copy));
        for (path, facts) in record(&upper) {
            if facts.kind != "char-device" {
                assert_eq!(shown[&path].mtime, made[&path].mtime, "{path:?}");
            }
        }
    }
}

/// Links of the image lead nowhere: what is laid over it stays below its root.
#[test]
fn what_is_laid_over_a_root_follows_no_link() {
    let scratch = mktree::Scratch::new();
    let [upper, copy, outside] = ["upper", "copy", "outside"].map(|name| {
        let path = scratch.join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    write(&outside, "etc/passwd", "of the host");
    for name in ["a", "b", "c"] {
        symlink(outside.join("etc"), copy.join(name)).unwrap();
    }
    write(&upper, "a/passwd", "of the container");
    let none = Mode::empty();
    rustix::fs::mknodat(CWD, upper.join("b"), FileType::CharacterDevice, none, 0).unwrap();
    fs::create_dir(upper.join("c")).unwrap();
    let (opaque, flags) = ("trusted.overlay.opaque", XattrFlags::empty());
    rustix::fs::setxattr(upper.join("c"), opaque, b"y", flags).unwrap();
    let source = Source::read_upper(&upper);
    let spec = drive::spec(&copy, Existing::LaidOver);
    assert_eq!(source.restore(spec).unwrap().1, []);
    let content = |path: std::path::PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(content(outside.join("etc/passwd")), "of the host");
    assert_eq!(content(copy.join("a/passwd")), "of the container");
    assert!(fs::symlink_metadata(copy.join("b")).is_err());
    assert!(fs::read_dir(copy.join("c")).unwrap().next().is_none());
    let mut none = [0; 8];
    assert!(rustix::fs::getxattr(copy.join("c"), opaque, &mut none[..]).is_err());
}
