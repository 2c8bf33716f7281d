//! `import`: takes archives that other tools wrote into a snapshot.
//!
//! It is a backup whose source is the archives, and all of what they hold is selected by name: a
//! run with the scope of a whole host it is not.

use super::backup::backup;
use super::{
    BackupOptions, BackupReport, ImportOptions, OperationError, OperationResult, Selection,
    Selector,
};
use crate::host::{Source, select};
use crate::monitor::Monitor;
use crate::repo::Repository;

/// Imports all that the archives hold. Fails as a whole as a backup does, and when they hold
/// nothing that can be taken.
pub fn import(
    repo: &Repository,
    archives: &dyn Source,
    options: &ImportOptions,
    monitor: &dyn Monitor,
) -> OperationResult<BackupReport> {
    let inventory = archives.inventory()?;
    let selectors: Vec<Selector> = select::everything(&inventory)
        .into_iter()
        .map(|named| Selector {
            item: named.item,
            glob: false,
        })
        .collect();
    if selectors.is_empty() {
        for finding in inventory.findings {
            monitor.finding(finding);
        }
        return Err(OperationError::Refused {
            message: "the archives hold nothing that can be imported".into(),
            hint: "an archive of a volume needs its name: --volume NAME=FILE".into(),
        });
    }
    let options = BackupOptions {
        selection: Selection {
            all: false,
            selectors,
        },
        tags: options.tags.clone(),
        dry_run: options.dry_run,
        threads: options.threads,
        zone_minutes: options.zone_minutes,
        wait: options.wait,
        ..BackupOptions::default()
    };
    backup(repo, archives, &options, monitor)
}
