//! What becomes of what is there: refused, merged with, replaced, and what a run that was cut off
//! at any step of the swap leaves to the next.

use std::path::Path;
use std::sync::Arc;

use podkeep_engine::fs::write::{Existing, RootKind, Swap, open};
use podkeep_engine::fs::{FilePart, FsErrorKind, PartBytes, WriteBatch, WriteStep};
use podkeep_engine::monitor::FindingKind;
use podkeep_format::tree::Node;

use super::drive::{self, Source};
use crate::{mktree, oracle};

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn two_files() -> Vec<WriteStep> {
    vec![
        drive::directory(0, 0, b""),
        drive::file(0, 0, b"a", b"of the snapshot"),
        drive::file(1, 0, b"b", b"new"),
        drive::end(0),
    ]
}

#[test]
fn v_04_a_filled_place_is_refused_merged_with_or_replaced() {
    let scratch = mktree::Scratch::new();
    let place = scratch.join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("old"), b"mine").unwrap();
    std::fs::write(place.join("a"), b"a newer one of mine").unwrap();
    let error = open(drive::spec(&place, Existing::Refuse))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind, FsErrorKind::Refused);
    assert_eq!(names(scratch.path()), ["place"]);
    let findings = drive::write(drive::spec(&place, Existing::Merge), two_files()).unwrap();
    assert_eq!(findings, []);
    assert_eq!(names(&place), ["a", "b", "old"]);
    assert_eq!(std::fs::read(place.join("a")).unwrap(), b"of the snapshot");
    let findings = drive::write(drive::spec(&place, Existing::Replace), two_files()).unwrap();
    assert_eq!(findings, []);
    assert_eq!(names(&place), ["a", "b"]);
    assert_eq!(names(scratch.path()), ["place"]);
}

#[test]
fn v_02_an_empty_directory_is_replaced_by_one_with_its_own_attributes() {
    let scratch = mktree::Scratch::new();
    let (a, place) = (scratch.join("a"), scratch.join("place"));
    std::fs::create_dir(&a).unwrap();
    std::os::unix::fs::chown(&a, Some(1000), Some(1001)).unwrap();
    let top = drive::open_below(&a, b"");
    rustix::fs::fchmod(&top, rustix::fs::Mode::from_raw_mode(0o770)).unwrap();
    std::fs::create_dir(&place).unwrap();
    Source::read(&a)
        .restore(drive::spec(&place, Existing::Refuse))
        .unwrap();
    oracle::assert_same(&a, &place, &oracle::Options::default());
    // What came into the place while it was staged is not lost.
    let mut writer = open(drive::spec(&place, Existing::Refuse)).unwrap();
    writer.apply(drive::batch(two_files())).unwrap();
    std::fs::write(place.join("meanwhile"), b"mine").unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind, FsErrorKind::Refused);
    assert_eq!(names(&place), ["meanwhile"]);
}

