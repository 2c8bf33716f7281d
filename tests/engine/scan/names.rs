//! Names and paths.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};

use super::support::{Place, read, read_fd, spec};
use podkeep_engine::fs::FsErrorKind;
use podkeep_engine::fs::scan::scan;

fn names_survive(names: &[&[u8]]) {
    let place = Place::new();
    for name in names {
        place.write(name, name);
    }
    let tree = read(&place.path);
    tree.assert_clean();
    assert_eq!(tree.outcome.files, names.len() as u64);
    for name in names {
        assert_eq!(tree.content(name), *name);
    }
    let read: BTreeSet<&[u8]> = tree.entries.keys().map(Vec::as_slice).collect();
    let mut expected: BTreeSet<&[u8]> = names.iter().copied().collect();
    expected.insert(b"");
    assert_eq!(read, expected);
}

#[test]
fn f_01_names_that_are_not_utf8() {
    names_survive(&[
        b"caf\xe9",
        b"\xff\xfe",
        b"a\xed\xa0\x80b",
        b"\xc3\x28",
        &[0xff; 255],
    ]);
}

#[test]
fn f_02_names_with_control_characters_and_leading_dashes() {
    names_survive(&[
        b"a\nb",
        b"\n",
        b"c\td",
        b"e\\n",
        b"-rf",
        b"--help",
        b"\x1b[2Jx",
        b" lead",
        b"trail ",
    ]);
}

#[test]
fn f_04_names_with_glob_characters() {
    names_survive(&[
        b"[.txt",
        b"[].txt",
        b"[abc].txt",
        b"a",
        b"*",
        b"?q",
        b"{x,y}",
    ]);
}

#[test]
fn f_05_names_that_begin_with_two_dots() {
    names_survive(&[b"..config.tmp", b"..."]);
    let place = Place::new();
    place.dir("..a");
    place.write("..a/b", b"inside");
    assert_eq!(read(&place.path).content("..a/b"), b"inside");
}

#[test]
fn f_32_names_that_look_like_whiteouts() {
    names_survive(&[b".wh.x", b".wh..wh..opq", b"x"]);
}

#[test]
fn f_35_names_that_differ_only_in_case() {
    names_survive(&[
        b"xt_DSCP.h",
        b"xt_dscp.h",
        "Ä".as_bytes(),
        "ä".as_bytes(),
        "\u{e9}".as_bytes(),
        "e\u{301}".as_bytes(),
    ]);
}

/// Makes `levels` directories inside each other, and gives the lowest.
fn nest(place: &Place, name: &[u8], levels: usize) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut fd: OwnedFd = fs::File::open(&place.path).expect("open the tree").into();
    for _ in 0..levels {
        rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o755)).expect("make a level");
        fd = openat(&fd, name, flags, Mode::empty()).expect("open a level");
    }
    fd
}

/// The test's own clean-up may not reach as deep as the reader.
fn unnest(place: &Place, name: &[u8]) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let top: OwnedFd = fs::File::open(&place.path).expect("open the tree").into();
    loop {
        // Take the second level's directory out to the top, then remove the emptied first one.
        let Ok(first) = openat(&top, name, flags, Mode::empty()) else {
            return;
        };
        for entry in rustix::fs::Dir::read_from(&first)
            .expect("list a level")
            .flatten()
        {
            if entry.file_type() != rustix::fs::FileType::Directory {
                rustix::fs::unlinkat(&first, entry.file_name(), rustix::fs::AtFlags::empty())
                    .expect("remove a file");
            }
        }
        let moved = rustix::fs::renameat(&first, name, &top, "next").is_ok();
        rustix::fs::unlinkat(&top, name, rustix::fs::AtFlags::REMOVEDIR).expect("remove a level");
        if moved {
            rustix::fs::renameat(&top, "next", &top, name).expect("rename a level");
        }
    }
}

