//! The source's side of a migration: the passes, which are backups, and coming back.

use std::path::Path;
use std::sync::Arc;

use podkeep_format::id::SnapshotId;
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::snapshot::Consistency;
use zeroize::Zeroizing;

use super::scope::Scope;
use super::state::{Folder, Near};
use super::{MigrateOptions, SideHost, Sides, Watch};
use crate::fs::scan::KnownContents;
use crate::host::{HostError, Inventory, OpenItem, ScanRequest, Source};
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::operations::backup::backup;
use crate::operations::{
    BackupOptions, BackupReport, OperationError, OperationResult, Selection, Selector,
};
use crate::repo::{Credential, InitOptions, OpenOptions, Repository, random};
use crate::store::StoreErrorKind;

const CACHE: &str = "cache";
const STATES: &str = "states";

/// The key of a staging repository: 256 random bits.
pub(super) fn new_key() -> OperationResult<String> {
    let bytes: [u8; 32] = random()?;
    Ok(podkeep_format::id::hex(&bytes))
}

/// Opens the staging repository from the source's side; `make`: makes it if need be.
pub(super) fn open_staging(
    sides: &Sides<'_>,
    folder: &Folder,
    near: &Near,
    repository: &str,
    make: bool,
) -> OperationResult<Repository> {
    let path = Path::new(repository);
    let store = match sides.road.store(path, false) {
        Err(OperationError::Store(error)) if make && error.kind == StoreErrorKind::NotFound => {
            sides.road.store(path, true)?
        }
        other => other?,
    };
    let key = Zeroizing::new(near.key.as_bytes().to_vec());
    let options = OpenOptions {
        cache: Some(folder.path.join(CACHE)),
        host: sides.host,
        host_name: sides.host_name.clone(),
    };
    let open = |store| Repository::open(store, &Credential::Passphrase(key.clone()), &options);
    match open(Arc::clone(&store)) {
        Err(crate::repo::RepoError::NoRepository { .. }) if make => {
            let init = InitOptions {
                like: None,
                reserve_bytes: 0,
                label: "migrate".into(),
            };
            Repository::init(&*store, &key, &init)?;
            Ok(open(store)?)
        }
        other => Ok(other?),
    }
}

/// What a selection means on the source.
pub(super) fn selected(
    sides: &Sides<'_>,
    inventory: &Inventory,
    selection: &Selection,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<Item>> {
    let narrow = Narrow {
        source: sides.source,
        inventory,
        definitions_only: false,
    };
    let items = super::super::backup::selected(&narrow, selection, monitor)?;
    Ok(items)
}

/// A unit that starts a container which is there is not one that makes it: its files name the
/// container's ID.
pub(super) fn require_own_units(source: &dyn SideHost, scope: &Scope) -> OperationResult<()> {
    let names = scope.running.iter();
    let names: Vec<String> = names
        .filter(|name| !scope.by_unit.contains(name))
        .cloned()
        .collect();
    let in_units = source.in_units(&names)?;
    if in_units.is_empty() {
        return Ok(());
    }
    let systemctl = match source.about()?.rootful {
        true => "systemctl",
        false => "systemctl --user",
    };
    let conflicts = in_units.into_iter().map(|(name, unit)| {
        format!(
            "container {name} is started by the unit {unit}, which is not moved: {systemctl} disable \
             --now {unit}, podman start {name}"
        )
    });
    Err(OperationError::Conflicts {
        conflicts: conflicts.collect(),
    })
}

/// The passes of one migration.
pub(super) struct Passes<'a> {
    pub source: &'a dyn SideHost,
    /// Takes the definitions that are looked at before anything is sent.
    pub staging: &'a Repository,
    /// Takes what is moved: the same one, or that of `--via`.
    pub repo: &'a Repository,
    /// Taken once: asking Podman again takes time that the last pass has not.
    pub inventory: &'a Inventory,
    pub options: &'a MigrateOptions,
    pub watch: &'a dyn Watch,
    /// Each pass tells the next one how large files were cut.
    pub known: Arc<KnownContents>,
}

