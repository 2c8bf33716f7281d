//! What an image is saved as when a layer of it cannot be saved bit by bit, or when its ID is none
//! that Podman gives to what is loaded.
//!
//! Its files are the same, and so is its configuration but for the DiffIDs that changed. So it has an
//! ID, a manifest and digests of its own, and tells what it was. It keeps the names that are tags: one
//! by digest, and a signature, would vouch for other bytes.

use podkeep_format::id::DiffId;
use serde_json::{Map, Value};

use super::archive::ArchivedImage;
use super::image::{ImageDefinition, LayerDefinition, OriginalImage};
use super::layout;
use super::load::config_key;

/// The keys and bytes of an image's big data.
type Pieces = Vec<(String, Vec<u8>)>;

/// The layers that an image's configuration tells of, bottom first. `None`: it is not understood.
pub fn diff_ids(config: &[u8]) -> Option<Vec<DiffId>> {
    let config: Value = serde_json::from_slice(config).ok()?;
    let listed = config["rootfs"]["diff_ids"].as_array()?;
    let ids = listed
        .iter()
        .map(|id| DiffId::from_hex(id.as_str()?.strip_prefix("sha256:")?));
    ids.collect()
}

/// `original` tells what the image is, but with the layers that are saved; `pieces` is its big data.
/// Returns what it is saved as. Errors are causes in words.
pub fn substitute(
    original: ImageDefinition,
    pieces: &[(String, Vec<u8>)],
) -> Result<(ImageDefinition, Pieces), String> {
    let piece = |key: &str| pieces.iter().find(|(other, _)| other == key);
    let (_, config) = config_key(&original)
        .and_then(piece)
        .ok_or("it has no configuration")?;
    let saved: Vec<&str> = original
        .layers
        .iter()
        .map(|layer| &*layer.diff_id)
        .collect();
    let (id, entry, new_pieces) = match with_layers(config, &saved)? {
        // Only the ID is another one: every manifest is still of this image.
        None => {
            let mut entry = original.entry.clone();
            let id = layout::sha256(config).to_hex();
            entry.insert("id".into(), id.clone().into());
            (id, entry, pieces.to_vec())
        }
        Some(config) => remade(
            &original,
            config,
            piece("manifest").map(|(_, bytes)| &bytes[..]),
        )?,
    };
    let mut definition = ImageDefinition::new(&id, entry, original.layers);
    definition.original = Some(OriginalImage {
        id: original.id,
        entry: original.entry,
    });
    Ok((definition, new_pieces))
}

/// The configuration with other DiffIDs. `None`: they are those that it has.
fn with_layers(config: &[u8], diff_ids: &[&str]) -> Result<Option<Vec<u8>>, String> {
    let not_understood =
        |cause: &dyn std::fmt::Display| format!("its configuration is not understood: {cause}");
    let mut parsed: Value =
        serde_json::from_slice(config).map_err(|error| not_understood(&error))?;
    let listed = parsed
        .pointer_mut("/rootfs/diff_ids")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| not_understood(&"it tells of no layers"))?;
    if listed.len() != diff_ids.len() {
        let (told, held) = (listed.len(), diff_ids.len());
        return Err(format!(
            "its configuration tells of {told} layers, and the store has {held}"
        ));
    }
    let mut is_changed = false;
    for (listed, id) in listed.iter_mut().zip(diff_ids) {
        let id = Value::from(format!("sha256:{id}"));
        is_changed |= *listed != id;
        *listed = id;
    }
    Ok(is_changed.then(|| parsed.to_string().into_bytes()))
}

