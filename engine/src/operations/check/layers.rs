//! Layer records: what they say must be so wherever a writer relies on it.
//!
//! A record that cannot be read, or that lists chunks which are gone, is not believed by anybody,
//! and costs no more than reading its layer again. One that counts and says what is not so would
//! cost the layer itself.

use std::collections::BTreeSet;

use podkeep_format::id::{LayerKey, LayerRecordId};
use podkeep_format::layer::LayerRecord;
use podkeep_format::names;

use super::Check;
use crate::operations::{OperationError, OperationResult};
use crate::repo::reader::{Reader, is_fatal};
use crate::repo::{RepoError, RepoResult, listed};
use crate::store::StoreErrorKind;

impl Check<'_> {
    /// Compares the records that count with the recipes that they name.
    pub(super) fn layers(&mut self, reader: &Reader) -> OperationResult<()> {
        for (layer, id) in self.layer_names()? {
            let object = names::layer(layer, id);
            let record = match self.repo.layer_record(layer, id) {
                Ok(record) => record,
                Err(error) if is_fatal(&error) => return Err(error.into()),
                // Prune deleted it meanwhile.
                Err(RepoError::Store(error)) if error.kind == StoreErrorKind::NotFound => continue,
                Err(error) => {
                    self.note(object, format!("{error}; its layer is read without it"));
                    continue;
                }
            };
            if !has_all(reader, &record) {
                self.note(
                    object,
                    "a chunk that it lists is gone; it is not used".into(),
                );
                continue;
            }
            if reader.index().trust().covers_layer(&id, record.author) {
                match self.is_true(reader, &record) {
                    Ok(()) => {}
                    Err(error) if is_fatal(&error) => return Err(error.into()),
                    Err(error) => self.damage(object, error.to_string()),
                }
            }
        }
        Ok(())
    }

    /// Rebuilds the layers of records that do not count yet; those that hold.
    pub(super) fn layers_that_hold(
        &mut self,
        reader: &Reader,
    ) -> OperationResult<Vec<LayerRecordId>> {
        let mut good = Vec::new();
        for (layer, id) in self.layer_names()? {
            // What cannot be read or is not complete has been told.
            let record = match self.repo.layer_record(layer, id) {
                Ok(record) => record,
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(_) => continue,
            };
            let counts = reader.index().trust().covers_layer(&id, record.author);
            if counts || !has_all(reader, &record) {
                continue;
            }
            let held = self
                .is_true(reader, &record)
                .and_then(|()| self.rebuilds(reader, &record));
            match held {
                Ok(()) => good.push(id),
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => self.damage(
                    names::layer(layer, id),
                    format!(
                        "not endorsed: what author {} says of a layer is not so: {error}",
                        record.author
                    ),
                ),
            }
        }
        good.sort_unstable();
        Ok(good)
    }

    fn layer_names(&self) -> OperationResult<Vec<(LayerKey, LayerRecordId)>> {
        let listed = self.repo.store().list("layers")?;
        if self.monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        Ok(listed
            .iter()
            .filter_map(|meta| listed::layer(meta.name.as_str()))
            .collect())
    }

    /// Whether a record says of its recipe what is so: the layer, its size, and what it needs.
    fn is_true(&self, reader: &Reader, record: &LayerRecord) -> RepoResult<()> {
        if self.monitor.interrupted() {
            return Err(RepoError::Interrupted);
        }
        let recipe = reader.recipe_of_file(record.recipe, record.size)?;
        let wrong = |cause: &str| RepoError::Damaged {
            object: format!("recipe {}", record.recipe),
            cause: cause.into(),
        };
        if self.repo.vault().ids.layer_key(&recipe.diff_id) != record.layer {
            return Err(wrong("it is of another layer than its record says"));
        }
        let mut needed = BTreeSet::from([record.recipe]);
        reader.recipe_chunks(&recipe, &mut |_, id| -> RepoResult<()> {
            needed.insert(id);
            Ok(())
        })?;
        if !needed.iter().eq(&record.chunks) {
            return Err(wrong("it needs other chunks than its record says"));
        }
        Ok(())
    }

    fn rebuilds(&self, reader: &Reader, record: &LayerRecord) -> RepoResult<()> {
        let recipe = reader.recipe(record.recipe)?;
        reader.rebuild(&recipe, &mut |_| match self.monitor.interrupted() {
            true => Err(RepoError::Interrupted),
            false => Ok(()),
        })
    }
}

/// Whether all that a record lists lies in packs that are there.
fn has_all(reader: &Reader, record: &LayerRecord) -> bool {
    let index = reader.index();
    record.chunks.iter().all(|id| {
        let places = index.places(id);
        places.iter().any(|place| index.is_there(&place.block.pack))
    })
}
