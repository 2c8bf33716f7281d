//! Foreign bytes for the decoders of a store, and what must hold whatever they are: for the smoke
//! test here and the fuzz targets.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use podkeep_engine::podman::replay::Answer;
use podkeep_engine::podman::{
    ArtifactDefinition, ConfigDefinition, ContainerDefinition, LayerObjects, NetworkDefinition,
    Origin, PodDefinition, SecretDefinition, StoreListing, TarSplit, TarSplitEntry, UnitDefinition,
    is_object_name, parse_index, parse_manifest, read_bolt,
};

pub type Read = fn(&[u8]);

/// By fuzz target.
pub const DECODERS: [(&str, Read); 8] = [
    ("api-answer", read_api_answer),
    ("bolt-state", read_bolt_state),
    ("definition", read_definition),
    ("tar-split", read_tar_split),
    ("images-json", read_images),
    ("layers-json", read_layers),
    ("artifacts", read_artifacts),
    ("layer-objects", read_layer_objects),
];

/// As a gzip stream, and as the text in one: its checksum would keep changed text out.
pub fn read_tar_split(bytes: &[u8]) {
    decode_split(bytes);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    if let Err(error) = encoder.write_all(bytes) {
        panic!("cannot compress: {error}");
    }
    match encoder.finish() {
        Ok(compressed) => decode_split(&compressed),
        Err(error) => panic!("cannot compress: {error}"),
    }
}

fn decode_split(compressed: &[u8]) {
    let mut split = TarSplit::new(compressed);
    let mut entries = 0u64;
    let mut segment_bytes = 0u64;
    while let Ok(Some(entry)) = split.next_entry() {
        entries += 1;
        match entry {
            TarSplitEntry::Segment(bytes) => segment_bytes += bytes.len() as u64,
            TarSplitEntry::File { name, size, .. } => assert!(size == 0 || !name.is_empty()),
        }
        // The shortest line is `{"type":1}`.
        assert!(
            entries * 10 <= 4096 + segment_bytes * 8,
            "text in abundance"
        );
    }
}

/// Podman's older database.
pub fn read_bolt_state(bytes: &[u8]) {
    let Ok(state) = read_bolt(bytes) else {
        return;
    };
    let (containers, _) = state.definitions();
    for (container, _) in containers {
        assert!(is_object_name(&container.name));
    }
}

/// What Podman's API answers, or who else answers in its place: what of it is shown is one short line.
pub fn read_api_answer(bytes: &[u8]) {
    let Ok(answer) = Answer::parse(bytes) else {
        return;
    };
    let refusal = answer.refusal();
    assert!(!refusal.is_empty() && refusal.len() <= 1024 && !refusal.contains('\n'));
    assert_ne!(answer.made_id(), Some(""));
}

/// Whatever is taken for a definition is written as what reads the same.
pub fn read_definition(bytes: &[u8]) {
    if let Ok(read) = ContainerDefinition::decode(bytes) {
        assert_eq!(ContainerDefinition::decode(&read.encode()), Ok(read));
    }
    if let Ok(read) = PodDefinition::decode(bytes) {
        assert_eq!(PodDefinition::decode(&read.encode()), Ok(read));
    }
    if let Ok(read) = NetworkDefinition::decode(bytes) {
        assert_eq!(NetworkDefinition::decode(&read.encode()), Ok(read));
    }
    if let Ok(read) = SecretDefinition::decode(bytes) {
        assert_eq!(SecretDefinition::decode(&read.encode()), Ok(read));
    }
    if let Ok(read) = UnitDefinition::decode(bytes) {
        assert_eq!(UnitDefinition::decode(&read.encode()), Ok(read));
    }
    if let Ok(read) = ConfigDefinition::decode(bytes) {
        assert_eq!(ConfigDefinition::decode(&read.encode()), Ok(read));
    }
}

/// The entry that is kept of an image says all that is known of it.
pub fn read_images(bytes: &[u8]) {
    let mut listing = StoreListing::default();
    if listing.add_images(bytes, "x", Origin::GraphRoot).is_err() {
        assert!(listing.images.is_empty());
    }
    for image in &listing.images {
        let mut again = StoreListing::default();
        let list = format!("[{}]", image.entry);
        let read = again.add_images(list.as_bytes(), "x", Origin::GraphRoot);
        assert_eq!(read, Ok(()));
        assert_eq!(again.images, std::slice::from_ref(image));
    }
}

/// Any lists give chains with an end.
pub fn read_layers(bytes: &[u8]) {
    let mut listing = StoreListing::default();
    if listing.add_layers(bytes, "x", Origin::GraphRoot).is_err() {
        assert!(listing.layers.is_empty());
    }
    let tops: Vec<String> = listing.layers.keys().map(|id| id.to_hex()).collect();
    for top in tops {
        let image = format!(r#"[{{"id":"{top}","layer":"{top}"}}]"#);
        let read = listing.add_images(image.as_bytes(), "x", Origin::GraphRoot);
        assert_eq!(read, Ok(()));
    }
    for image in &listing.images {
        if let Ok(chain) = listing.chain(image) {
            assert_eq!(chain[0].parent, None);
        }
    }
}

/// An index, a manifest, or the definition of an artifact: each names what can be a file of a layout.
pub fn read_artifacts(bytes: &[u8]) {
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    for artifact in parse_index(bytes).unwrap_or_default() {
        assert!(is_digest(&artifact.digest) && artifact.name.is_none_or(|name| !name.is_empty()));
    }
    for blob in parse_manifest(bytes).unwrap_or_default() {
        assert!(is_digest(&blob.digest));
    }
    if let Ok(definition) = ArtifactDefinition::decode(bytes) {
        assert!(definition.blobs.iter().all(|blob| is_digest(&blob.digest)));
        assert_eq!(
            ArtifactDefinition::decode(&definition.encode()),
            Ok(definition)
        );
    }
}

/// A table of contents: whatever it calls its objects, they lie below the layer's folder.
pub fn read_layer_objects(bytes: &[u8]) {
    let Some(objects) = LayerObjects::parse(bytes) else {
        return;
    };
    for name in [&b"srv/page"[..], b"a", b"."] {
        if let Some(place) = objects.place(name) {
            assert_eq!(place.len(), 65);
            assert!(place.bytes().enumerate().all(|(at, b)| match at {
                2 => b == b'/',
                _ => b.is_ascii_hexdigit(),
            }));
        }
    }
}
