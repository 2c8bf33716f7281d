//! Parts of a tree, and upper directories of overlay mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use podkeep_engine::fs::owners::{IdMap, Owners};
use podkeep_engine::fs::scan::View;
use podkeep_format::tree::{Node, Time, XattrValue};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, setxattr};

use super::support::{Place, read, read_spec, spec};

const WHITEOUT: Node = Node::CharDevice { major: 0, minor: 0 };

fn paths(place: &Place, view: View) -> Vec<String> {
    let mut spec = spec(&place.path);
    spec.view = view;
    let tree = read_spec(spec);
    tree.assert_clean();
    let names = tree.entries.keys();
    names
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect()
}

#[test]
fn files_that_lie_apart_are_read_without_what_is_around_them() {
    let place = Place::new();
    for dir in ["etc/a", "srv/big", "other"] {
        place.dir(dir);
    }
    for file in [
        "etc/a/unit",
        "etc/a/more",
        "etc/passwd",
        "srv/env",
        "srv/big/x",
        "other/y",
    ] {
        place.write(file, file.as_bytes());
    }
    let only = || {
        let wanted = ["etc/a/unit", "srv/env", "srv/gone"];
        View::Only(wanted.iter().map(|path| path.as_bytes().to_vec()).collect())
    };
    assert_eq!(
        paths(&place, only()),
        ["", "etc", "etc/a", "etc/a/unit", "srv", "srv/env"]
    );
    let root = || {
        let mut spec = spec(&place.path);
        spec.view = only();
        read_spec(spec).outcome.root
    };
    let before = root();
    // What else happens in the folders on the way is no change.
    place.write("etc/new", b"");
    assert_eq!(root(), before);
    place.write("etc/a/unit", b"another");
    assert_ne!(root(), before);
}

/// They were chosen as their user's own: one that is another's by now is told of and not read, and
/// directories that only lead to them belong to nobody in particular.
#[test]
fn files_that_lie_apart_are_those_of_their_user() {
    let place = Place::new();
    place.dir("home/u");
    for file in ["home/u/own", "home/u/root-s"] {
        place.write(file, file.as_bytes());
    }
    let own = place.at("home/u/own");
    rustix::fs::chown(&own, Some(rustix::fs::Uid::from_raw(1000)), None).expect("root runs it");
    let mut spec = spec(&place.path);
    let wanted = ["home/u/own", "home/u/root-s"];
    spec.view = View::Only(wanted.iter().map(|path| path.as_bytes().to_vec()).collect());
    let map = |text: &str| IdMap::parse(text).expect("a map");
    spec.owners = Arc::new(Owners {
        uids: map("0 1000 1\n1 100000 65536\n"),
        gids: map("0 0 65536\n"),
        inside: false,
        any_host_id: true,
    });
    let tree = read_spec(spec);
    let names: Vec<&[u8]> = tree.entries.keys().map(Vec::as_slice).collect();
    assert_eq!(names, [&b""[..], b"home", b"home/u", b"home/u/own"]);
    assert!(tree.entries.values().all(|entry| entry.uid == 0));
    let said: Vec<&str> = tree.findings.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("not the user's any more"), "{said:?}");
}

/// As overlayfs leaves it: whiteouts are names of one inode, directories carry notes of the mount.
#[test]
fn an_upper_directory_is_what_was_changed_whatever_mount_it_is_of() {
    let upper = |extra: bool| {
        let place = Place::new();
        place.dir("etc");
        place.dir("seed");
        place.write("seed/own", b"new");
        let mode = Mode::from_raw_mode(0);
        let first = place.at("etc/gone");
        rustix::fs::mknodat(CWD, &first, FileType::CharacterDevice, mode, 0).expect("a whiteout");
        if extra {
            std::fs::hard_link(&first, place.beside("work")).expect("a link");
            std::fs::hard_link(&first, place.at("gone")).expect("a link");
            rustix::fs::chownat(
                CWD,
                &first,
                Some(rustix::fs::Uid::from_raw(7)),
                None,
                rustix::fs::AtFlags::empty(),
            )
            .expect("another owner");
            let set = |path, name, value: &[u8]| {
                setxattr(place.at(path), name, value, XattrFlags::empty()).expect("an attribute");
            };
            set("etc", "trusted.overlay.origin", b"\0\xfb!");
            set("etc", "trusted.overlay.impure", b"y");
            set("seed", "trusted.overlay.opaque", b"y");
            set("seed", "trusted.kept", b"1");
        }
        place
    };
    let place = upper(true);
    let mut wanted = spec(&place.path);
    wanted.view = View::OverlayUpper {
        in_user_namespace: false,
    };
    let tree = read_spec(wanted);
    tree.assert_clean();
    for path in ["etc/gone", "gone"] {
        let entry = tree.entry(path);
        assert_eq!(entry.node, WHITEOUT);
        assert_eq!(
            (entry.uid, entry.mode, entry.mtime),
            (0, 0, Time::default())
        );
        assert_eq!(entry.link, None);
    }
    assert!(tree.entry("etc").xattrs.is_empty());
    let kept: Vec<_> = tree
        .entry("seed")
        .xattrs
        .iter()
        .map(|x| (&x.name[..], &x.value))
        .collect();
    let inline = |value: &[u8]| XattrValue::Inline(value.to_vec());
    let (one, y) = (inline(b"1"), inline(b"y"));
    assert_eq!(
        kept,
        [
            (&b"trusted.kept"[..], &one),
            (&b"trusted.overlay.opaque"[..], &y)
        ]
    );
    // Read as any other tree it has all of that.
    assert!(!read(&place.path).entry("etc").xattrs.is_empty());
}

/// C-02's kind of case: the same change of a driver that keeps whole roots.
#[test]
fn what_was_changed_of_a_whole_root_has_the_form_of_an_upper_directory() {
    let place = Place::new();
    for dir in ["etc", "bin"] {
        place.dir(dir);
    }
    place.write("etc/new", b"1");
    place.write("etc/same", b"2");
    place.write("bin/sh", b"3");
    let bytes = |path: &str| path.as_bytes().to_vec();
    let mut wanted = spec(&place.path);
    wanted.view = View::Changed {
        changed: BTreeSet::from(["etc", "etc/new"].map(bytes)),
        removed: BTreeMap::from([
            (bytes("etc"), BTreeSet::from([bytes("gone")])),
            (Vec::new(), BTreeSet::from([bytes("srv")])),
        ]),
    };
    let tree = read_spec(wanted);
    tree.assert_clean();
    let found: Vec<&[u8]> = tree.entries.keys().map(Vec::as_slice).collect();
    let expected: [&[u8]; 5] = [b"", b"etc", b"etc/gone", b"etc/new", b"srv"];
    assert_eq!(found, expected);
    assert_eq!(tree.entry("srv").node, WHITEOUT);
    assert_eq!(tree.entry("etc/gone").node, WHITEOUT);
    assert_ne!(tree.entry("etc").mtime, Time::default());
}
