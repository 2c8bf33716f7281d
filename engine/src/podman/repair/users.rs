//! Who has a layer mounted now.

use std::collections::HashMap;
use std::path::Path;

use rustix::io::Errno;
use serde::Deserialize;

use super::super::storage::{LayerId, Root, Storage, StorageError, StoreListing, cause_of};

/// Bytes of a list of mounts or containers: a container takes about 1 KiB.
const LIST_BYTES_MAX: usize = 64 << 20;
/// Layers below one another.
const CHAIN_LAYERS_MAX: usize = 1000;

#[derive(Deserialize)]
struct Mount {
    id: String,
    #[serde(default)]
    count: i64,
}

#[derive(Deserialize)]
struct Container {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    layer: String,
}

/// In words: containers by name, other mounts by their layer. Containers that run have their layer
/// mounted, and so has `podman mount`.
pub fn of(
    storage: &Storage,
    run_root: &Path,
    listing: &StoreListing,
    layer: LayerId,
) -> Result<Vec<String>, StorageError> {
    let driver = storage.driver().word();
    let Ok(run_root) = Root::open(run_root) else {
        // Nothing was started since the machine was.
        return Ok(Vec::new());
    };
    let file = format!("{driver}-layers/mountpoints.json");
    let mounts: Vec<Mount> = read(&run_root, &file)?;
    let mounted: Vec<LayerId> = mounts
        .iter()
        .filter(|mount| mount.count > 0)
        .filter_map(|mount| LayerId::from_hex(&mount.id))
        .filter(|mounted| is_on(listing, *mounted, layer))
        .collect();
    if mounted.is_empty() {
        return Ok(Vec::new());
    }
    let mut names = HashMap::new();
    let lists = ["containers.json", "volatile-containers.json"];
    for root in storage.stores().chain([&run_root]) {
        for list in lists {
            let file = format!("{driver}-containers/{list}");
            for container in read::<Container>(root, &file)? {
                let first = container.names.unwrap_or_default().into_iter().next();
                names.insert(container.layer, first.unwrap_or(container.id));
            }
        }
    }
    let mut users: Vec<String> = mounted
        .iter()
        .map(|mounted| match names.get(&mounted.to_hex()) {
            Some(name) => format!("container {name}"),
            None => format!("a mount of layer {mounted}"),
        })
        .collect();
    users.sort();
    users.dedup();
    Ok(users)
}

/// Whether `upper` is `layer`, or lies on it.
pub fn is_on(listing: &StoreListing, upper: LayerId, layer: LayerId) -> bool {
    let mut next = Some(upper);
    for _ in 0..CHAIN_LAYERS_MAX {
        let Some(id) = next else { return false };
        if id == layer {
            return true;
        }
        next = listing.layers.get(&id).and_then(|layer| layer.parent);
    }
    false
}

fn read<T: for<'de> Deserialize<'de>>(root: &Root, file: &str) -> Result<Vec<T>, StorageError> {
    let unreadable = |cause: String| StorageError::Unreadable {
        object: root.name(file),
        cause,
    };
    let text = match root.read(file, LIST_BYTES_MAX) {
        Ok(text) if text.is_empty() => return Ok(Vec::new()),
        Ok(text) => text,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(unreadable(cause_of(errno))),
    };
    let list: Option<Vec<T>> =
        serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    Ok(list.unwrap_or_default())
}
