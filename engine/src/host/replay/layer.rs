//! A container's own files, put into its writable layer while nothing has it mounted.

use std::os::unix::ffi::OsStrExt;

use podkeep_format::item::Item;
use podkeep_format::tree::Entry;

use crate::fs::write::{self, Destination, Existing, Labels, RootKind, Swap, WriteSpec};
use crate::fs::{FsError, PresentQuery, TreeWriter, WriteBatch, WriteOutcome, WriteStep};
use crate::host::user::OtherUser;
use crate::host::{HostError, WriteRequest};
use crate::monitor::Finding;
use crate::podman::replay::container_id;
use crate::podman::{LayerPlace, Podman, StoreInfo, layer_place};

/// Says that a directory hides the one below it, in a mount of root's and in one of a user's.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const OPAQUE_OF_USER: &[u8] = b"user.overlay.opaque";

/// The layer of a container that was made and never started. The stored tree has the form of an overlay's
/// upper directory: it becomes one, or is laid over the root that other drivers made of the image.
///
/// `user`: whose store it is, when that is not the caller.
pub(in crate::host) fn write_layer(
    podman: &Podman,
    info: &StoreInfo,
    user: Option<&OtherUser>,
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
    // Held until the writer has opened it.
    let theirs = user.map(|user| user.folder(parent)).transpose()?;
    let parent = match &theirs {
        Some(theirs) => theirs.path().into_bytes(),
        None => parent.as_os_str().as_bytes().to_vec(),
    };
    let in_user_namespace = podman.is_rootless() && existing == Existing::Replace;
    let tree = write::open(WriteSpec {
        object: item.to_string(),
        destination: Destination {
            parent,
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
    })?;
    Ok(match in_user_namespace {
        true => Box::new(OfUser(tree)),
        false => tree,
    })
}

/// An upper directory of a mount that was made in a user namespace, which may not set the attribute that
/// root's mounts use.
struct OfUser(Box<dyn TreeWriter>);

fn name_for_user(entry: &mut Entry) {
    let opaque = entry.xattrs.iter_mut().find(|one| one.name == OPAQUE);
    if let Some(opaque) = opaque {
        opaque.name = OPAQUE_OF_USER.to_vec();
    }
}

impl TreeWriter for OfUser {
    fn may_hold(&self) -> bool {
        self.0.may_hold()
    }

    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        self.0.present(queries)
    }

    fn apply(&mut self, mut batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        for step in &mut batch.steps {
            if let WriteStep::Directory { entry, .. } = step {
                name_for_user(entry);
            }
        }
        self.0.apply(batch)
    }

    fn finish(self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        self.0.finish()
    }

    fn discard(self: Box<Self>) -> Result<(), FsError> {
        self.0.discard()
    }
}
