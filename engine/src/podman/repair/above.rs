//! Copies of damaged files in layers above, where the driver gives each layer a whole tree.
//!
//! What a layer above has may be its own: its tar wrote the name, perhaps by way of a link, or
//! removed it, or put something else in the place of a directory. So names are compared by where
//! they really lie, and only what is certainly the same damage is replaced: the very bytes that
//! the repaired layer had, or nothing where that one had nothing. The rest is told of and left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use podkeep_format::item::Escaped;

use super::super::doctor::{content_folder, content_root};
use super::super::layer::clean;
use super::super::storage::{INSIDE, LayerId, StoredLayer};
use super::super::tar_split::{TarSplit, TarSplitEntry};
use super::place::{Place, base};
use super::tree::{There, Tree};
use super::users::is_on;
use super::{Fix, Mended, Work, is_same};

/// A file that is put back, by where it really lies.
struct Original<'f> {
    fix: &'f Fix,
    /// The name that its right content has in the folder of contents.
    staged: &'f str,
    /// Where its hard links really lie.
    links: Vec<Vec<u8>>,
}

/// Places that layers wrote or removed something in the way of.
type Hidden = BTreeSet<Vec<u8>>;

/// What the layers above did to the places of what was put back.
struct Above<'w> {
    work: &'w Work,
    originals: BTreeMap<Vec<u8>, Original<'w>>,
    /// Of the originals and their links.
    places: BTreeSet<Vec<u8>>,
    /// Of each layer that was looked at, what it alone hides; `Err`: why nobody knows.
    known: BTreeMap<LayerId, Result<Hidden, String>>,
}

/// Replaces the copies in the layers of images that lie on the one that is repaired, and tells of
/// those in layers of containers. The files themselves are still as they were found.
pub fn mend(work: &Work, files: &[Fix], mended: &mut Mended) {
    if files.iter().all(|fix| fix.staged.is_none()) {
        return;
    }
    let repaired = work.layer.id;
    let mut above = match Above::new(work, files) {
        Ok(above) => above,
        Err(error) => {
            let told = format!("copies in layers that lie on it are not repaired: {error}");
            mended.left.push(told);
            return;
        }
    };
    let layers = work.listing.layers.values();
    for layer in layers.filter(|l| l.id != repaired && is_on(&work.listing, l.id, repaired)) {
        let id = layer.id;
        if content_root(&work.storage, layer).is_none() {
            // It has no copies: its directory is missing.
            continue;
        }
        let done = above
            .hidden_from(layer)
            .and_then(|hidden| above.mend_layer(layer, &hidden, mended));
        if let Err(cause) = done {
            let told = format!("copies in layer {id}, which lies on it, are not repaired: {cause}");
            mended.left.push(told);
        }
    }
}

fn is_writable(layer: &StoredLayer) -> bool {
    layer.diff_id.or(layer.expected_diff_id).is_none()
}

impl<'w> Above<'w> {
    fn new(work: &'w Work, files: &'w [Fix]) -> io::Result<Self> {
        let tree = tree(work, &work.layer)?;
        let mut originals = BTreeMap::new();
        let mut places = BTreeSet::new();
        for fix in files {
            let Some(staged) = &fix.staged else {
                continue;
            };
            let name = clean(&fix.entry.name);
            let links = work.links_of(&name);
            let links: Vec<Vec<u8>> = links.filter_map(|link| tree.real(link).ok()).collect();
            let real = tree.real(&name)?;
            places.extend(links.iter().cloned());
            places.insert(real.clone());
            let original = Original { fix, staged, links };
            originals.insert(real, original);
        }
        Ok(Self {
            work,
            originals,
            places,
            known: BTreeMap::new(),
        })
    }

    /// What the layers from `upper` down to the repaired one, without it, hide.
    fn hidden_from(&mut self, upper: &StoredLayer) -> Result<Hidden, String> {
        let mut hidden = Hidden::new();
        let mut next = Some(upper);
        while let Some(layer) = next.filter(|layer| layer.id != self.work.layer.id) {
            if !self.known.contains_key(&layer.id) {
                let found = self.hidden_by(layer);
                self.known.insert(layer.id, found);
            }
            hidden.extend(self.known[&layer.id].clone()?);
            // It ends: whoever called knows that `upper` lies on the repaired layer.
            next = layer
                .parent
                .and_then(|id| self.work.listing.layers.get(&id));
        }
        Ok(hidden)
    }

