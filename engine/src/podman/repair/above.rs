//! Copies of damaged files in layers above, where the driver gives each layer a whole tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use podkeep_format::item::Escaped;

use super::super::doctor::{content_folder, content_root};
use super::super::layer::clean;
use super::super::storage::{LayerId, StoredLayer};
use super::super::tar::TarEntry;
use super::super::tar_split::{TarSplit, TarSplitEntry};
use super::place::Place;
use super::users::is_on;
use super::{Mended, Work, is_same};

/// A file that was put back: its header, and what was in its place before.
pub struct Touched {
    pub entry: TarEntry,
    pub old: Option<File>,
}

/// What layers wrote over those below them.
#[derive(Default)]
struct Written {
    names: BTreeSet<Vec<u8>>,
    /// What was removed, with everything below.
    removed: BTreeSet<Vec<u8>>,
}

impl Written {
    fn hides(&self, name: &[u8]) -> bool {
        let above = |(at, byte): (usize, &u8)| (*byte == b'/').then(|| &name[..at]);
        self.names.contains(name)
            || self.removed.contains(name)
            || self.removed.contains(&b"."[..])
            || (name.iter().enumerate())
                .filter_map(above)
                .any(|above| self.removed.contains(above))
    }

    fn add(&mut self, name: &[u8]) {
        let name = clean(name);
        let (folder, last) = match name.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&name[..at], &name[at + 1..]),
            None => (&b"."[..], name.as_slice()),
        };
        match last.strip_prefix(b".wh.") {
            // Opaque: everything that the directory had.
            Some(b".wh..opq") => self.removed.insert(folder.to_vec()),
            Some(hidden) if folder == b"." => self.removed.insert(hidden.to_vec()),
            Some(hidden) => self.removed.insert([folder, b"/", hidden].concat()),
            None => self.names.insert(name),
        };
    }
}

/// Replaces the copies in the layers of images that lie on the one that was repaired, and tells
/// of those in layers of containers.
pub fn mend(work: &Work, touched: &BTreeMap<Vec<u8>, Touched>, mended: &mut Mended) {
    let repaired = work.layer.id;
    let above = work.listing.layers.values();
    for layer in above.filter(|l| l.id != repaired && is_on(&work.listing, l.id, repaired)) {
        if touched.is_empty() {
            return;
        }
        let id = layer.id;
        let told = written_above(work, layer, repaired)
            .and_then(|written| mend_layer(work, layer, &written, touched, mended));
        if let Err(error) = told {
            let told = format!("copies in layer {id}, which lies on it, are not repaired: {error}");
            mended.left.push(told);
        }
    }
}

fn mend_layer(
    work: &Work,
    layer: &StoredLayer,
    written: &Written,
    touched: &BTreeMap<Vec<u8>, Touched>,
    mended: &mut Mended,
) -> io::Result<()> {
    let Some(root) = content_root(&work.storage, layer) else {
        return Ok(());
    };
    let is_writable = layer.diff_id.or(layer.expected_diff_id).is_none();
    let folder = content_folder(work.storage.driver(), layer.id);
    let mut place: Option<Place> = None;
    for (name, Touched { entry, old }) in touched {
        if written.hides(name) {
            continue;
        }
        let right = work.place.file(name);
        let there = Place::file_in(root, &folder, name);
        if is_same(&there, &right)? {
            continue;
        }
        if is_writable {
            if is_same(&there, old)? {
                mended.left.push(format!(
                    "layer {} of a container has a damaged copy of '{}'; what containers wrote is \
                     never touched: make the container anew",
                    layer.id,
                    Escaped(name)
                ));
            }
            continue;
        }
        let Some(right) = right else { continue };
        let place = match &mut place {
            Some(place) => place,
            none => none.insert(Place::open(root, &folder, &folder)?),
        };
        let mut staged = place.stage("copy")?;
        staged.copy_start(right, entry.size)?;
        let links: Vec<&[u8]> = work
            .links
            .iter()
            .filter(|(link, target)| target == name && !written.hides(link))
            .map(|(link, _)| link.as_slice())
            .collect();
        place.put_file(entry, name, &staged, &links)?;
        mended.files += 1;
        mended.bytes += entry.size;
    }
    Ok(())
}

/// What the layers from `upper` down to `repaired`, without it, wrote.
fn written_above(work: &Work, upper: &StoredLayer, repaired: LayerId) -> io::Result<Written> {
    let mut written = Written::default();
    let mut next = Some(upper);
    while let Some(layer) = next.filter(|layer| layer.id != repaired) {
        let file = format!(
            "{}-layers/{}.tar-split.gz",
            work.storage.driver().word(),
            layer.id
        );
        let mut roots = work.storage.roots_from(layer.origin);
        let split = roots.find_map(|root| root.file(&file).ok());
        let is_writable = layer.diff_id.or(layer.expected_diff_id).is_none();
        match split {
            Some((split, _)) => {
                let mut split = TarSplit::new(split);
                while let Some(entry) = split.next_entry().map_err(io::Error::other)? {
                    if let TarSplitEntry::File { name, .. } = entry {
                        written.add(name);
                    }
                }
            }
            None if is_writable => {}
            None => {
                let cause = format!("layer {} has no tar-split", layer.id);
                return Err(io::Error::other(cause));
            }
        }
        // It ends: whoever called knows that `upper` lies on `repaired`.
        next = layer.parent.and_then(|id| work.listing.layers.get(&id));
    }
    Ok(written)
}
