//! Names and paths.

use std::os::unix::ffi::OsStrExt;

use podkeep_engine::host::Existing;
use podkeep_engine::operations::OperationError;
use rustix::fs::AtFlags;

use super::{Bench, part};
use crate::{mktree, oracle};

/// All names come back, and each alone by its own bytes.
fn each_alone(names: &[&[u8]]) {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    for name in names {
        mktree::file(&fd, name, name).unwrap();
    }
    bench.round_trip(&path);
    for (index, name) in names.iter().enumerate() {
        let to = bench.scratch.join(&format!("alone-{index}"));
        let (report, findings) = bench.restore(&path, name, &to, Existing::Refuse).unwrap();
        assert_eq!(findings, []);
        assert_eq!(report.files, 1);
        let file = to.join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(std::fs::read(file).unwrap(), *name);
        assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
    }
}

#[test]
fn f_01_names_that_are_not_utf8() {
    each_alone(&[b"caf\xe9", b"\xff\xfe", b"a\xed\xa0\x80b", b"\xc3\x28"]);
}

#[test]
fn f_02_names_that_split_lines_or_look_like_options() {
    each_alone(&[
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
    each_alone(&[
        b"[.txt",
        b"[].txt",
        b"[abc].txt",
        b"a",
        b"*",
        b"?q",
        b"{x,y}",
    ]);
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    mktree::file(&fd, b"a", b"").unwrap();
    bench.back_up(&path);
    let to = bench.scratch.join("to");
    let missing = bench.restore(&path, b"[abc].txt", &to, Existing::Refuse);
    assert!(matches!(missing, Err(OperationError::NoMatch { .. })));
    assert!(!to.exists());
}

#[test]
fn f_05_names_that_begin_with_two_dots() {
    each_alone(&[b"..config.tmp", b"...", b"..a"]);
    part(mktree::names);
}

#[test]
fn f_07_paths_over_4096_bytes_and_thousands_of_levels() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("long");
    mktree::long_path(&fd).unwrap();
    bench.round_trip(&path);
    let (path, fd) = bench.directory("deep");
    mktree::levels(&fd, 3000).unwrap();
    bench.round_trip(&path);
    let to = path.with_extension("restored");
    bench.restore(&path, b"", &to, Existing::Replace).unwrap();
    oracle::assert_same(&path, &to, &oracle::Options::default());
}

#[test]
fn f_14_overlapping_paths_are_items_of_their_own() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    let sub = mktree::directory(&fd, b"sub").unwrap();
    mktree::file(&sub, b"x", b"linked").unwrap();
    rustix::fs::linkat(&sub, "x", &fd, "y", AtFlags::empty()).unwrap();
    bench.round_trip(&path);
    let sub = path.join("sub");
    bench.back_up(&sub);
    let to = bench.scratch.join("sub");
    bench.restore(&sub, b"", &to, Existing::Refuse).unwrap();
    oracle::assert_same(&sub, &to, &oracle::Options::default());
}

#[test]
fn f_32_plain_files_called_like_whiteouts() {
    each_alone(&[b".wh.x", b".wh..wh..opq", b"x"]);
}

#[test]
fn f_35_names_that_differ_only_in_case_or_normal_form() {
    each_alone(&[
        b"xt_DSCP.h",
        b"xt_dscp.h",
        b"\xc3\x84",
        b"\xc3\xa4",
        b"\xc3\xa9",
        b"e\xcc\x81",
    ]);
}

#[test]
fn f_34_a_directory_with_a_hundred_thousand_entries() {
    let mounted = crate::mount::Mounted::memory("tmpfs", "size=1g,nr_inodes=0");
    let bench = Bench::on(mktree::Scratch::inside(mounted.path()));
    let (path, fd) = bench.directory("tree");
    for index in 0..100_000 {
        mktree::file(&fd, format!("entry-{index}").as_bytes(), b"").unwrap();
    }
    bench.round_trip(&path);
    mktree::file(&fd, b"one more", b"").unwrap();
    let report = bench.back_up(&path);
    assert!(report.bytes_added < 1 << 20, "{} added", report.bytes_added);
}
