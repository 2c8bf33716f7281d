//! Archives that are broken, or made to do harm: what can be saved is saved, and the rest told.

use podkeep_engine::monitor::{Finding, FindingKind};
use podkeep_engine::operations::{OperationError, SnapWhich};
use serde_json::json;

use super::{Bench, config, digest, image, layout_files, saved_files, tar_of, volume};
use crate::fake_store::{LongName, Tar, gzip};
use crate::images::{odd_tar, upper_tar};

/// What is at the top of a volume out of this tar, and what is told of its entries.
fn told(tar: &Tar) -> (Vec<String>, Vec<Finding>) {
    let bench = Bench::new();
    let archive = bench.file("archive", &tar.bytes);
    let (report, findings) = bench.import(&[], &[("v", &archive)]).unwrap();
    assert!(!report.complete);
    let findings = findings.into_iter();
    let findings = findings.filter(|finding| finding.kind == FindingKind::Unreadable);
    // `latest` would be a complete one.
    let run = SnapWhich::Prefix(report.run.unwrap().to_hex());
    let restored = bench.restored_from(run, &volume("v"));
    let mut names: Vec<_> = std::fs::read_dir(restored)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    (names, findings.collect())
}

#[test]
fn entries_that_no_volume_can_have_are_left_out_and_told() {
    let long = "n".repeat(256);
    let far = [("uid", &b"4294967296"[..])];
    let tar = Tar::default()
        .file("good", b"good")
        .symlink("out", b"/etc")
        .file("../upwards", b"x")
        .file("a/../../b", b"x")
        .file(&long, b"x")
        .file("out/through-a-link", b"x")
        .hard_link("no-target", b"nowhere")
        .hard_link("upwards-link", b"../good")
        .hard_link("to-folder", b"folder/")
        .directory("folder")
        .hard_link("to-folder", b"folder/")
        .file_with("far", b"x", &far, LongName::Pax)
        .file("last", b"last");
    let (names, findings) = told(&tar);
    let paths: Vec<String> = findings
        .iter()
        .map(|finding| String::from_utf8_lossy(&finding.paths[0]).into_owned())
        .collect();
    let expected = [
        "../upwards",
        "a/../../b",
        &long,
        "out/through-a-link",
        "no-target",
        "upwards-link",
        "to-folder",
        "to-folder",
        "far",
    ];
    assert_eq!(paths, expected);
    assert_eq!(names, ["folder", "good", "last", "out"]);
}

