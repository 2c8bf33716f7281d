//! Images: from every form of archive the same image, as a backup of a store would have it.

use std::path::Path;

use podkeep_engine::monitor::FindingKind;
use podkeep_engine::podman::{LayerEvent, LayerReader, StorageDriver};
use podkeep_engine::repo::recipes::PartOf;
use podkeep_format::recipe::LITERAL_PAYLOAD_BYTES_MAX;
use serde_json::Value;

use super::{Bench, File, config, digest, folder_of, image, layout_files, saved_files, tar_of};
use crate::fake_store::{FakeStore, gzip};
use crate::images::{odd_tar, upper_tar};
use crate::repo::check_all;
use crate::repo::tars::{Session, reader};

const NAME: &str = "localhost/web:1";

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// What was imported comes back: the layers, the configuration, the manifest.
fn holds(bench: &Bench, layers: &[&[u8]], manifest: Option<&[u8]>) {
    let restored = bench.restored(&image(NAME));
    for (number, layer) in layers.iter().enumerate() {
        let file = format!("layers/{number:04}-{}.tar", &digest(layer)[7..]);
        assert!(std::fs::read(restored.join(file)).unwrap() == **layer);
    }
    let config = config(layers);
    let data = restored.join("big-data");
    assert_eq!(std::fs::read(data.join(digest(&config))).unwrap(), config);
    let found = std::fs::read(data.join("manifest")).unwrap();
    if let Some(manifest) = manifest {
        assert_eq!(found, manifest);
    }
    let own = data.join(format!("manifest-{}", digest(&found)));
    assert_eq!(std::fs::read(own).unwrap(), found);
    let manifest: Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(manifest["config"]["digest"], digest(&config));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), layers.len());
    assert_eq!(check_all(&bench.repo).unwrap().0.damaged, 0);
}

fn manifest(files: &[File]) -> Vec<u8> {
    let is_manifest = |(_, bytes): &&File| {
        bytes.starts_with(b"{\n  \"schemaVersion\"") || bytes.starts_with(b"{\n  \"config\"")
    };
    files.iter().find(is_manifest).unwrap().1.clone()
}

#[test]
fn every_form_of_archive_gives_the_same_image() {
    let (lower, upper) = (odd_tar().bytes, upper_tar().bytes);
    let layers = [lower.as_slice(), &upper, &lower];
    let saved = saved_files(NAME, &layers);
    let forms = [
        ("plain", layout_files(NAME, &layers, <[u8]>::to_vec)),
        ("gzip", layout_files(NAME, &layers, |layer| gzip(layer, 2))),
        ("zstd", layout_files(NAME, &layers, zstd)),
        ("saved", saved),
    ];
    for (form, files) in &forms {
        let tar = tar_of(files);
        let archives = [
            ("tar", tar.clone()),
            ("tar.gz", gzip(&tar, 3)),
            ("tar.zst", zstd(&tar)),
        ];
        for (how, bytes) in archives {
            let bench = Bench::new();
            let archive = bench.file("archive", &bytes);
            let (report, findings) = bench.import(&[&archive], &[]).unwrap();
            assert!(report.complete && report.items.len() == 1, "{form} {how}");
            let is_saved = *form == "saved";
            assert_eq!(findings.len(), usize::from(is_saved), "{findings:?}");
            assert!(findings.iter().all(|f| f.kind == FindingKind::Note));
            let manifest = (!is_saved).then(|| manifest(files));
            holds(&bench, &layers, manifest.as_deref());
        }
        let bench = Bench::new();
        let folder = bench.scratch.join("folder");
        folder_of(files, &folder);
        bench.import(&[&folder], &[]).unwrap();
        holds(&bench, &layers, None);
    }
}

/// The parts of a tar as they go to the two streams of a recipe.
type Parts = Vec<(PartOf, Vec<u8>)>;

fn push(parts: &mut Parts, stream: PartOf, bytes: &[u8]) {
    match parts.last_mut() {
        Some((last, known)) if *last == stream => known.extend_from_slice(bytes),
        _ => parts.push((stream, bytes.to_vec())),
    }
}

/// What the reader of a store makes of a layer.
fn stored_parts(store: &mut FakeStore, tar: &crate::fake_store::Tar) -> Parts {
    let layer = store.layer(tar, None);
    let (storage, listing) = store.read();
    let mut reader = LayerReader::open(&storage, &listing, &listing.layers[&layer]).unwrap();
    let mut parts = Parts::new();
    let mut stream = PartOf::Literals;
    loop {
        match reader.next_event().unwrap() {
            LayerEvent::Literal(bytes) => push(&mut parts, PartOf::Literals, bytes),
            LayerEvent::Payload { size, .. } => {
                stream = match size <= LITERAL_PAYLOAD_BYTES_MAX {
                    true => PartOf::Literals,
                    false => PartOf::Payloads,
                }
            }
            LayerEvent::Bytes(bytes) => push(&mut parts, stream, bytes),
            LayerEvent::End(_) => return parts,
        }
    }
}

