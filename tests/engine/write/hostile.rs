//! Trees and places that mean harm: nothing is written outside the place, nothing there is
//! followed.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use podkeep_engine::fs::write::{Existing, open};
use podkeep_engine::fs::{FsErrorKind, WriteStep};
use podkeep_engine::monitor::FindingKind;
use podkeep_format::tree::Node;

use super::drive;
use crate::{mktree, oracle};

/// The snapshot holds a link and then something below it.
#[test]
fn e_25_what_lies_below_a_link_of_the_tree_is_not_written() {
    let scratch = mktree::Scratch::new();
    let victim = scratch.join("victim");
    std::fs::create_dir(&victim).unwrap();
    let before = oracle::read(&victim).unwrap();
    let target = Node::Symlink {
        target: victim.to_str().unwrap().as_bytes().to_vec(),
    };
    for existing in [Existing::Refuse, Existing::Merge] {
        let place = scratch.join("place");
        if existing == Existing::Merge {
            std::fs::remove_dir_all(place.join("planted")).unwrap();
            symlink(&victim, place.join("planted")).unwrap();
        }
        let mut writer = open(drive::spec(&place, existing)).unwrap();
        let link = |parent, name: &[u8]| WriteStep::Node {
            parent,
            entry: Box::new(drive::entry(name, target.clone())),
        };
        writer
            .apply(drive::batch(vec![
                drive::directory(0, 0, b""),
                link(0, b"l"),
            ]))
            .unwrap();
        writer
            .apply(drive::batch(vec![
                drive::directory(1, 0, b"l"),
                drive::directory(2, 0, b"planted"),
                drive::file(0, 1, b"passwd", b"1"),
                drive::file(1, 2, b"passwd", b"1"),
                drive::end(1),
                drive::end(2),
                drive::end(0),
            ]))
            .unwrap();
        let (_, findings) = writer.finish().unwrap();
        assert!(findings.iter().all(|f| f.kind == FindingKind::NotRestored));
        let paths: Vec<_> = findings.iter().flat_map(|f| &f.paths).collect();
        assert!(paths.contains(&&b"l".to_vec()), "{findings:?}");
        oracle::assert_none(&oracle::differences(
            &before,
            &oracle::read(&victim).unwrap(),
            &oracle::Options::default(),
        ));
        assert!(place.join("l").is_symlink());
    }
}

#[test]
fn f_05_only_names_that_lead_elsewhere_are_refused() {
    let scratch = mktree::Scratch::new();
    let place = scratch.join("place");
    let long = [b'x'; 256];
    let bad: [&[u8]; 7] = [b"..", b".", b"", b"a/b", b"../victim", b"nul\0", &long];
    let mut steps = vec![drive::directory(0, 0, b"")];
    for (index, name) in bad.iter().enumerate() {
        let number = index as u64;
        steps.push(drive::file(number, 0, name, b"bad"));
        steps.push(drive::directory(number + 10, 0, name));
        steps.push(drive::file(number + 20, number + 10, b"below", b"bad"));
        steps.push(drive::end(number + 10));
        steps.push(WriteStep::Node {
            parent: 0,
            entry: Box::new(drive::entry(name, Node::Fifo)),
        });
    }
    for (index, name) in ["...", "..config.tmp", "-rf", "a\\b"].iter().enumerate() {
        steps.push(drive::file(100 + index as u64, 0, name.as_bytes(), b"good"));
    }
    steps.push(drive::end(0));
    let findings = drive::write(drive::spec(&place, Existing::Refuse), steps).unwrap();
    assert_eq!(findings.len(), 1);
    assert!(findings[0].message.contains("21 entries"), "{findings:?}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 4);
}

/// Someone swaps a directory for a link while a merge goes on.
/// Ends the racer.
struct StopAtEnd<'s>(&'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn e_25_a_directory_that_becomes_a_link_meanwhile_leads_nowhere() {
    let scratch = mktree::Scratch::new();
    let (place, victim) = (scratch.join("place"), scratch.join("victim"));
    std::fs::create_dir(&victim).unwrap();
    std::fs::create_dir_all(place.join("dir/below")).unwrap();
    let before = oracle::read(&victim).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (dir, away) = (place.join("dir"), place.join("away"));
            while !stop.load(Ordering::Relaxed) {
                // Each may fail while the writer is at work there; the race is the point.
                let _ = std::fs::rename(&dir, &away);
                let _ = symlink(&victim, &dir);
                let _ = std::fs::remove_file(&dir);
                let _ = std::fs::rename(&away, &dir);
            }
        });
        // Also when a round fails: the scope waits for the racer.
        let _stopping = StopAtEnd(&stop);
        for round in 0..500u64 {
            let name = format!("file-{round}").into_bytes();
            let mut writer = match open(drive::spec(&place, Existing::Merge)) {
                Ok(writer) => writer,
                Err(error) => panic!("{error}"),
            };
            let steps = [
                vec![
                    drive::directory(0, 0, b""),
                    drive::directory(1, 0, b"dir"),
                    drive::directory(2, 1, b"below"),
                ],
                vec![
                    drive::file(0, 1, &name, b"content"),
                    drive::file(1, 2, &name, b"content"),
                ],
                vec![drive::end(2), drive::end(1), drive::end(0)],
            ];
            for steps in steps {
                writer.apply(drive::batch(steps)).unwrap();
            }
            // What cannot be done is a finding; synchronising each round would take minutes.
            drop(writer);
        }
    });
    oracle::assert_none(&oracle::differences(
        &before,
        &oracle::read(&victim).unwrap(),
        &oracle::Options::default(),
    ));
}