#[test]
fn a_volume_that_ends_early_is_not_saved() {
    let whole = Tar::default().file("a", &[1; 9000]).bytes;
    let mut lie = whole.clone();
    // Its size, and so its checksum.
    lie[124..135].copy_from_slice(b"77777777777");
    let sum: u32 = lie[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    lie[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let packed = gzip(&whole, 1);
    let noise = gzip(&crate::mktree::noise(1, 9000), 1);
    for (what, bytes) in [
        ("content", &whole[..5000]),
        ("header", &whole[..100]),
        ("gzip", &packed[..packed.len() / 2]),
        ("size", &lie),
        ("no tar", &noise),
        ("zstd", b"\x28\xb5\x2f\xfd garbage"),
    ] {
        let bench = Bench::new();
        let bad = bench.file("bad", bytes);
        let good = bench.file("good", &whole);
        let volumes = [("bad", bad.as_path()), ("good", good.as_path())];
        let (report, findings) = bench.import(&[], &volumes).unwrap();
        assert!(!report.complete, "{what}");
        let failed: Vec<_> = report
            .items
            .iter()
            .filter(|i| i.failure.is_some())
            .collect();
        assert_eq!(failed.len(), 1, "{what}");
        assert_eq!(failed[0].item, volume("bad"));
        assert!(findings.iter().any(|f| f.kind == FindingKind::Unreadable));
        let file = bench.restored(&volume("good")).join("a");
        assert_eq!(std::fs::read(file).unwrap(), [1; 9000]);
    }
}

/// What is made of a layer.
type Pack<'p> = &'p dyn Fn(&[u8]) -> Vec<u8>;

#[test]
fn a_layer_that_is_another_one_costs_its_image_alone() {
    let (lower, upper) = (odd_tar().bytes, upper_tar().bytes);
    let truncate = |layer: &[u8]| gzip(layer, 1)[..1000].to_vec();
    let longer = |layer: &[u8]| gzip(&[layer, b"x"].concat(), 1);
    let bomb = |_: &[u8]| zstd::encode_all(&*vec![0; 16 << 20], 1).unwrap();
    let packs: [Pack<'_>; 3] = [&truncate, &longer, &bomb];
    for (number, pack) in packs.into_iter().enumerate() {
        let bench = Bench::new();
        let bad = layout_files("localhost/bad:1", &[&lower, &upper], pack);
        let bad = bench.file("bad", &tar_of(&bad));
        let good = tar_of(&saved_files("localhost/good:1", &[&upper]));
        let good = bench.file("good", &good);
        let (report, _) = bench.import(&[&bad, &good], &[]).unwrap();
        assert!(!report.complete, "{number}");
        let cause = report.items.iter().find_map(|item| item.failure.as_ref());
        let cause = cause.expect("one fails");
        assert!(cause.contains("layer "), "{cause}");
        assert!(report.items.iter().any(|item| item.snapshot.is_some()));
        bench.restored(&image("localhost/good:1"));
    }
}

#[test]
fn what_is_no_archive_of_images_is_refused_with_the_reason() {
    let bench = Bench::new();
    let lower = odd_tar().bytes;
    let manifest = |config: &str, layers: &[&str]| {
        let manifest = json!([{"Config": config, "Layers": layers}]);
        (
            "manifest.json".to_owned(),
            serde_json::to_vec(&manifest).unwrap(),
        )
    };
    let wrong_digest = || {
        let mut files = layout_files("x", &[&lower], <[u8]>::to_vec);
        files[0].1.push(b' ');
        files
    };
    let index = |text: &[u8]| {
        vec![
            ("oci-layout".to_owned(), b"{}".to_vec()),
            ("index.json".to_owned(), text.to_vec()),
        ]
    };
    let good = config(&[&lower]);
    let two = config(&[&lower, &lower]);
    for (files, why) in [
        (vec![("some/file".to_owned(), vec![1])], "holds no image"),
        (vec![manifest("c.json", &[])], "is missing"),
        (vec![manifest("../../etc/passwd", &[])], "is missing"),
        (
            vec![manifest("c", &["l"]), ("c".into(), two)],
            "tells of 2 layers",
        ),
        (
            vec![manifest("c", &["l"]), ("c".into(), b"{".to_vec())],
            "not understood",
        ),
        (
            vec![manifest("c", &["l"]), ("c".into(), vec![b' '; 33 << 20])],
            "too much",
        ),
        (
            vec![manifest("c", &["../l"]), ("c".into(), good)],
            "is missing",
        ),
        (wrong_digest(), "not what its digest says"),
        (index(b"[]"), "not understood"),
        (
            index(br#"{"manifests":[{"digest":"sha256:../../x"}]}"#),
            "no digest",
        ),
        (
            index(br#"{"manifests":[{"digest":"md5:00"}]}"#),
            "no digest",
        ),
    ] {
        let archive = bench.file("archive", &tar_of(&files));
        let told = match bench.import(&[&archive], &[]) {
            Ok((report, _)) => report.items[0].failure.clone().unwrap(),
            Err(OperationError::Refused { .. }) => {
                let archives = bench.archives(&[&archive], &[]).unwrap();
                podkeep_engine::host::Source::inventory(&archives)
                    .unwrap()
                    .findings[0]
                    .message
                    .clone()
            }
            Err(error) => panic!("{error}"),
        };
        assert!(told.contains(why), "{why}: {told}");
    }
}

/// Links of a directory lead nowhere else, and a fifo stops nobody.
#[test]
fn a_directory_gives_nothing_from_outside() {
    let bench = Bench::new();
    let lower = odd_tar().bytes;
    let outside = bench.file("outside", &lower);
    let folder = bench.scratch.join("folder");
    let files = saved_files("localhost/x:1", &[&lower]);
    super::folder_of(&files, &folder);
    let layer = folder.join(format!("{}.tar", &digest(&lower)[7..]));
    std::fs::remove_file(&layer).unwrap();
    let failure = |bench: &Bench| {
        let (report, _) = bench.import(&[&folder], &[]).unwrap();
        report.items[0].failure.clone().unwrap()
    };
    std::os::unix::fs::symlink(&outside, &layer).unwrap();
    assert!(failure(&bench).contains("cannot read"));
    std::fs::remove_file(&layer).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &layer, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(failure(&bench).contains("no regular file"));
}

#[test]
fn volumes_need_names_that_podman_takes() {
    let bench = Bench::new();
    let archive = bench.file("archive", &Tar::default().file("a", b"x").bytes);
    for name in ["", "../x", "a/b", "a b"] {
        let refused = bench.archives(&[], &[(name, &archive)]);
        assert!(
            refused.is_err_and(|error| error.to_string().contains("name")),
            "{name:?}"
        );
    }
    let twice = bench.archives(&[], &[("a", &archive), ("a", &archive)]);
    assert!(twice.is_err());
    let missing = bench.scratch.join("missing");
    assert!(matches!(
        bench.import(&[], &[("a", &missing)]),
        Err(OperationError::Refused { .. })
    ));
}