#[test]
fn f_07_paths_over_4096_bytes_and_deep_trees() {
    for (name, levels) in [(vec![b'n'; 200], 30), (b"d".to_vec(), 3000)] {
        let place = Place::new();
        let lowest = nest(&place, &name, levels);
        let leaf = openat(
            &lowest,
            "leaf",
            OFlags::CREATE | OFlags::RDWR,
            Mode::from_raw_mode(0o640),
        )
        .expect("make the leaf");
        rustix::io::write(&leaf, b"deep").expect("write the leaf");
        rustix::fs::fsetxattr(&leaf, "user.deep", b"1", rustix::fs::XattrFlags::empty())
            .expect("set an attribute");
        rustix::fs::linkat(
            &lowest,
            "leaf",
            &lowest,
            "link",
            rustix::fs::AtFlags::empty(),
        )
        .expect("link the leaf");
        rustix::fs::symlinkat("leaf", &lowest, "symlink").expect("make a link");

        let tree = read(&place.path);
        tree.assert_clean();
        let mut path = [name.as_slice(), b"/"].concat().repeat(levels);
        path.extend_from_slice(b"leaf");
        assert_eq!(tree.content(&path), b"deep");
        assert_eq!(tree.entry(&path).mode, 0o640);
        assert_eq!(tree.xattrs(&path), [(b"user.deep".to_vec(), b"1".to_vec())]);
        let group = tree.entry(&path).link;
        assert!(group.is_some());
        path.truncate(path.len() - 4);
        path.extend_from_slice(b"link");
        assert_eq!(tree.entry(&path).link, group);
        assert_eq!(tree.outcome.directories, levels as u64 + 1);
        unnest(&place, &name);
    }
}

/// A comb: at every level a further directory that is visited on the way back up, when the
/// descriptors of the levels are long closed.
#[test]
fn f_07_deep_trees_with_side_branches() {
    let place = Place::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut fd: OwnedFd = fs::File::open(&place.path).expect("open the tree").into();
    const LEVELS: usize = 900;
    for _ in 0..LEVELS {
        for name in ["d", "side"] {
            rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o755)).expect("make a level");
        }
        let side = openat(&fd, "side", flags, Mode::empty()).expect("open a side");
        rustix::fs::symlinkat("x", &side, "link").expect("make a link");
        fd = openat(&fd, "d", flags, Mode::empty()).expect("open a level");
    }
    let tree = read(&place.path);
    tree.assert_clean();
    assert_eq!(tree.outcome.files, LEVELS as u64);
    assert_eq!(tree.outcome.directories, 2 * LEVELS as u64 + 1);
}

#[test]
fn f_34_a_directory_with_many_entries() {
    let place = Place::in_memory();
    const COUNT: usize = 100_000;
    for number in 0..COUNT {
        place.write(format!("file-{number:06}"), b"");
    }
    let first = read(&place.path);
    first.assert_clean();
    assert_eq!(first.outcome.files, COUNT as u64);
    place.write("file-050000x", b"");
    let second = read(&place.path);
    let new: usize = second
        .chunks
        .iter()
        .filter(|(id, _)| !first.chunks.contains_key(id))
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert!(new < 1 << 20, "one name more makes {new} new bytes");
}

#[test]
fn an_open_directory_can_be_the_root() {
    let place = Place::new();
    place.write("a", b"content");
    let by_path = read(&place.path);
    let by_fd = read_fd(fs::File::open(&place.path).expect("open").into());
    assert_eq!(by_path.outcome.root, by_fd.outcome.root);
}

#[test]
fn a_single_file_can_be_the_root() {
    let place = Place::new();
    let path = place.write("a", b"content of the file");
    let tree = read(&path);
    tree.assert_clean();
    assert_eq!(tree.content(""), b"content of the file");
    assert_eq!(tree.outcome.files, 1);
    assert_eq!(tree.outcome.directories, 0);
}

#[test]
fn v_23_a_root_that_is_a_symlink_is_refused() {
    let place = Place::new();
    let link = place.beside("link");
    std::os::unix::fs::symlink("/etc", &link).expect("make a link");
    let refused = scan(spec(&link)).err().expect("a refusal");
    assert_eq!(refused.kind, FsErrorKind::Refused);
    let missing = scan(spec(&place.beside("missing")))
        .err()
        .expect("a failure");
    assert_eq!(missing.kind, FsErrorKind::NotFound);
}
