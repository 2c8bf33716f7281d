//! Loading an image's layers with Podman alone.
//!
//! `podman load` of a layout with uncompressed layers works with every driver and every version,
//! and needs no other program. Layers that are in the store already, found by their DiffID, are
//! not read from the layout and need not be in it. What Podman makes of manifest and names is
//! makeshift: [`adopt`](super::adopt) replaces it.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde_json::Map;

use super::adopt::read_piece;
use super::command::{Podman, PodmanError, Purpose, failure};
use super::image::{BIG_DATA_FOLDER, ImageDefinition, LAYERS_FOLDER, big_data_entry, layer_file};
use super::layout as oci;
use super::load_fed;

/// A load that takes longer hangs. Podman copies each layer and unpacks it: some 100 MB a second.
pub(super) const LOAD_TIME_MAX: Duration = Duration::from_secs(4 * 3600);
/// What a driver says of a folder that nobody knows.
const IN_THE_WAY: &str = "file exists";
/// Of what Podman says.
const QUOTED_CHARS_MAX: usize = 1024;
/// The host's own policy is about where images come from: this one comes from a backup of it.
pub(super) const POLICY: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

/// Turns the restored tree of an image into a layout in the folder `layout`, which is made anew,
/// and loads it. Layers whose tar is not there must be in the store. What is left of the tree is
/// its big data. Nobody but us may write to the folders that hold the two.
pub fn load(
    podman: &Podman,
    definition: &ImageDefinition,
    tree: &Path,
    layout: &Path,
) -> Result<(), PodmanError> {
    let purpose = Purpose {
        action: "load",
        object: &format!("image {}", definition.id),
    };
    make_layout(definition, tree, layout)
        .map_err(|cause| PodmanError::new(purpose.action, purpose.object, cause))?;
    let policy = layout.join("policy.json");
    std::fs::write(&policy, POLICY)
        .map_err(|cause| PodmanError::new("write", policy.display().to_string(), cause))?;
    match load_layout(podman, purpose, layout, &policy) {
        // What is left of a layer without a record stands in Podman's way on btrfs. It fails, and takes
        // that away.
        Err(error) if error.cause.contains(IN_THE_WAY) => {
            load_layout(podman, purpose, layout, &policy)
        }
        loaded => loaded,
    }
}

/// Loads a layout that is complete but for layers that the store has.
pub(super) fn load_layout(
    podman: &Podman,
    purpose: Purpose<'_>,
    layout: &Path,
    policy: &Path,
) -> Result<(), PodmanError> {
    let arguments = [
        "load".as_ref(),
        "--quiet".as_ref(),
        "--signature-policy".as_ref(),
        policy.as_os_str(),
        "--input".as_ref(),
        layout.as_os_str(),
    ];
    let podman = podman.ending_with_us();
    let ended = match podman.user() {
        None => podman.end_within(purpose, &arguments, b"", LOAD_TIME_MAX)?,
        // Who may not enter the folder.
        Some(_) => load_fed::load(&podman, purpose, layout, POLICY, LOAD_TIME_MAX)?,
    };
    match ended.status.success() {
        true => Ok(()),
        false => Err(PodmanError {
            cause: cause(&ended.stderr).unwrap_or_else(|| failure(purpose, &ended).cause),
            ..failure(purpose, &ended)
        }),
    }
}

/// Podman tries every format that it knows, and tells of each why it is not that one. This is
/// what it says of ours.
fn cause(stderr: &str) -> Option<String> {
    let line = stderr
        .lines()
        .find_map(|line| line.trim().strip_prefix("* oci: "))?;
    Some(line.chars().take(QUOTED_CHARS_MAX).collect())
}

/// The key of the configuration among the big data.
pub fn config_key(definition: &ImageDefinition) -> Option<&str> {
    let own = format!("sha256:{}", definition.id);
    let mut keys = definition
        .big_data()
        .map(|piece| piece.key)
        .filter(|key| key.starts_with("sha256:"));
    let first = keys.next()?;
    // Of an image whose layers are known by their table of contents only, the ID is no digest.
    Some(keys.find(|key| *key == own).unwrap_or(first))
}

fn make_layout(definition: &ImageDefinition, tree: &Path, layout: &Path) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let blobs = layout.join("blobs/sha256");
    match std::fs::remove_dir_all(layout) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(layout, error)),
        _ => {}
    }
    std::fs::create_dir_all(&blobs).map_err(|error| failed(&blobs, error))?;
    let mut layers = Vec::new();
    for (number, layer) in definition.layers.iter().enumerate() {
        let Some(diff_id) = layer.diff_id() else {
            return Err("a layer has no DiffID".into());
        };
        let tar = tree.join(LAYERS_FOLDER).join(layer_file(number, &diff_id));
        match std::fs::rename(&tar, blobs.join(diff_id.to_hex())) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&tar, error)),
            _ => {}
        }
        layers.push((diff_id, layer.size));
    }
    let Some(key) = config_key(definition) else {
        return Err("it has no configuration".into());
    };
    let config = tree.join(BIG_DATA_FOLDER).join(big_data_entry(key));
    let config = read_piece(&config).map_err(|error| failed(&config, error))?;
    let manifest = oci::manifest(&config, &layers, None);
    let index = oci::index(&manifest, None, Map::new());
    let (name, text) = oci::LAYOUT_FILE;
    for (path, bytes) in [
        (layout.join(oci::blob(&oci::sha256(&config))), &config[..]),
        (layout.join(oci::blob(&oci::sha256(&manifest))), &manifest),
        (layout.join(name), text.as_bytes()),
        (layout.join(oci::INDEX_FILE), index.as_bytes()),
    ] {
        std::fs::write(&path, bytes).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_formats_that_podman_tried_the_reason_of_ours_is_told() {
        let stderr = "Error: payload does not match any of the supported image formats:\n \
                      * oci: writing blob: no space left\n * oci-archive: is a directory\n \
                      * dir: open manifest.json: no such file";
        assert_eq!(cause(stderr).unwrap(), "writing blob: no space left");
        assert_eq!(cause("Error: killed"), None);
    }
}
