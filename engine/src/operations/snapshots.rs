//! `snapshots`: the runs of a repository, as people list them.

use super::select::{self, Run};
use super::{OperationResult, SnapshotRow};
use crate::monitor::Monitor;
use crate::repo::Repository;

/// All snapshots, by time; with `host` only those of the host of that name. Needs a full key,
/// and writes nothing.
pub fn snapshots(
    repo: &Repository,
    host: Option<&str>,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<SnapshotRow>> {
    let runs = select::runs(repo, monitor)?;
    let runs = match host {
        Some(host) => select::named_host(&runs, host)?,
        None => runs.iter().collect(),
    };
    Ok(runs.into_iter().map(row).collect())
}

/// A run as it is listed. Its tags, scope and zone stand in each of its items, so that they are
/// known of a run that was cut off, too.
pub fn row(run: &Run) -> SnapshotRow {
    let bodies = || run.items.iter().filter_map(|item| item.body.as_ref());
    SnapshotRow {
        run: run.id,
        time: run.time,
        zone_minutes: bodies().next().map_or(0, |body| body.zone_minutes),
        host: run.host_name.clone(),
        scope_all: bodies().next().is_some_and(|body| body.scope_all),
        complete: run.is_complete(),
        tags: bodies()
            .next()
            .map_or_else(Vec::new, |body| body.tags.clone()),
        bytes_logical: bodies().map(|body| body.bytes_logical).sum(),
        bytes_added: run.record.as_ref().map_or(0, |record| record.bytes_added),
        files: bodies().map(|body| body.files).sum(),
        items: run
            .items
            .iter()
            .map(|item| item.header.item.clone())
            .collect(),
        cut_off: run.record.is_none(),
    }
}