    fn hidden_by(&self, layer: &StoredLayer) -> Result<Hidden, String> {
        let mut hidden = Hidden::new();
        let storage = &self.work.storage;
        let file = format!(
            "{}-layers/{}.tar-split.gz",
            storage.driver().word(),
            layer.id
        );
        let mut roots = storage.roots_from(layer.origin);
        let Some((split, _)) = roots.find_map(|root| root.file(&file).ok()) else {
            return match is_writable(layer) {
                true => Ok(hidden),
                false => Err(format!("layer {} has no tar-split", layer.id)),
            };
        };
        let tree = tree(self.work, layer).map_err(|error| error.to_string())?;
        let mut split = TarSplit::new(split);
        while let Some(entry) = split.next_entry().map_err(|error| error.to_string())? {
            if let TarSplitEntry::File { name, .. } = entry {
                let real = tree.real(name).map_err(|errno| {
                    let (name, id) = (Escaped(name), layer.id);
                    let error = io::Error::from(errno);
                    format!("where '{name}' of layer {id} lies cannot be told: {error}")
                })?;
                self.hide(&tree, real, &mut hidden);
            }
        }
        Ok(hidden)
    }

    /// Adds what an entry of a layer's tar hides.
    fn hide(&self, tree: &Tree, real: Vec<u8>, hidden: &mut Hidden) {
        let (folder, last) = base(&real);
        match last.strip_prefix(b".wh.") {
            // Opaque: everything that the directory had.
            Some(b".wh..opq") => hidden.extend(self.below(folder).cloned()),
            Some(removed) => {
                let removed = match folder {
                    b"." => removed.to_vec(),
                    folder => [folder, b"/", removed].concat(),
                };
                hidden.extend(self.below(&removed).cloned());
                hidden.insert(removed);
            }
            None => {
                // Whatever is no directory now took the place of one, with all that was in it.
                if self.below(&real).next().is_some() && !tree.is_directory(&real) {
                    hidden.extend(self.below(&real).cloned());
                }
                if self.places.contains(&real) {
                    hidden.insert(real);
                }
            }
        }
    }

    /// The places below a directory.
    fn below<'s>(&'s self, folder: &[u8]) -> impl Iterator<Item = &'s Vec<u8>> + use<'s, 'w> {
        let start = match folder {
            b"." => Vec::new(),
            folder => [folder, b"/"].concat(),
        };
        let from = self.places.range(start.clone()..);
        from.take_while(move |place| place.starts_with(&start))
    }

    fn mend_layer(
        &self,
        layer: &StoredLayer,
        hidden: &Hidden,
        mended: &mut Mended,
    ) -> Result<(), String> {
        let tree = tree(self.work, layer).map_err(|error| error.to_string())?;
        let mut place = None;
        for (name, original) in &self.originals {
            if hidden.contains(name) {
                continue;
            }
            let right = self.work.stage.file(original.staged);
            let right = right.map_err(|errno| format!("the right '{}': {errno}", Escaped(name)))?;
            let there = tree.there(name);
            let holds = |content: &File| match &there {
                // What cannot be read is not known to be the same.
                There::File(file) => is_same(file, content).unwrap_or(false),
                There::Missing | There::Other => false,
            };
            if holds(&right) {
                continue;
            }
            let is_copy = match self.work.place.file(name) {
                Some(old) => holds(&old),
                None => matches!(there, There::Missing),
            };
            let (id, shown) = (layer.id, Escaped(name));
            match (is_writable(layer), is_copy) {
                (true, true) => mended.left.push(format!(
                    "layer {id} of a container has a damaged copy of '{shown}'; what containers \
                     wrote is never touched: make the container anew"
                )),
                // The container's own business.
                (true, false) => {}
                (false, true) => {
                    let put = self.replace(layer, &tree, &mut place, name, right, hidden);
                    put.map_err(|error| format!("'{shown}': {error}"))?;
                    mended.files += 1;
                    mended.bytes += original.fix.entry.size;
                }
                (false, false) => mended.left.push(format!(
                    "layer {id}, which lies on it, has at '{shown}' neither the right file nor the \
                     damage that was repaired; it is left as it is: remove the images that need \
                     the layer and restore them"
                )),
            }
        }
        Ok(())
    }

    /// `place` is that of `layer`, once there is one.
    fn replace(
        &self,
        layer: &StoredLayer,
        tree: &Tree,
        place: &mut Option<Place>,
        name: &[u8],
        right: File,
        hidden: &Hidden,
    ) -> io::Result<()> {
        let place = match place {
            Some(place) => place,
            none => {
                let root =
                    content_root(&self.work.storage, layer).ok_or(io::ErrorKind::NotFound)?;
                let folder = content_folder(self.work.storage.driver(), layer.id);
                none.insert(Place::open(root, &folder, INSIDE, &self.work.stage)?)
            }
        };
        let Original { fix, links, .. } = &self.originals[name];
        let copy = place.own(right, true)?;
        let links: Vec<&[u8]> = links
            .iter()
            .filter(|link| !hidden.contains(*link) && !matches!(tree.there(link), There::Other))
            .map(Vec::as_slice)
            .collect();
        place.put_file(&fix.entry, name, &copy, &links)?;
        Ok(())
    }
}

/// What a layer was unpacked to.
fn tree(work: &Work, layer: &StoredLayer) -> io::Result<Tree> {
    let root = content_root(&work.storage, layer).ok_or(io::ErrorKind::NotFound)?;
    Ok(Tree::open(
        root,
        &content_folder(work.storage.driver(), layer.id),
    )?)
}