#[test]
fn v_23_a_place_that_is_a_link_is_refused() {
    let scratch = mktree::Scratch::new();
    let (place, victim) = (scratch.join("place"), scratch.join("victim"));
    std::fs::create_dir(&victim).unwrap();
    symlink(&victim, &place).unwrap();
    for existing in [Existing::Refuse, Existing::Merge, Existing::Replace] {
        let error = open(drive::spec(&place, existing)).map(|_| ()).unwrap_err();
        assert_eq!(error.kind, FsErrorKind::Refused);
        assert!(error.cause.contains("symbolic link"), "{error}");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 2);
}

/// A file that someone else planted under a file's staged name would get its content.
#[test]
fn a_staging_of_someone_else_is_refused() {
    let scratch = mktree::Scratch::new();
    let place = scratch.join("place");
    drop(open(drive::spec(&place, Existing::Refuse)).unwrap());
    let staging = std::fs::read_dir(scratch.path()).unwrap().next().unwrap();
    let staging = staging.unwrap().path();
    std::os::unix::fs::chown(&staging, Some(1000), Some(1000)).unwrap();
    let error = open(drive::spec(&place, Existing::Refuse))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind, FsErrorKind::Refused);
    assert!(error.cause.contains("another user"), "{error}");
}

/// Parts that reach beyond the file's size, or name bytes that are not there.
#[test]
fn wrong_parts_fail_their_file_only() {
    use podkeep_engine::fs::{FilePart, PartBytes, WriteBatch};
    let scratch = mktree::Scratch::new();
    let place = scratch.join("place");
    let mut writer = open(drive::spec(&place, Existing::Refuse)).unwrap();
    let parts = [
        (u64::MAX, PartBytes::Zeros { len: 2 }),
        (
            3,
            PartBytes::Data {
                buffer: 0,
                range: 0..2,
            },
        ),
        (
            0,
            PartBytes::Data {
                buffer: 9,
                range: 0..1,
            },
        ),
        (
            0,
            PartBytes::Data {
                buffer: 0,
                range: std::ops::Range { start: 9, end: 3 },
            },
        ),
    ];
    let mut steps = vec![
        drive::directory(0, 0, b""),
        drive::file(9, 0, b"good", b"1"),
    ];
    for (index, (offset, bytes)) in parts.into_iter().enumerate() {
        steps.push(WriteStep::File {
            number: index as u64,
            parent: 0,
            entry: Arc::new(drive::entry(
                format!("bad-{index}").as_bytes(),
                drive::inline(b"1234"),
            )),
            parts: vec![FilePart { offset, bytes }],
            last: true,
        });
    }
    steps.push(drive::end(0));
    writer
        .apply(WriteBatch {
            steps,
            buffers: vec![Arc::new(vec![1; 4])],
        })
        .unwrap();
    let (outcome, findings) = writer.finish().unwrap();
    assert_eq!(outcome.files, 1);
    let paths: usize = findings.iter().map(|finding| finding.paths.len()).sum();
    assert_eq!(paths, 4, "{findings:?}");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
}