impl Passes<'_> {
    /// Stores definitions alone; the run's id, in hex.
    pub fn definitions(&self, items: &[Item]) -> OperationResult<String> {
        if items.is_empty() {
            return Ok(String::new());
        }
        let report = self.backup(items, true, &Quiet(self.watch))?;
        self.require_whole(&report, |_| true)?;
        Ok(report.run.map(|run| run.to_hex()).unwrap_or_default())
    }

    /// What is found in volumes while the source runs does not count: they are read again.
    pub fn run(&self, items: &[Item], at_rest: bool) -> OperationResult<BackupReport> {
        let report = match at_rest {
            true => self.backup(items, false, self.watch)?,
            false => self.backup(items, false, &Quiet(self.watch))?,
        };
        self.require_whole(&report, |item| at_rest || item.kind != ItemKind::Volume)?;
        Ok(report)
    }

    fn backup(
        &self,
        items: &[Item],
        definitions_only: bool,
        monitor: &dyn Monitor,
    ) -> OperationResult<BackupReport> {
        let narrow = Narrow {
            source: self.source,
            inventory: self.inventory,
            definitions_only,
        };
        let repo = match definitions_only {
            true => self.staging,
            false => self.repo,
        };
        let selectors = items.iter().map(|item| Selector {
            item: item.clone(),
            glob: false,
        });
        let options = BackupOptions {
            selection: Selection {
                all: false,
                selectors: selectors.collect(),
            },
            only: true,
            zone_minutes: self.options.zone_minutes,
            states: repo.cache_folder().map(|folder| folder.join(STATES)),
            wait: self.options.wait,
            consistency: Some(Consistency::Live),
            known: Some(Arc::clone(&self.known)),
            ..BackupOptions::default()
        };
        backup(repo, &narrow, &options, monitor)
    }

    fn require_whole(
        &self,
        report: &BackupReport,
        counts: impl Fn(&Item) -> bool,
    ) -> OperationResult<()> {
        let odd = report
            .items
            .iter()
            .find(|one| !one.complete && counts(&one.item));
        let Some(odd) = odd else {
            return Ok(());
        };
        let why = odd.failure.clone();
        Err(OperationError::Refused {
            message: format!(
                "{} cannot be read completely{}",
                odd.item,
                why.map(|why| format!(": {why}")).unwrap_or_default()
            ),
            hint: format!("podkeep backup {} says more", odd.item),
        })
    }
}

/// A source whose inventory is known, and that nobody thaws.
struct Narrow<'a> {
    source: &'a dyn SideHost,
    inventory: &'a Inventory,
    definitions_only: bool,
}

impl Source for Narrow<'_> {
    fn inventory(&self) -> Result<Inventory, HostError> {
        Ok(self.inventory.clone())
    }

    fn open(&self, request: &ScanRequest) -> Result<OpenItem, HostError> {
        let mut opened = Source::open(self.source, request)?;
        // The files of a unit are what stands in the way of one.
        if self.definitions_only && request.item.kind != ItemKind::Unit {
            opened.tree = None;
        }
        Ok(opened)
    }

    fn published(&self, request: &ScanRequest, snapshot: SnapshotId) -> Result<(), HostError> {
        match self.definitions_only {
            true => Ok(()),
            false => self.source.published(request, snapshot),
        }
    }
}

/// What is found does not count.
struct Quiet<'m>(&'m dyn Watch);

impl Monitor for Quiet<'_> {
    fn finding(&self, _: Finding) {}

    fn progress(&self, progress: Progress<'_>) {
        if !matches!(progress, Progress::ItemDone { .. }) {
            self.0.progress(progress);
        }
    }

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}

pub(super) fn warning(object: &str, message: String) -> Finding {
    Finding {
        kind: FindingKind::NotRestored,
        ..note(object, message)
    }
}

pub(super) fn note(object: &str, message: String) -> Finding {
    Finding {
        object: object.to_owned(),
        kind: FindingKind::Note,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message,
    }
}