/// Each type at the place against each type of the snapshot.
#[test]
fn e_22_a_merge_replaces_by_type_and_goes_on_past_a_clash() {
    let scratch = mktree::Scratch::new();
    let (place, elsewhere) = (scratch.join("place"), scratch.join("elsewhere"));
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::create_dir(&place).unwrap();
    let kinds = ["file", "directory", "link", "fifo"];
    let mut steps = vec![drive::directory(0, 0, b"")];
    let mut ends = Vec::new();
    let mut number = 1;
    for there in kinds {
        for wanted in kinds {
            let name = format!("{there}-{wanted}");
            let path = place.join(&name);
            match there {
                "file" => std::fs::write(&path, b"mine").unwrap(),
                "directory" => {
                    std::fs::create_dir(&path).unwrap();
                    std::fs::write(path.join("mine"), b"mine").unwrap();
                }
                "link" => std::os::unix::fs::symlink(&elsewhere, &path).unwrap(),
                _ => rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &path,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR,
                    0,
                )
                .unwrap(),
            }
            let node = |node| WriteStep::Node {
                parent: 0,
                entry: Box::new(drive::entry(name.as_bytes(), node)),
            };
            steps.push(match wanted {
                "file" => drive::file(number, 0, name.as_bytes(), b"snapshot"),
                "directory" => drive::directory(number, 0, name.as_bytes()),
                "link" => node(Node::Symlink {
                    target: b"snapshot".to_vec(),
                }),
                _ => node(Node::Fifo),
            });
            if wanted == "directory" {
                steps.push(drive::file(100 + number, number, b"below", b"snapshot"));
                ends.push(drive::end(number));
            }
            number += 1;
        }
    }
    steps.append(&mut ends);
    steps.push(drive::end(0));
    let findings = drive::write(drive::spec(&place, Existing::Merge), steps).unwrap();
    let mut clashes: Vec<String> = findings
        .iter()
        .inspect(|finding| assert_eq!(finding.kind, FindingKind::NotRestored))
        .flat_map(|finding| &finding.paths)
        .map(|path| String::from_utf8(path.clone()).unwrap())
        .collect();
    clashes.sort();
    let expected = [
        "directory-fifo",
        "directory-file",
        "directory-link",
        "fifo-directory",
        "file-directory",
        "link-directory",
    ];
    assert_eq!(clashes, expected);
    let record = oracle::read(&place).unwrap();
    for there in kinds {
        for wanted in kinds {
            let name = format!("{there}-{wanted}");
            let kept = expected.contains(&name.as_str());
            let kind = if kept { there } else { wanted };
            let kind = if kind == "link" { "symlink" } else { kind };
            assert_eq!(record[name.as_bytes()].kind, kind, "{name}");
        }
    }
    assert!(place.join("directory-directory/mine").exists());
    assert!(place.join("directory-directory/below").exists());
    assert_eq!(names(&elsewhere), [""; 0]);
    assert!(
        names(&place)
            .iter()
            .all(|name| !name.starts_with(".podkeep"))
    );
}

/// A merge over a file that is full where the snapshot has a hole, and longer.
#[test]
fn f_10_a_hole_is_a_hole_over_an_existing_file() {
    let scratch = mktree::Scratch::new();
    let (a, place) = (scratch.join("a"), scratch.join("place"));
    std::fs::create_dir(&a).unwrap();
    std::fs::create_dir(&place).unwrap();
    mktree::sparse(&drive::open_below(&a, b"")).unwrap();
    for name in ["middle", "all-hole", "trailing"] {
        std::fs::write(place.join(name), vec![0xaa; 20 << 20]).unwrap();
    }
    // The same bytes at some places: taken from what is there.
    let mut big = std::fs::read(a.join("big")).unwrap();
    big[0] ^= 1;
    std::fs::write(place.join("big"), &big).unwrap();
    let (outcome, findings) = Source::read(&a)
        .restore(drive::spec(&place, Existing::Merge))
        .unwrap();
    assert_eq!(findings, []);
    assert!(outcome.bytes_written < 16 << 20, "{outcome:?}");
    oracle::assert_same(&a, &place, &oracle::Options::default());
}

#[test]
fn e_28_what_a_killed_merge_left_is_cleaned() {
    let scratch = mktree::Scratch::new();
    let place = scratch.join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("a"), b"mine").unwrap();
    let mut writer = open(drive::spec(&place, Existing::Merge)).unwrap();
    let unfinished = WriteStep::File {
        number: 0,
        parent: 0,
        entry: Arc::new(drive::entry(b"a", drive::inline(b"12345678"))),
        parts: vec![FilePart {
            offset: 0,
            bytes: PartBytes::Zeros { len: 4 },
        }],
        last: false,
    };
    let steps = vec![drive::directory(0, 0, b""), unfinished];
    writer.apply(drive::batch(steps)).unwrap();
    assert_eq!(names(&place).len(), 2);
    assert_eq!(std::fs::read(place.join("a")).unwrap(), b"mine");
    drop(writer);
    let steps = vec![drive::directory(0, 0, b""), drive::end(0)];
    drive::write(drive::spec(&place, Existing::Merge), steps).unwrap();
    assert_eq!(names(&place), ["a"]);
    assert_eq!(std::fs::read(place.join("a")).unwrap(), b"mine");
}

