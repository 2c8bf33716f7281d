//! What the overlay driver keeps of a layer besides its files: `link`, its short name, and
//! `lower`, the short names of the layers below it, the topmost first.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::super::doctor::{LINK_BYTES_MAX, LOWER_BYTES_MAX, content_root};
use super::super::storage::{LayerId, Root, Storage, StoreListing, StoredLayer};
use super::stage::BESIDE;

/// Characters of a short name, as Podman makes them.
const LINK_CHARS: usize = 26;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Entries of `l/`: one for each layer of the store.
const LINKS_MAX: usize = 200_000;
/// Layers below one another.
const CHAIN_LAYERS_MAX: usize = 1000;
/// Where fuse-overlayfs and force_mask keep what a file really is.
const OVERRIDES: [&str; 2] = [
    "user.containers.override_stat",
    "user.fuseoverlayfs.override_stat",
];

/// Whether owners and modes of the layer's files are in attributes instead.
pub fn keeps_attributes_elsewhere(storage: &Storage, layer: &StoredLayer) -> bool {
    let Some(root) = content_root(storage, layer) else {
        return false;
    };
    let diff = root.path().join(format!("overlay/{}/diff", layer.id));
    let has = |name: &str| {
        let mut value = [0; 256];
        rustix::fs::getxattr(&diff, name, &mut value[..]).is_ok()
    };
    let by_program = root.read("overlay/.has-mount-program", LINK_BYTES_MAX);
    by_program.is_ok_and(|text| text.trim_ascii() == b"true") || OVERRIDES.into_iter().any(has)
}

/// Makes `link` and `lower` again where they are missing or empty, of the layers below first: a
/// `lower` is made of theirs. Returns how many files were made; `Err`: why one could not be, in
/// words.
pub fn make_files(
    storage: &Storage,
    listing: &StoreListing,
    layer: &StoredLayer,
) -> Result<u64, String> {
    let Some(root) = content_root(storage, layer) else {
        return Err("its directory went away".into());
    };
    let mut chain = vec![layer];
    while let Some(parent) = chain.last().and_then(|layer| layer.parent)
        && let Some(parent) = listing.layers.get(&parent)
        && chain.len() < CHAIN_LAYERS_MAX
        && is_without(root, chain[chain.len() - 1], "lower")
    {
        chain.push(parent);
    }
    let mut made = 0;
    for layer in chain.into_iter().rev() {
        made += make_files_of(root, listing, layer)?;
    }
    Ok(made)
}

fn is_without(root: &Root, layer: &StoredLayer, name: &str) -> bool {
    read(root, layer.id, name).is_none()
}

fn make_files_of(root: &Root, listing: &StoreListing, layer: &StoredLayer) -> Result<u64, String> {
    let mut made = 0;
    if is_without(root, layer, "link") {
        let link = match known_link(root, listing, layer.id) {
            Some(link) => link,
            None => new_link()?,
        };
        write(root, layer.id, "link", &link)?;
        let shortcut = root.path().join(format!("overlay/l/{link}"));
        if std::fs::symlink_metadata(&shortcut).is_err() {
            // Podman makes it, too, when it starts.
            let _ = std::os::unix::fs::symlink(format!("../{}/diff", layer.id), &shortcut);
        }
        made += 1;
    }
    if let Some(parent) = layer.parent
        && is_without(root, layer, "lower")
    {
        let is_bottom = (listing.layers.get(&parent)).is_some_and(|layer| layer.parent.is_none());
        let lower = match (read(root, parent, "link"), read(root, parent, "lower")) {
            (Some(link), Some(below)) => format!("l/{link}:{below}"),
            (Some(link), None) if is_bottom => format!("l/{link}"),
            _ => {
                return Err(format!(
                    "nothing tells what its file 'lower' was: see {parent}"
                ));
            }
        };
        write(root, layer.id, "lower", &lower)?;
        made += 1;
    }
    Ok(made)
}

/// The text of one of the files. `None`: there is none.
fn read(root: &Root, layer: LayerId, name: &str) -> Option<String> {
    let text = root.read(&format!("overlay/{layer}/{name}"), LOWER_BYTES_MAX);
    let text = String::from_utf8(text.ok()?).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The short name that others know the layer by: a link leads to it, or a layer that lies on it
/// begins its `lower` with it.
fn known_link(root: &Root, listing: &StoreListing, layer: LayerId) -> Option<String> {
    let target = format!("../{layer}/diff");
    let links = std::fs::read_dir(root.path().join("overlay/l"));
    for link in links.into_iter().flatten().flatten().take(LINKS_MAX) {
        let leads = std::fs::read_link(link.path());
        if leads.is_ok_and(|leads| leads == Path::new(&target))
            && let Ok(name) = link.file_name().into_string()
        {
            return Some(name);
        }
    }
    let mut children = listing.layers.values().filter(|l| l.parent == Some(layer));
    children.find_map(|child| {
        let lower = read(root, child.id, "lower")?;
        let first = lower.split(':').next()?.strip_prefix("l/")?;
        let is_name = first.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_name.then(|| first.to_owned())
    })
}

/// Nobody knows the layer by a name: any new one will do.
fn new_link() -> Result<String, String> {
    let mut random = [0; LINK_CHARS];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let letter = |byte: u8| char::from(ALPHABET[usize::from(byte % 32)]);
    Ok(random.into_iter().map(letter).collect())
}

/// Writes beside, and renames.
fn write(root: &Root, layer: LayerId, name: &str, text: &str) -> Result<(), String> {
    let folder = root.path().join(format!("overlay/{layer}"));
    let beside = folder.join(format!("{BESIDE}{name}"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, folder.join(name))
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        format!("cannot write its file '{name}': {error}")
    })
}
