//! Hardlinks.

use std::fs;
use std::os::unix::fs::symlink;

use podkeep_format::tree::Node;
use rustix::fs::{AtFlags, CWD, FileType, Mode};

use super::support::{Place, chunking, noise, read, read_spec, spec};

fn group_of(lowest: &str) -> podkeep_format::id::LinkGroup {
    chunking().ids.link_group("volume:test", lowest.as_bytes())
}

#[test]
fn f_11_hardlinks_across_directories_and_out_of_the_item() {
    let place = Place::new();
    for dir in ["a", "b", "c/d"] {
        place.dir(dir);
    }
    let content = noise(1, 300_000);
    let first = place.write("b/y", &content);
    for link in [place.at("a/x"), place.at("c/d/z"), place.beside("outside")] {
        fs::hard_link(&first, link).expect("link");
    }
    place.write("a/alone", b"one name");
    let lonely = place.write("a/lonely", b"its other name is outside");
    fs::hard_link(&lonely, place.beside("outside too")).expect("link");

    let tree = read(&place.path);
    tree.assert_clean();
    let group = group_of("a/x");
    for name in ["a/x", "b/y", "c/d/z"] {
        assert_eq!(tree.entry(name).link, Some(group));
        assert_eq!(tree.content(name), content);
    }
    assert_eq!(tree.entry("a/alone").link, None);
    assert_eq!(tree.entry("a/lonely").link, None);
    assert_eq!(tree.content("a/lonely"), b"its other name is outside");
    assert_eq!(tree.outcome.files, 5);
    // Its content is read, and counted, once.
    assert!(tree.bytes_read < 300_100);
    assert_eq!(tree.outcome.bytes_logical, 300_000 + 8 + 25);
}

#[test]
fn f_11_hardlinks_of_every_type() {
    let place = Place::new();
    place.dir("m");
    symlink("target", place.at("z-link")).expect("a link");
    for (name, kind) in [
        ("z-fifo", FileType::Fifo),
        ("z-socket", FileType::Socket),
        ("z-device", FileType::CharacterDevice),
    ] {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, place.at(name), kind, mode, 0).expect("make a node");
    }
    for name in ["link", "fifo", "socket", "device"] {
        rustix::fs::linkat(
            CWD,
            place.at(format!("z-{name}")),
            CWD,
            place.at(format!("m/{name}")),
            AtFlags::empty(),
        )
        .expect("link");
    }
    let tree = read(&place.path);
    tree.assert_clean();
    for name in ["link", "fifo", "socket", "device"] {
        let low = format!("m/{name}");
        let group = Some(group_of(&low));
        assert_eq!(tree.entry(&low).link, group);
        assert_eq!(tree.entry(format!("z-{name}")).link, group);
    }
    assert!(matches!(
        tree.entry("m/device").node,
        Node::CharDevice { major: 0, minor: 0 }
    ));
}

#[test]
fn f_16_equal_inode_numbers_on_different_devices() {
    let place = Place::new();
    let mounts = [place.dir("one"), place.dir("two")].map(Mounted::tmpfs);
    for (mount, content) in mounts.iter().zip(["content of one", "content of two"]) {
        fs::write(mount.0.join("f"), content).expect("write");
        fs::hard_link(mount.0.join("f"), mount.0.join("g")).expect("link");
    }
    let mut spec = spec(&place.path);
    spec.cross_mounts = true;
    let tree = read_spec(spec);
    tree.assert_clean();
    for name in ["one", "two"] {
        let low = format!("{name}/f");
        assert_eq!(tree.entry(&low).link, Some(group_of(&low)));
        assert_eq!(tree.entry(format!("{name}/g")).link, Some(group_of(&low)));
        assert_eq!(tree.content(&low), format!("content of {name}").as_bytes());
    }
}

/// A tmpfs that is unmounted at the end.
pub struct Mounted(pub std::path::PathBuf);

impl Mounted {
    pub fn tmpfs(path: std::path::PathBuf) -> Self {
        rustix::mount::mount(
            "none",
            &path,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .expect("mount a tmpfs");
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