#[test]
fn e_08_a_dropped_file_leaves_nothing_and_what_a_merge_found() {
    let scratch = mktree::Scratch::new();
    for existing in [Existing::Refuse, Existing::Merge] {
        let place = scratch.join("place");
        if existing == Existing::Merge {
            std::fs::write(place.join("bad"), b"mine").unwrap();
        }
        let mut writer = open(drive::spec(&place, existing)).unwrap();
        let mut entry = drive::entry(b"bad", drive::inline(b"12345678"));
        entry.link = Some(podkeep_format::id::LinkGroup([1; 16]));
        let entry = Arc::new(entry);
        let mut further = (*entry).clone();
        further.name = b"bad-too".to_vec();
        let part = |offset| FilePart {
            offset,
            bytes: PartBytes::Data {
                buffer: 0,
                range: 0..4,
            },
        };
        let file = |parts, last| WriteStep::File {
            number: 0,
            parent: 0,
            entry: Arc::clone(&entry),
            parts,
            last,
        };
        let batch = |steps| WriteBatch {
            steps,
            buffers: vec![Arc::new(vec![1; 4])],
        };
        let first = vec![drive::directory(0, 0, b""), file(vec![part(0)], false)];
        writer.apply(batch(first)).unwrap();
        let drop_step = WriteStep::FileDrop {
            number: 0,
            parent: 0,
            entry: Arc::clone(&entry),
        };
        writer.apply(batch(vec![drop_step])).unwrap();
        let rest = vec![
            file(vec![part(4)], true),
            WriteStep::Link {
                parent: 0,
                entry: Box::new(further),
            },
            drive::end(0),
        ];
        writer.apply(batch(rest)).unwrap();
        let (_, findings) = writer.finish().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].paths, [b"bad-too".to_vec()]);
        match existing {
            Existing::Merge => assert_eq!(std::fs::read(place.join("bad")).unwrap(), b"mine"),
            _ => assert_eq!(names(&place), [""; 0]),
        }
    }
}

#[test]
fn a_tree_that_was_not_given_completely_does_not_get_to_its_place() {
    let scratch = mktree::Scratch::new();
    let place = scratch.join("place");
    let mut steps = two_files();
    steps.pop();
    let error = drive::write(drive::spec(&place, Existing::Refuse), steps).unwrap_err();
    assert!(error.cause.contains("not all directories"), "{error}");
    assert!(!place.exists());
    open(drive::spec(&place, Existing::Refuse))
        .unwrap()
        .discard()
        .unwrap();
    assert_eq!(names(scratch.path()), [""; 0]);
}

#[test]
fn e_23_a_single_file_leaves_its_neighbours_alone() {
    let scratch = mktree::Scratch::new();
    let place = scratch.join("file");
    std::fs::write(scratch.join("neighbour"), b"mine").unwrap();
    let write = |existing, content: &[u8]| {
        let mut spec = drive::spec(&place, existing);
        spec.root_kind = RootKind::Single;
        let mut entry = drive::entry(b"", drive::inline(content));
        entry.inode_flags = 0x40;
        entry.mode = 0o4711;
        let step = WriteStep::File {
            number: 0,
            parent: 0,
            entry: Arc::new(entry),
            parts: Vec::new(),
            last: true,
        };
        drive::write(spec, vec![step])
    };
    assert_eq!(write(Existing::Refuse, b"one").unwrap(), []);
    let refused = write(Existing::Refuse, b"two").unwrap_err();
    assert_eq!(refused.kind, FsErrorKind::Refused);
    assert_eq!(std::fs::read(&place).unwrap(), b"one");
    for existing in [Existing::Replace, Existing::Merge] {
        write(existing, b"two").unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"two");
    }
    let facts = oracle::read(&place).unwrap().remove(&b""[..]).unwrap();
    assert_eq!((facts.mode, facts.mtime), (0o4711, (1000, 5)));
    assert_eq!(names(scratch.path()), ["file", "neighbour"]);
    std::fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink("neighbour", &place).unwrap();
    write(Existing::Replace, b"three").unwrap();
    assert_eq!(std::fs::read(scratch.join("neighbour")).unwrap(), b"mine");
    assert!(!place.is_symlink());
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    assert_eq!(
        write(Existing::Replace, b"").unwrap_err().kind,
        FsErrorKind::Refused
    );
}

