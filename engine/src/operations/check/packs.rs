//! Packs: there, long enough, and with `--read-data` every byte of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use podkeep_format::endorsement::{Endorsement, endorsement_id};
use podkeep_format::frame::Statement;
use podkeep_format::id::{ChunkId, PackId};
use podkeep_format::names;
use podkeep_format::pack::{
    PACK_BYTES_MAX, PackHeader, PackTail, TRAILER_TAIL_BYTES, open_toc_tail,
};
use podkeep_format::segment::{BlockPlace, Place};
use rayon::prelude::*;

use super::Check;
use super::around::{Rebuilt, rebuilt};
use crate::monitor::Progress;
use crate::operations::{OperationError, OperationResult};
use crate::repo::listed;
use crate::repo::reader::{Reader, is_fatal, place_name};
use crate::repo::{RepoError, Repository, name, now, random};
use crate::store::StoreErrorKind;

/// Places that were read and are not what the index says.
pub(super) type BadPlaces = HashSet<Place>;

impl Check<'_> {
    /// Counts packs and names those that are too short; returns those that segments name and
    /// that are missing.
    pub(super) fn pack_sizes(&mut self, reader: &Reader) -> OperationResult<Vec<PackId>> {
        let sizes: HashMap<PackId, u64> = self
            .repo
            .store()
            .list("packs")?
            .iter()
            .filter_map(|meta| Some((listed::pack(meta.name.as_str())?, meta.size)))
            .collect();
        self.report.packs = sizes.len() as u64;
        let mut ends: BTreeMap<PackId, u64> = BTreeMap::new();
        let mut chunks = 0;
        reader.index().for_each(&mut |_, place| {
            let known = ends.entry(place.block.pack).or_default();
            *known = place.block.end().max(*known);
            chunks += 1;
        });
        self.report.chunks = chunks;
        let mut missing = Vec::new();
        for (pack, end) in ends {
            match sizes.get(&pack) {
                None => missing.push(pack),
                Some(size) if *size < end => self.damage(
                    names::pack(pack),
                    format!("it is cut short: {size} bytes, at least {end} are needed"),
                ),
                Some(_) => {}
            }
        }
        Ok(missing)
    }

    /// Prune deletes packs before it replaces the segments that name them, and a writer that was
    /// taken for dead names packs that are gone: a missing pack is damage only where something
    /// that counts is lost with it.
    pub(super) fn report_missing(&mut self, packs: Vec<PackId>, needed: &BTreeSet<PackId>) {
        for pack in packs {
            if needed.contains(&pack) {
                self.damage(names::pack(pack), "it is missing".into());
            } else {
                self.note(
                    names::pack(pack),
                    "it is missing, and no snapshot that counts needs it".into(),
                );
            }
        }
    }

    /// Reads `percent` of the packs whole; returns the places that are bad.
    pub(super) fn read_packs(
        &mut self,
        reader: &Reader,
        percent: u8,
    ) -> OperationResult<BadPlaces> {
        let mut by_pack: BTreeMap<PackId, BTreeMap<BlockPlace, Vec<(ChunkId, Place)>>> =
            BTreeMap::new();
        reader.index().for_each(&mut |id, place| {
            // A share of the packs that differs from run to run would need memory of what was
            // read; the names are uniform, so a share of them is a fair sample.
            if u32::from(place.block.pack.0[31]) * 100 < u32::from(percent) * 256 {
                by_pack
                    .entry(place.block.pack)
                    .or_default()
                    .entry(place.block)
                    .or_default()
                    .push((id, place));
            }
        });
        let packs: Vec<_> = by_pack.into_iter().collect();
        let mut bad = BadPlaces::new();
        for group in packs.chunks(8) {
            if self.monitor.interrupted() {
                return Err(OperationError::Interrupted);
            }
            let checked: Vec<_> = group
                .par_iter()
                .map(|(pack, blocks)| read_pack(reader, self.repo, *pack, blocks))
                .collect();
            for ((pack, _), result) in group.iter().zip(checked) {
                let result = result?;
                self.report.packs_read += 1;
                self.monitor.progress(Progress::Advance {
                    files: 1,
                    bytes: result.bytes,
                });
                match (result.cause, result.right) {
                    (Some(cause), Some(right)) => self.mend_pack(*pack, cause, &right)?,
                    (Some(cause), None) => self.damage(names::pack(*pack), cause),
                    (None, _) => {}
                }
                bad.extend(result.bad);
            }
        }
        Ok(bad)
    }

    /// Puts the right bytes of a pack in the place of the damaged ones.
    fn mend_pack(&mut self, pack: PackId, cause: String, right: &[u8]) -> OperationResult<()> {
        let object = names::pack(pack);
        match self.repo.store().replace(&name(&object)?, right) {
            Ok(()) => self.healed(object, format!("{cause}; it was put right")),
            // Everything in it can be read.
            Err(error) => self.damage(object, format!("{cause}; it cannot be put right: {error}")),
        }
        Ok(())
    }

    /// Reads everything that segments of write keys name, rebuilds the layers of their records,
    /// and endorses those that hold.
    pub(super) fn endorse(&mut self, reader: &Reader) -> OperationResult<()> {
        let owner = self.repo.config().owner;
        let endorsed = self.repo.endorsed(self.monitor)?;
        let mut good = Vec::new();
        for foreign in reader.index().segments_of_others(owner) {
            let id = foreign.id;
            if endorsed.segments.contains(&id) {
                continue;
            }
            let mut blocks: BTreeMap<BlockPlace, Vec<(ChunkId, Place)>> = BTreeMap::new();
            for (id, place) in foreign.entries {
                blocks.entry(place.block).or_default().push((id, place));
            }
            let mut cause = None;
            for (block, chunks) in &blocks {
                let (bad, why) = read_block(reader, block, chunks)?;
                if !bad.is_empty() {
                    cause = why;
                    break;
                }
            }
            match cause {
                None => good.push(id),
                Some(cause) => self.damage(
                    names::segment(id),
                    format!(
                        "not endorsed: author {} named what is not there: {cause}",
                        foreign.author
                    ),
                ),
            }
        }
        let layers = self.layers_that_hold(reader)?;
        if good.is_empty() && layers.is_empty() {
            return Ok(());
        }
        good.sort_unstable();
        let statement = Endorsement {
            author: owner,
            segments: good,
            layers,
            time: now(),
        };
        let bytes = statement
            .seal(
                self.repo.id(),
                &self.repo.vault().index,
                self.repo.author(),
                &random()?,
            )
            .map_err(|e| RepoError::damaged("the endorsement", e))?;
        self.repo
            .put(&names::endorsement(endorsement_id(&bytes)), &bytes)?;
        Ok(())
    }
}

