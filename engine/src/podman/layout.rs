//! The texts of what images travel in: an OCI layout ("image-layout.md" of the OCI image
//! specification) and the archive of `docker save`, both with uncompressed layers.

use podkeep_format::id::{DiffId, hex};
use serde_json::{Map, Value, json};

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Of a layout, with its text.
pub const LAYOUT_FILE: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
pub const INDEX_FILE: &str = "index.json";
/// Of an archive.
pub const ARCHIVE_FILE: &str = "manifest.json";

/// A manifest for uncompressed layers (with the bytes of each, bottom first).
pub fn manifest(config: &[u8], layers: &[(DiffId, u64)], annotations: Option<&Value>) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(id, size)| descriptor(LAYER_TYPE, &digest(id), *size))
        .collect();
    let config = descriptor(CONFIG_TYPE, &digest_of(config), config.len() as u64);
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config,
        "layers": layers,
    });
    if let Some(annotations) = annotations {
        manifest["annotations"] = annotations.clone();
    }
    manifest.to_string().into_bytes()
}

/// Whether a manifest is of just this configuration and these layers, so that it can be used as it
/// is.
pub fn fits(manifest: &Value, config: &[u8], layers: &[(DiffId, u64)]) -> bool {
    let listed = manifest["layers"].as_array();
    let listed = listed.map(Vec::as_slice).unwrap_or_default();
    let same = |(told, (id, size)): (&Value, &(DiffId, u64))| {
        told["digest"] == digest(id) && told["size"] == *size
    };
    manifest["config"]["digest"] == digest_of(config)
        && listed.len() == layers.len()
        && listed.iter().zip(layers).all(same)
}

/// The index of a layout with one image.
pub fn index(manifest: &[u8], media_type: Option<&str>, annotations: Map<String, Value>) -> String {
    let media_type = media_type.unwrap_or(MANIFEST_TYPE);
    let mut descriptor = descriptor(media_type, &digest_of(manifest), manifest.len() as u64);
    if !annotations.is_empty() {
        descriptor["annotations"] = annotations.into();
    }
    json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string()
}

/// The table of contents of an archive with one image.
pub fn archive(config: &[u8], tags: &[&str], layers: &[(DiffId, u64)]) -> String {
    let layers: Vec<String> = layers.iter().map(|(id, _)| archive_layer(id)).collect();
    json!([{"Config": archive_config(config), "RepoTags": tags, "Layers": layers}]).to_string()
}

/// Where an archive has the tar of a layer.
pub fn archive_layer(id: &DiffId) -> String {
    format!("{id}.tar")
}

/// Where an archive has the configuration.
pub fn archive_config(config: &[u8]) -> String {
    format!("{}.json", sha256(config))
}

/// Where a layout has a blob.
pub fn blob(id: &DiffId) -> String {
    format!("blobs/sha256/{id}")
}

/// "sha256:...".
pub fn digest_of(bytes: &[u8]) -> String {
    digest(&sha256(bytes))
}

fn digest(id: &DiffId) -> String {
    format!("sha256:{}", hex(&id.0))
}

/// Of any blob, which in a layout goes by the digest of its bytes.
pub fn sha256(bytes: &[u8]) -> DiffId {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut id = DiffId([0; 32]);
    id.0.copy_from_slice(digest.as_ref());
    id
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}