/// Cut off between two steps of the swap, as the state and the names on disk would be then: the
/// old content is back at its place, and the same restore completes.
#[test]
fn a_swap_that_was_cut_off_is_undone_and_then_completes() {
    let scratch = mktree::Scratch::new();
    let place = scratch.join("place");
    let fill = || {
        if place.exists() {
            std::fs::remove_dir_all(&place).unwrap();
        }
        std::fs::create_dir(&place).unwrap();
        for name in ["old-1", "old-2"] {
            std::fs::write(place.join(name), name).unwrap();
        }
    };
    type Cut = fn(&Path, &Path, u64) -> String;
    let cuts: [(Swap, Cut); 6] = [
        (Swap::TwoRenames, |_, _, ino| format!("swap {ino}")),
        (Swap::TwoRenames, |staging, place, ino| {
            std::fs::rename(place, staging.join("old")).unwrap();
            format!("swap {ino}")
        }),
        (Swap::InPlace, |staging, _, _| {
            std::fs::create_dir(staging.join("old")).unwrap();
            "moving-out".into()
        }),
        (Swap::InPlace, |staging, place, _| {
            std::fs::create_dir(staging.join("old")).unwrap();
            std::fs::rename(place.join("old-1"), staging.join("old/old-1")).unwrap();
            "moving-out".into()
        }),
        (Swap::InPlace, |staging, place, _| {
            std::fs::rename(place.join("old-1"), staging.join("old-1")).unwrap();
            std::fs::create_dir(staging.join("old")).unwrap();
            for name in ["old-1", "old-2"] {
                let from = if name == "old-1" { staging } else { place };
                std::fs::rename(from.join(name), staging.join("old").join(name)).unwrap();
            }
            std::fs::rename(staging.join("tree/a"), place.join("a")).unwrap();
            "moving-in".into()
        }),
        (Swap::InPlace, |staging, place, _| {
            std::fs::create_dir(staging.join("old")).unwrap();
            for name in ["old-1", "old-2"] {
                std::fs::rename(place.join(name), staging.join("old").join(name)).unwrap();
            }
            for name in ["a", "b"] {
                std::fs::rename(staging.join("tree").join(name), place.join(name)).unwrap();
            }
            "moving-in".into()
        }),
    ];
    for (index, (swap, cut)) in cuts.into_iter().enumerate() {
        fill();
        let spec = || {
            let mut spec = drive::spec(&place, Existing::Replace);
            spec.swap = swap;
            spec
        };
        let mut writer = open(spec()).unwrap();
        writer.apply(drive::batch(two_files())).unwrap();
        drop(writer);
        let parent = match swap {
            Swap::InPlace => place.clone(),
            _ => scratch.path().to_owned(),
        };
        let staging = names(&parent)
            .into_iter()
            .find(|name| name.starts_with(".podkeep-restore-"))
            .unwrap();
        let staging = parent.join(staging);
        let ino =
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(staging.join("tree")).unwrap());
        let phase = cut(&staging, &place, ino);
        let state = std::fs::read_to_string(staging.join("state")).unwrap();
        let state = state.replace("phase staging", &format!("phase {phase}"));
        std::fs::write(staging.join("state"), state).unwrap();

        drop(open(spec()).unwrap());
        let mut there = names(&place);
        there.retain(|name| !name.starts_with(".podkeep"));
        assert_eq!(there, ["old-1", "old-2"], "cut {index}");
        assert_eq!(std::fs::read(place.join("old-1")).unwrap(), b"old-1");

        drive::write(spec(), two_files()).unwrap();
        assert_eq!(names(&place), ["a", "b"], "cut {index}");
        assert_eq!(names(scratch.path()), ["place"], "cut {index}");
    }
}

/// Killed right behind the exchange: what lies in the staging is the old tree, and is not taken
/// for a staged one.
#[test]
fn an_exchanged_tree_is_not_taken_for_a_staged_one() {
    let scratch = mktree::Scratch::new();
    let place = scratch.join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("old"), b"old").unwrap();
    let mut writer = open(drive::spec(&place, Existing::Replace)).unwrap();
    writer.apply(drive::batch(two_files())).unwrap();
    drop(writer);
    let staging = scratch.join(&names(scratch.path())[0]);
    let tree = staging.join("tree");
    let ino = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&tree).unwrap());
    let state = std::fs::read_to_string(staging.join("state")).unwrap();
    let state = state.replace("phase staging", &format!("phase swap {ino}"));
    std::fs::write(staging.join("state"), state).unwrap();
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        &tree,
        rustix::fs::CWD,
        &place,
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
    let error = open(drive::spec(&place, Existing::Refuse))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind, FsErrorKind::Refused);
    assert_eq!(names(&place), ["a", "b"]);
    drive::write(drive::spec(&place, Existing::Replace), two_files()).unwrap();
    assert_eq!(names(scratch.path()), ["place"]);
}
