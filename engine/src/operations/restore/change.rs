//! Bringing a tree that was restored from one snapshot to what a later snapshot of it holds, where it
//! lies: only what is otherwise is read and written.

use podkeep_format::id::TreeId;

use super::applier::Applier;
use super::walk::Walk;
use super::{PlannedItem, plan_items, restore_item};
use crate::fs::WriteOutcome;
use crate::host::{Existing, HostError, Target};
use crate::monitor::Monitor;
use crate::operations::walk::{Place, entry_at};
use crate::operations::{OperationResult, RestoreOptions, RestoreReport};
use crate::repo::reader::Reader;
use crate::repo::{Repository, StoredSnapshot};

/// Writes the trees of one snapshot of each item.
pub(in crate::operations) struct Changing<'a> {
    pub repo: &'a Repository,
    pub reader: &'a Reader,
    pub target: &'a dyn Target,
    pub options: &'a RestoreOptions,
    /// Time matters: places that were changed before are not looked at again.
    pub in_haste: bool,
    pub monitor: &'a dyn Monitor,
}

impl Changing<'_> {
    fn planned(&self, snapshot: StoredSnapshot) -> OperationResult<Option<PlannedItem>> {
        let chosen = vec![(snapshot, Vec::new())];
        let items = plan_items(self.reader, self.options, chosen, self.monitor)?;
        Ok(items.into_iter().next())
    }

    /// Makes the tree at the item's place, which is that of `old`, the snapshot's. `None`: it cannot
    /// be changed there, and is now neither.
    pub fn change(
        &self,
        snapshot: StoredSnapshot,
        old: TreeId,
    ) -> OperationResult<Option<WriteOutcome>> {
        let Some(planned) = self.planned(snapshot)? else {
            return Ok(Some(WriteOutcome::default()));
        };
        let Some(entry) = &planned.entry else {
            return Ok(Some(WriteOutcome::default()));
        };
        let place = Place {
            snapshot: planned.run.clone(),
            item: &planned.item,
        };
        let Some(old) = entry_at(self.reader, &place, old, b"", self.monitor)? else {
            return Ok(None);
        };
        let mut request = planned.request(self.repo, self.options)?;
        request.existing = Existing::Change;
        request.is_known = self.in_haste;
        let text = planned.item.to_string();
        let mut writer = self.target.open(&request)?;
        let whole = std::thread::scope(|scope| {
            let applier = Applier::start(scope, &mut *writer);
            Walk::new(
                self.reader,
                applier,
                &text,
                &planned.run,
                request.threads,
                self.monitor,
            )
            .run_changes(&old, entry)
        })?;
        if !whole {
            return Ok(None);
        }
        let (outcome, findings) = writer.finish().map_err(HostError::from)?;
        for finding in findings {
            self.monitor.finding(finding);
        }
        Ok(Some(outcome))
    }

    /// Puts the snapshot's tree in the place of what is there.
    pub fn replace(&self, snapshot: StoredSnapshot) -> OperationResult<RestoreReport> {
        let mut report = RestoreReport::default();
        if let Some(planned) = self.planned(snapshot)? {
            let mut request = planned.request(self.repo, self.options)?;
            request.existing = Existing::Replace;
            restore_item(
                self.reader,
                self.target,
                &planned,
                &request,
                self.options.wait,
                self.monitor,
                &mut report,
            )?;
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::host::local::LocalHost;
    use crate::monitor::Collect;
    use crate::operations::backup::backup;
    use crate::operations::restore::restore;
    use crate::operations::{
        BackupOptions, ItemPath, Selection, Selector, SnapSpec, SnapWhich, reading, select,
    };
    use crate::repo::{Credential, InitOptions, OpenOptions};
    use crate::store::memory::MemoryStore;
    use podkeep_format::id::HostId;
    use podkeep_format::item::{Item, ItemKind};

    /// What can be told of a tree: of each path its kind, mode, time, and content or target.
    fn tree(root: &Path) -> BTreeMap<String, (u32, i64, i64, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut open = vec![root.to_path_buf()];
        while let Some(path) = open.pop() {
            let stat = path.symlink_metadata().unwrap();
            let content = if stat.is_dir() {
                open.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                Vec::new()
            } else if stat.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                blake3::hash(&fs::read(&path).unwrap()).as_bytes().to_vec()
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let seen = (stat.mode(), stat.mtime(), stat.mtime_nsec(), content);
            found.insert(name, seen);
        }
        found
    }

    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(&[seed])
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn make(root: &Path) {
        for folder in ["same/deep", "gone/deep", "was-dir", "kept"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("large"), noise(9 << 20, 1)).unwrap();
        fs::write(root.join("same/deep/file"), noise(70_000, 2)).unwrap();
        fs::write(root.join("gone/deep/file"), "x").unwrap();
        fs::write(root.join("was-dir/file"), "x").unwrap();
        fs::write(root.join("was-file"), "x").unwrap();
        fs::write(root.join("shrinks"), noise(300_000, 3)).unwrap();
        fs::write(root.join("kept/mode"), "m").unwrap();
        // As a database turns its oldest logs into the ones to come.
        for (number, name) in ["logs/01", "logs/02", "logs/03", "logs/later"]
            .iter()
            .enumerate()
        {
            fs::create_dir_all(root.join("logs")).unwrap();
            fs::write(root.join(name), noise(3 << 20, 10 + number as u8)).unwrap();
        }
        symlink("large", root.join("link")).unwrap();
    }

    fn alter(root: &Path) {
        let large = File::options()
            .write(true)
            .open(root.join("large"))
            .unwrap();
        large.write_all_at(b"in the middle", 4 << 20).unwrap();
        large.write_all_at(b"and longer", 9 << 20).unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("was-dir")).unwrap();
        fs::write(root.join("was-dir"), "a file").unwrap();
        fs::remove_file(root.join("was-file")).unwrap();
        fs::create_dir(root.join("was-file")).unwrap();
        fs::write(root.join("was-file/below"), "x").unwrap();
        fs::write(root.join("shrinks"), noise(1000, 3)).unwrap();
        let mode = fs::Permissions::from_mode(0o604);
        fs::set_permissions(root.join("kept/mode"), mode).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        symlink("elsewhere", root.join("link")).unwrap();
        for (old, new) in [("01", "04"), ("02", "05"), ("03", "03-kept")] {
            fs::rename(root.join("logs").join(old), root.join("logs").join(new)).unwrap();
        }
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(root.join("logs/05"), mode).unwrap();
        fs::write(root.join("logs/06"), noise(100_000, 20)).unwrap();
        fs::create_dir_all(root.join("new/deep")).unwrap();
        fs::write(root.join("new/deep/file"), noise(200_000, 4)).unwrap();
    }

    #[test]
    fn a_restored_tree_is_brought_to_a_later_snapshot_by_what_is_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
        make(&source);
        let store = Arc::new(MemoryStore::new());
        let init = InitOptions {
            like: None,
            reserve_bytes: 0,
            label: String::new(),
        };
        Repository::init(&*store, b"p", &init).unwrap();
        let credential = Credential::Passphrase(b"p".to_vec().into());
        let open = OpenOptions {
            cache: None,
            host: HostId([1; 16]),
            host_name: "here".into(),
        };
        let repo = Repository::open(store, &credential, &open).unwrap();
        let host = LocalHost::new(folder.path().join("state"));
        let heard = Collect::default();
        let selector = Selector {
            item: Item::new(ItemKind::Path, source.as_os_str().as_encoded_bytes()),
            glob: false,
        };
        let saved = || {
            let options = BackupOptions {
                selection: Selection {
                    all: false,
                    selectors: vec![selector.clone()],
                },
                ..BackupOptions::default()
            };
            backup(&repo, &host, &options, &heard).unwrap()
        };
        let options = |run: String| RestoreOptions {
            items: vec![ItemPath {
                selector: selector.clone(),
                path: Vec::new(),
            }],
            to_dir: Some(copy.clone()),
            threads: 2,
            ..RestoreOptions::of(SnapSpec {
                which: SnapWhich::Prefix(run),
                host: None,
            })
        };
        let first = saved();
        let run = options(first.run.unwrap().to_hex());
        restore(&repo, &host, &run, &heard).unwrap();
        let same = fs::metadata(copy.join("same/deep/file")).unwrap().ino();
        let large = fs::metadata(copy.join("large")).unwrap().ino();
        let inode = |path: &str| fs::metadata(copy.join(path)).unwrap().ino();
        let logs = ["logs/01", "logs/02", "logs/03"].map(inode);

        let change = |old: TreeId| {
            let report = saved();
            let options = options(report.run.unwrap().to_hex());
            let reader = reading::reader(&repo, &heard).unwrap();
            let found = select::resolve(&repo, &options.snapshot, &options.items, &heard);
            let (snapshot, _) = found.unwrap().1.remove(0);
            let changing = Changing {
                repo: &repo,
                reader: &reader,
                target: &host,
                options: &options,
                in_haste: false,
                monitor: &heard,
            };
            (changing.change(snapshot, old).unwrap(), report)
        };
        alter(&source);
        let (changed, second) = change(first.items[0].root.unwrap());
        assert_eq!(tree(&copy), tree(&source));
        // Of the large file only the blocks of what was written.
        let written = changed.unwrap().bytes_written;
        assert!(written < 350_000, "{written} bytes");
        assert_eq!(
            ["logs/04", "logs/05", "logs/03-kept"].map(inode),
            logs,
            "moved"
        );
        assert_eq!(
            fs::metadata(copy.join("same/deep/file")).unwrap().ino(),
            same
        );
        assert_eq!(fs::metadata(copy.join("large")).unwrap().ino(), large);

        // Names elsewhere may be of the same file.
        fs::hard_link(source.join("large"), source.join("kept/large")).unwrap();
        let (changed, _) = change(second.items[0].root.unwrap());
        assert_eq!(changed, None);
        assert_eq!(
            heard.findings.lock().unwrap().len(),
            0,
            "{:?}",
            heard.findings
        );
    }
}