/// ID, entry and big data of the image with this configuration, of the kind that the original is.
fn remade(
    original: &ImageDefinition,
    config: Vec<u8>,
    manifest: Option<&[u8]>,
) -> Result<(String, Map<String, Value>, Pieces), String> {
    let manifest = manifest.unwrap_or_default();
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let media_type = manifest["mediaType"].as_str().unwrap_or_default();
    let layers = original.layers.iter().map(|layer: &LayerDefinition| {
        let diff_id = layer.diff_id().ok_or("a layer has no DiffID")?;
        Ok((diff_id, layer.size))
    });
    let layers = layers.collect::<Result<Vec<_>, String>>()?;
    let manifest = match media_type.starts_with("application/vnd.docker.") {
        // One is made.
        true => None,
        false => {
            let annotations = manifest.get("annotations");
            Some(layout::manifest(&config, &layers, annotations))
        }
    };
    let tags = original.names().filter(|name| !name.contains('@'));
    let tags = tags.map(str::to_owned).collect();
    let sizes: Vec<u64> = layers.iter().map(|(_, size)| *size).collect();
    let (definition, pieces) = ArchivedImage::made(config, manifest, tags)?.definition(&sizes);
    let mut entry = definition.entry;
    for field in ["names-history", "created"] {
        if let Some(value) = original.entry.get(field) {
            entry.insert(field.into(), value.clone());
        }
    }
    Ok((definition.id, entry, pieces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::podman::image::ChangedLayer;
    use serde_json::json;

    const OLD: &str = "aa";
    const NEW: &str = "bb";

    fn digest(bytes: &[u8]) -> String {
        layout::digest_of(bytes)
    }

    /// An image of two layers, of which the second was made anew.
    fn image(media_type: &str, second: &str) -> (ImageDefinition, Pieces) {
        let config = json!({
            "architecture": "amd64",
            "config": {"Labels": {"kept": "yes"}, "Healthcheck": {"Test": ["NONE"]}},
            "rootfs": {"type": "layers", "diff_ids": [
                format!("sha256:{}", "11".repeat(32)), format!("sha256:{}", OLD.repeat(32)),
            ]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "annotations": {"org.x": "y"},
        });
        let manifest = manifest.to_string().into_bytes();
        let id = layout::sha256(&config).to_hex();
        let key = format!("sha256:{id}");
        let entry = json!({
            "id": id, "digest": digest(&manifest), "metadata": "{\"signature-sizes\":[3]}",
            "names": ["localhost/a:1", format!("localhost/a@{}", digest(&manifest))],
            "names-history": ["localhost/a:1", "localhost/old:1"],
            "big-data-names": [key, "manifest", "signatures"],
            "created": "2024-01-01T00:00:00.123Z",
        });
        let layer = |diff_id: &str, changed| LayerDefinition {
            diff_id: diff_id.repeat(32),
            size: 2048,
            compressed_digest: None,
            compressed_size: None,
            changed,
        };
        let changed = (second != OLD).then(|| ChangedLayer {
            diff_id: Some(OLD.repeat(32)),
            cause: "no headers".into(),
        });
        let layers = vec![layer("11", None), layer(second, changed)];
        let Value::Object(entry) = entry else {
            panic!("an object")
        };
        let pieces = vec![
            (key, config),
            ("manifest".to_owned(), manifest),
            ("signatures".to_owned(), b"sig".to_vec()),
        ];
        (ImageDefinition::new(&id, entry, layers), pieces)
    }

    #[test]
    fn another_layer_makes_another_image_of_the_same_kind() {
        for (media_type, is_docker) in [
            ("application/vnd.oci.image.manifest.v1+json", false),
            ("application/vnd.docker.distribution.manifest.v2+json", true),
        ] {
            let (original, pieces) = image(media_type, NEW);
            let (made, made_pieces) = substitute(original.clone(), &pieces).unwrap();
            ImageDefinition::decode(&made.encode()).unwrap();
            assert_ne!(made.id, original.id);
            assert_ne!(made.digest(), original.digest());
            let of = |key: &str| &made_pieces.iter().find(|(k, _)| k == key).unwrap().1;
            let config = of(&format!("sha256:{}", made.id));
            assert_eq!(layout::sha256(config).to_hex(), made.id);
            let ids: Vec<String> = diff_ids(config)
                .unwrap()
                .iter()
                .map(|id| id.to_hex())
                .collect();
            assert_eq!(ids, ["11".repeat(32), NEW.repeat(32)]);
            let config: Value = serde_json::from_slice(config).unwrap();
            assert_eq!(config["config"]["Healthcheck"]["Test"][0], "NONE");
            let manifest: Value = serde_json::from_slice(of("manifest")).unwrap();
            assert_eq!(manifest["mediaType"], media_type);
            assert_eq!(manifest["annotations"]["org.x"] == "y", !is_docker);
            assert_eq!(made.digest(), Some(&*digest(of("manifest"))));
            // Nothing that vouched for the old bytes.
            assert_eq!(made.names().collect::<Vec<_>>(), ["localhost/a:1"]);
            assert!(!made_pieces.iter().any(|(key, _)| key == "signatures"));
            assert_eq!(made.entry["metadata"], "{}");
            assert_eq!(made.entry["names-history"], original.entry["names-history"]);
            let was = made.original.unwrap();
            assert_eq!((was.id, was.entry), (original.id, original.entry));
        }
    }

    /// Podman makes the ID of a layer's table of contents where that is all that it knows.
    #[test]
    fn where_only_the_id_cannot_come_back_all_else_does() {
        let (mut original, pieces) = image("application/vnd.oci.image.manifest.v1+json", OLD);
        let right = std::mem::replace(&mut original.id, "cc".repeat(32));
        original.entry.insert("id".into(), "cc".repeat(32).into());
        let (made, made_pieces) = substitute(original.clone(), &pieces).unwrap();
        assert_eq!(made.id, right);
        assert_eq!(made_pieces, pieces);
        assert_eq!(made.names().count(), 2);
        assert_eq!(made.digest(), original.digest());
        assert_eq!(made.original.unwrap().id, "cc".repeat(32));
    }

    #[test]
    fn an_old_name_by_digest_and_an_old_id_are_not_given_to_the_new_image() {
        let (original, pieces) = image("application/vnd.oci.image.manifest.v1+json", NEW);
        let by_digest = original.names().last().unwrap().to_owned();
        let (made, _) = substitute(original.clone(), &pieces).unwrap();
        for name in [&by_digest, &original.id, &made.id] {
            let names: Vec<String> = made
                .clone()
                .under(name)
                .names()
                .map(str::to_owned)
                .collect();
            assert_eq!(names, ["localhost/a:1"]);
        }
        assert_eq!(
            made.under("localhost/b:2").names().collect::<Vec<_>>(),
            ["localhost/b:2"]
        );
    }

    #[test]
    fn an_image_that_its_configuration_does_not_tell_of_is_refused() {
        let (mut original, mut pieces) = image("", NEW);
        original.layers.pop();
        let error = substitute(original.clone(), &pieces).unwrap_err();
        assert!(error.contains("tells of 2 layers"), "{error}");
        pieces.remove(0);
        let error = substitute(original, &pieces).unwrap_err();
        assert!(error.contains("no configuration"), "{error}");
    }
}
