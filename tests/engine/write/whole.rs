//! Whole trees: what stood at the source stands at the place, to the last attribute.

use podkeep_engine::fs::FsErrorKind;
use podkeep_engine::fs::write::{Existing, Swap, open};
use podkeep_engine::monitor::FindingKind;

use super::drive::{self, Source};
use crate::{mktree, oracle};

fn leftovers(parent: &std::path::Path) -> Vec<String> {
    std::fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".podkeep-"))
        .collect()
}

#[test]
fn a_hard_tree_comes_back_without_a_difference() {
    let scratch = mktree::Scratch::new();
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    mktree::build(&a).unwrap();
    let source = Source::read(&a);
    let (outcome, findings) = source.restore(drive::spec(&b, Existing::Refuse)).unwrap();
    assert_eq!(findings, []);
    assert!(outcome.directories > 2000 && outcome.files > 100);
    oracle::assert_same(&a, &b, &oracle::Options::default());
    assert_eq!(leftovers(scratch.path()), [""; 0]);
}

#[test]
fn f_22_what_is_immutable_is_replaced_as_a_whole_and_merged_with_a_finding() {
    let scratch = mktree::Scratch::new();
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    mktree::build(&a).unwrap();
    let source = Source::read(&a);
    source.restore(drive::spec(&b, Existing::Refuse)).unwrap();
    let refused = source
        .restore(drive::spec(&b, Existing::Refuse))
        .unwrap_err();
    assert_eq!(refused.kind, FsErrorKind::Refused);
    for swap in [Swap::Exchange, Swap::TwoRenames, Swap::InPlace] {
        let mut spec = drive::spec(&b, Existing::Replace);
        spec.swap = swap;
        let (_, findings) = source.restore(spec).unwrap();
        assert_eq!(findings, [], "{swap:?}");
        oracle::assert_same(&a, &b, &oracle::Options::default());
        assert_eq!(leftovers(scratch.path()), [""; 0]);
        assert_eq!(leftovers(&b), [""; 0]);
    }
    let (_, findings) = source.restore(drive::spec(&b, Existing::Merge)).unwrap();
    assert!(!findings.is_empty());
    for finding in &findings {
        assert_eq!(finding.kind, FindingKind::NotRestored, "{finding:?}");
        assert!(
            finding.paths.iter().all(|path| path.starts_with(b"flags/")),
            "{finding:?}"
        );
    }
    oracle::assert_same(&a, &b, &oracle::Options::default());
}

#[test]
fn e_28_a_restore_that_was_cut_off_goes_on_and_writes_nothing_twice() {
    let scratch = mktree::Scratch::new();
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    std::fs::create_dir(&a).unwrap();
    for index in 0..40 {
        std::fs::write(
            a.join(format!("file-{index}")),
            mktree::noise(index, 300_000),
        )
        .unwrap();
    }
    std::fs::hard_link(a.join("file-3"), a.join("another")).unwrap();
    let source = Source::read(&a);
    let mut done = 0;
    for cut in [3, 6] {
        let mut writer = open(drive::spec(&b, Existing::Refuse)).unwrap();
        assert!(!source.drive(&mut *writer, 1 << 20, cut).unwrap());
        drop(writer);
        assert!(!b.exists());
        done = cut as u64 - 1;
    }
    let (outcome, findings) = source.restore(drive::spec(&b, Existing::Refuse)).unwrap();
    assert_eq!(findings, []);
    let whole = 40 * 300_000;
    assert!(
        outcome.bytes_written <= whole - (done << 20) + (1 << 20),
        "{} of {whole} written again after {done} MiB",
        outcome.bytes_written
    );
    oracle::assert_same(&a, &b, &oracle::Options::default());
    assert_eq!(leftovers(scratch.path()), [""; 0]);
}

/// The trap: what is staged has the right size and time, and wrong bytes.
#[test]
fn e_28_staged_bytes_are_hashed_before_they_are_trusted() {
    let scratch = mktree::Scratch::new();
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    mktree::build(&a).unwrap();
    let source = Source::read(&a);
    let mut writer = open(drive::spec(&b, Existing::Refuse)).unwrap();
    source.drive(&mut *writer, 1 << 20, usize::MAX).unwrap();
    drop(writer);
    let staging = scratch.join(&leftovers(scratch.path())[0]);
    let tree = staging.join("tree");
    let big = tree.join("sparse/big");
    std::fs::write(&big, vec![0xaa; 3 << 20]).unwrap();
    std::fs::write(tree.join("sparse/all-hole"), vec![0xaa; 17 << 20]).unwrap();
    std::fs::remove_file(tree.join("links/a/x")).unwrap();
    std::fs::remove_file(tree.join("nodes/fifo")).unwrap();
    std::fs::create_dir(tree.join("nodes/fifo")).unwrap();
    std::fs::remove_dir_all(tree.join("names/..a")).unwrap();
    std::os::unix::fs::symlink("/etc", tree.join("names/..a")).unwrap();
    let (_, findings) = source.restore(drive::spec(&b, Existing::Refuse)).unwrap();
    assert_eq!(findings, []);
    oracle::assert_same(&a, &b, &oracle::Options::default());
}

#[test]
fn what_is_staged_for_another_tree_is_not_used() {
    let scratch = mktree::Scratch::new();
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    std::fs::create_dir(&a).unwrap();
    std::fs::write(a.join("one"), b"1").unwrap();
    let mut writer = open(drive::spec(&b, Existing::Refuse)).unwrap();
    let steps = vec![
        drive::directory(0, 0, b""),
        drive::directory(1, 0, b"other"),
        drive::file(0, 1, b"file", b"of another tree"),
    ];
    writer.apply(drive::batch(steps)).unwrap();
    let busy = open(drive::spec(&b, Existing::Refuse))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(busy.kind, FsErrorKind::Refused);
    drop(writer);
    let mut spec = drive::spec(&b, Existing::Refuse);
    spec.root = podkeep_format::id::TreeId([8; 32]);
    Source::read(&a).restore(spec).unwrap();
    oracle::assert_same(&a, &b, &oracle::Options::default());
}
