//! A container's own files, put into its writable layer while nothing has it mounted.

use std::os::unix::ffi::OsStrExt;

use podkeep_format::item::Item;

use crate::fs::TreeWriter;
use crate::fs::write::{self, Destination, Existing, Labels, RootKind, Swap, WriteSpec};
use crate::host::{HostError, WriteRequest};
use crate::podman::replay::container_id;
use crate::podman::{LayerPlace, Podman, StoreInfo, layer_place};

/// The layer of a container that was made and never started. The stored tree has the form of an overlay's
/// upper directory: it becomes one, or is laid over the root that other drivers made of the image.
pub(in crate::host) fn write_layer(
    podman: &Podman,
    info: &StoreInfo,
    request: &WriteRequest,
    item: &Item,
) -> Result<Box<dyn TreeWriter>, HostError> {
    let refused = |cause: String| HostError::Refused {
        object: item.to_string(),
        cause: format!("its own files cannot be put back: {cause}"),
        hint: "restore them with --to-dir DIR".into(),
    };
    let name = String::from_utf8_lossy(&item.name);
    let id = container_id(podman, &name)?;
    let places = info.places.as_ref();
    let places =
        places.ok_or_else(|| refused(format!("the driver {} is not known", info.driver)))?;
    let place = layer_place(places, &id).map_err(refused)?;
    let place = place.ok_or_else(|| refused("the store has no layer of it".into()))?;
    let (layer, existing) = match place {
        LayerPlace::Upper(path) => (path, Existing::Replace),
        LayerPlace::Root(path) => (path, Existing::LaidOver),
    };
    let (Some(parent), Some(name)) = (layer.parent(), layer.file_name()) else {
        return Err(refused("its layer has no place".into()));
    };
    Ok(write::open(WriteSpec {
        object: item.to_string(),
        destination: Destination {
            parent: parent.as_os_str().as_bytes().to_vec(),
            name: name.as_bytes().to_vec(),
        },
        root_kind: RootKind::Directory,
        existing,
        swap: Swap::InPlace,
        chunking: request.chunking.clone(),
        threads: request.threads,
        root: request.root,
        labels: Labels::default(),
        bytes_expected: request.bytes_expected,
    })?)
}