struct PackResult {
    bytes: u64,
    cause: Option<String>,
    /// What its bytes have to be, where they can be told.
    right: Option<Vec<u8>>,
    bad: Vec<Place>,
}

fn read_pack(
    reader: &Reader,
    repo: &Repository,
    pack: PackId,
    blocks: &BTreeMap<BlockPlace, Vec<(ChunkId, Place)>>,
) -> Result<PackResult, RepoError> {
    let mut result = PackResult {
        bytes: 0,
        cause: None,
        right: None,
        bad: Vec::new(),
    };
    let mut changed = None;
    match repo.store().get(&name(names::pack(pack))?, PACK_BYTES_MAX) {
        Ok(bytes) => {
            result.bytes = bytes.len() as u64;
            if *blake3::hash(&bytes).as_bytes() != pack.0 {
                result.cause = Some("its bytes do not hash to its name".into());
                changed = Some(bytes);
            }
        }
        Err(error) if error.kind == StoreErrorKind::Unreachable => return Err(error.into()),
        // Reported with the sizes already.
        Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(result),
        Err(error) => result.cause = Some(error.to_string()),
    }
    for (block, chunks) in blocks {
        let (bad, cause) = read_block(reader, block, chunks)?;
        if !bad.is_empty() {
            result.bad.extend(bad);
            result.cause = result.cause.or(cause);
        }
    }
    if let Some(cause) = &mut result.cause
        && result.bad.is_empty()
    {
        let ends = blocks.keys().map(BlockPlace::end);
        let rebuilt = changed
            .as_ref()
            .and_then(|bytes| rebuilt(pack, bytes, ends.max()?));
        match (rebuilt, changed) {
            (Some(Rebuilt { hit, bytes }), _) => {
                cause.push_str(&format!(" ({hit})"));
                result.right = Some(bytes);
            }
            (None, changed) => {
                if let Some(bytes) = changed {
                    let hit = what_is_hit(repo, &bytes);
                    cause.push_str(&format!(" ({hit})"));
                }
                cause.push_str("; everything in it can still be read");
            }
        }
    }
    Ok(result)
}

/// What of a pack is damaged that cannot be put right, when none of the blocks is that the index names.
fn what_is_hit(repo: &Repository, bytes: &[u8]) -> &'static str {
    let start = bytes.len().saturating_sub(TRAILER_TAIL_BYTES);
    let Ok(tail) = PackTail::decode(bytes.len() as u64, &bytes[start..]) else {
        return "its trailer is damaged";
    };
    let toc_start = tail.toc_position as usize;
    let (header, rest) = bytes.split_at(toc_start);
    let (toc, copy) = rest.split_at(tail.toc_len);
    let opens = |header: &[u8]| {
        PackHeader::decode(header).is_ok_and(|(header, _)| {
            let position = tail.toc_position;
            let index = &repo.vault().index;
            open_toc_tail(repo.id(), index, &header, position, toc.to_vec()).is_ok()
        })
    };
    if !opens(header) && !opens(copy) {
        return "its table of contents or its trailer is damaged";
    }
    "bytes outside the blocks that the index names are damaged"
}

/// The places of a block that do not hold what the index says, and why.
fn read_block(
    reader: &Reader,
    block: &BlockPlace,
    chunks: &[(ChunkId, Place)],
) -> Result<(Vec<Place>, Option<String>), RepoError> {
    let all = || chunks.iter().map(|(_, place)| *place).collect();
    let open = match reader.read_block(block) {
        Ok(open) => open,
        Err(error) if is_fatal(&error) => return Err(error),
        Err(error) => return Ok((all(), Some(error.to_string()))),
    };
    let mut bad = Vec::new();
    for (id, place) in chunks {
        let start = open.data_start + place.offset as usize;
        let found = open
            .chunks
            .iter()
            .find(|(_, range)| range.start == start && range.len() == place.len as usize);
        let good = found.is_some_and(|(kind, _)| reader.slice(&open, *kind, *id, place).is_ok());
        if !good {
            bad.push(*place);
        }
    }
    let cause = (!bad.is_empty())
        .then(|| format!("{} does not hold what the index says", place_name(block)));
    Ok((bad, cause))
}
