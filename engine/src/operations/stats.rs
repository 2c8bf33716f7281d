//! `stats`: what takes the room.

use super::select;
use super::{OperationResult, StatsReport};
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::repo::index::Index;

/// Adds up what the store lists and what the index says. `bytes_logical` is the size of all files
/// of all snapshots; `chunks_bytes` what their chunks hold before compression.
pub fn stats(repo: &Repository, monitor: &dyn Monitor) -> OperationResult<StatsReport> {
    let runs = select::runs(repo, monitor)?;
    let mut report = StatsReport {
        snapshots: runs.len() as u64,
        ..StatsReport::default()
    };
    for item in runs.iter().flat_map(|run| &run.items) {
        report.items += 1;
        report.bytes_logical += item.body.as_ref().map_or(0, |body| body.bytes_logical);
    }
    for meta in repo.store().list("")? {
        let folder = meta.name.as_str().split('/').next().unwrap_or_default();
        match folder {
            "packs" => {
                report.packs += 1;
                report.packs_bytes += meta.size;
            }
            "index" => {
                report.segments += 1;
                report.segments_bytes += meta.size;
            }
            "snapshots" | "runs" => report.snapshots_bytes += meta.size,
            "reserve" => report.reserve_bytes += meta.size,
            _ => report.other_bytes += meta.size,
        }
    }
    Index::load(repo, monitor)?.for_each(&mut |_, place| {
        report.chunks += 1;
        report.chunks_bytes += u64::from(place.len);
    });
    Ok(report)
}