#[test]
fn a_layer_has_the_recipe_that_a_store_would_give_it() {
    for tar in [odd_tar(), upper_tar()] {
        let bench = Bench::new();
        let archive = bench.file("archive", &tar_of(&saved_files(NAME, &[&tar.bytes])));
        bench.import(&[&archive], &[]).unwrap();
        let mut session = Session::open(&bench.repo).unwrap();
        let known = session
            .records
            .find(
                &bench.repo,
                &mut session.writer,
                tar.diff_id(),
                &session.monitor,
            )
            .unwrap()
            .expect("a record of the layer");
        let reader = reader(&bench.repo);
        let recipe = reader.recipe(known.recipe).unwrap();
        let mut at = 0;
        let mut parts = Parts::new();
        for part in reader.recipe_parts(&recipe) {
            let part = part.unwrap();
            let end = at + part.len as usize;
            push(&mut parts, part.stream, &tar.bytes[at..end]);
            at = end;
        }
        assert_eq!(at, tar.bytes.len());
        let mut store = FakeStore::new(StorageDriver::Overlay);
        assert!(parts == stored_parts(&mut store, &tar));
    }
}

#[test]
fn what_is_stored_is_not_read_again() {
    let bench = Bench::new();
    let (lower, upper) = (odd_tar().bytes, upper_tar().bytes);
    let first = bench.file("first", &tar_of(&saved_files(NAME, &[&lower])));
    bench.import(&[&first], &[]).unwrap();
    let files = layout_files(NAME, &[&lower, &upper], |layer| gzip(layer, 1));
    let second = bench.file("second", &tar_of(&files));
    let (report, _) = bench.import(&[&second], &[]).unwrap();
    assert!(report.bytes_read < upper.len() as u64, "{report:?}");
    let (report, _) = bench.import(&[&second], &[]).unwrap();
    assert_eq!((report.chunks_new, report.bytes_read), (0, 0));
    holds(&bench, &[&lower, &upper], None);
}

#[test]
fn several_archives_are_one_snapshot_with_one_owner_for_each_name() {
    let bench = Bench::new();
    let (lower, upper) = (odd_tar().bytes, upper_tar().bytes);
    let saved = bench.file("saved", &tar_of(&saved_files("web", &[&lower])));
    let layout = layout_files("docker.io/library/web", &[&lower], <[u8]>::to_vec);
    let layout = bench.file("layout", &tar_of(&layout));
    let other = tar_of(&saved_files("docker.io/library/web:latest", &[&upper]));
    let other = bench.file("other", &other);
    let tar = bench.file("volume", &upper);
    let paths: [&Path; 3] = [&saved, &layout, &other];
    let (report, findings) = bench.import(&paths, &[("data", &tar)]).unwrap();
    let mut items: Vec<String> = report.items.iter().map(|i| i.item.to_string()).collect();
    items.sort();
    let by_id = format!("image:{}", &digest(&config(&[&upper]))[7..]);
    assert_eq!(
        items,
        [&by_id, "image:docker.io/library/web:latest", "volume:data"]
    );
    let skipped = findings.iter().filter(|f| f.kind == FindingKind::Skipped);
    let skipped: Vec<_> = skipped.collect();
    assert_eq!(skipped.len(), 1, "{findings:?}");
    assert!(skipped[0].message.contains("stays with image"));
    // The archive with a manifest is the one that counts.
    let restored = bench.restored(&image("docker.io/library/web:latest"));
    let manifest = std::fs::read(restored.join("big-data/manifest")).unwrap();
    assert!(manifest.starts_with(b"{\n"));
}

/// `docker save` once wrote each layer as `ID/layer.tar`, some of them links to others.
#[test]
fn layers_may_be_links_to_others() {
    let bench = Bench::new();
    let lower = odd_tar().bytes;
    let config = config(&[&lower, &lower, &lower]);
    let manifest =
        r#"[{"Config":"c.json","RepoTags":null,"Layers":["a/layer.tar","b/layer.tar","c"]}]"#;
    let tar = crate::fake_store::Tar::default()
        .file("manifest.json", manifest.as_bytes())
        .file("c.json", &config)
        .file("a/layer.tar", &lower)
        .symlink("b/layer.tar", b"../a/layer.tar")
        .hard_link("c", b"b/layer.tar");
    let archive = bench.file("archive", &gzip(&tar.bytes, 1));
    let (report, _) = bench.import(&[&archive], &[]).unwrap();
    assert!(report.complete);
    let restored = bench.restored(&report.items[0].item);
    assert_eq!(
        std::fs::read_dir(restored.join("layers")).unwrap().count(),
        3
    );
}

/// A pipe can be read once, and an archive has to be more often.
#[test]
fn an_archive_may_come_through_a_pipe() {
    let bench = Bench::new();
    let layers = [odd_tar().bytes];
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    // The list of images, without which nothing is known, is the last of its files.
    let archive = gzip(&tar_of(&saved_files(NAME, &layers)), 2);
    let pipe = bench.scratch.join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let (report, findings) = std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&pipe, &archive).unwrap());
        bench.import(&[&pipe], &[]).unwrap()
    });
    assert!(report.complete, "{findings:?}");
    holds(&bench, &layers, None);
    let kept = std::fs::read_dir(bench.scratch.join("spool")).unwrap();
    assert_eq!(kept.count(), 0, "no killed import leaves it behind");
}
