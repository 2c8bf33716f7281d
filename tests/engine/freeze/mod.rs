//! Backups of volumes whose containers are at rest meanwhile, with a podman that is a script: what is
//! saved, in which order containers rest and go on, and that they do go on whatever happens.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use podkeep_engine::host::Existing;
use podkeep_engine::host::local::LocalHost;
use podkeep_engine::monitor::{Collect, Finding, FindingKind, Monitor, Progress};
use podkeep_engine::operations::{
    BackupOptions, BackupReport, ItemPath, OperationError, OperationResult, RestoreOptions,
    Selection, Selector, SnapSpec, SnapWhich, backup, restore,
};
use podkeep_engine::repo::{Credential, InitOptions, OpenOptions, Repository};
use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::{ObjectStore, StoreErrorKind};
use podkeep_format::id::HostId;
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::snapshot::Consistency;

use crate::mount::Mounted;
use crate::{mktree, oracle};

const VOLUMES: [&str; 3] = ["db", "files", "shared"];

/// What a process of a container does: until it is paused, and as soon as it goes on.
const WRITES: &str = r#"
cat "$D/noise" >> "$V/db/_data/large"
printf last | dd of="$V/db/_data/large" bs=1 seek=1500000 conv=notrunc 2>/dev/null
echo last > "$V/db/_data/small"
rm "$V/files/_data/gone"
mkdir "$V/files/_data/new"; echo last > "$V/files/_data/new/file"
mv "$V/shared/_data/old" "$V/shared/_data/renamed"
cp -a "$V" "$D/expected"
"#;
const WRITES_ON: &str = r#"
for file in db/_data/large db/_data/small files/_data/new/file shared/_data/renamed; do
    printf later | dd of="$V/$file" bs=1 conv=notrunc 2>/dev/null
done
echo later > "$V/files/_data/later"
"#;

struct Bench {
    repo: Repository,
    host: LocalHost,
    scratch: mktree::Scratch,
    /// Of what to make a finding of the run: stops it when a container is paused.
    interrupt: bool,
}

impl Bench {
    fn new(scratch: mktree::Scratch) -> Self {
        Self::with_store(scratch, Arc::new(MemoryStore::new()))
    }

    fn with_store(scratch: mktree::Scratch, store: Arc<dyn ObjectStore>) -> Self {
        let options = InitOptions {
            like: None,
            reserve_bytes: 4096,
            label: "test".into(),
        };
        Repository::init(&*store, b"passphrase", &options).unwrap();
        let options = OpenOptions {
            cache: None,
            host: HostId([1; 16]),
            host_name: "host".into(),
        };
        let credential = Credential::Passphrase(b"passphrase".to_vec().into());
        let repo = Repository::open(store, &credential, &options).unwrap();
        for volume in VOLUMES {
            std::fs::create_dir_all(scratch.join("volumes").join(volume).join("_data")).unwrap();
        }
        // A process of its own writes it: nobody then holds it open for writing when it runs.
        #[expect(clippy::disallowed_methods, reason = "a test installs a script")]
        let installed = std::process::Command::new("install")
            .args([
                "-m",
                "755",
                concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/../tests/engine/freeze/podman.sh"
                ),
            ])
            .arg(scratch.join("podman"))
            .status()
            .unwrap();
        assert!(installed.success());
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", scratch.path().display());
        let environment = [(OsString::from("PATH"), OsString::from(path))];
        let bench = Self {
            host: LocalHost::new(scratch.join("state")).with_podman(&environment),
            repo,
            scratch,
            interrupt: false,
        };
        for id in ["aaa", "bbb"] {
            bench.put(&format!("status-{id}"), "running\n");
        }
        bench.put("calls", "");
        let noise = mktree::noise(7, 300_000);
        std::fs::write(bench.scratch.join("noise"), noise).unwrap();
        let data = |volume: &str, name: &str| bench.data(volume).join(name);
        std::fs::write(data("db", "large"), mktree::noise(1, 3 << 20)).unwrap();
        std::fs::write(data("db", "small"), "first\n").unwrap();
        std::fs::write(data("files", "gone"), "first\n").unwrap();
        std::fs::write(data("shared", "old"), mktree::noise(2, 100_000)).unwrap();
        bench
    }

    fn data(&self, volume: &str) -> PathBuf {
        self.scratch.join("volumes").join(volume).join("_data")
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.scratch.join(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.join(name)).unwrap()
    }

    /// What podman was asked to do to containers.
    fn calls(&self) -> Vec<String> {
        self.text("calls").lines().map(str::to_owned).collect()
    }

    fn back_up(
        &self,
        change: impl FnOnce(&mut BackupOptions),
    ) -> (OperationResult<BackupReport>, Vec<Finding>) {
        let mut options = BackupOptions {
            selection: Selection {
                all: false,
                selectors: VOLUMES.map(selector).to_vec(),
            },
            threads: 2,
            states: Some(self.scratch.join("states")),
            ..BackupOptions::default()
        };
        change(&mut options);
        let monitor = Watching {
            collect: Collect::default(),
            status: self.interrupt.then(|| self.scratch.join("status-bbb")),
            seen: AtomicBool::new(false),
        };
        let report = backup::backup(&self.repo, &self.host, &options, &monitor);
        (report, monitor.collect.findings.into_inner().unwrap())
    }

    fn assert_saved_as(&self, expected: &Path) {
        for volume in VOLUMES {
            let to = self.scratch.join(&format!("restored-{volume}"));
            let options = RestoreOptions {
                items: vec![ItemPath {
                    selector: selector(volume),
                    path: Vec::new(),
                }],
                to_dir: Some(to.clone()),
                existing: Existing::Replace,
                threads: 2,
                ..RestoreOptions::of(SnapSpec {
                    which: SnapWhich::Latest(0),
                    host: None,
                })
            };
            restore::restore(&self.repo, &self.host, &options, &Collect::default()).unwrap();
            let expected = expected.join(volume).join("_data");
            oracle::assert_same(&expected, &to, &oracle::Options::default());
        }
    }

    /// Nothing is frozen, and nothing waits for a thaw.
    fn assert_going(&self) {
        for id in ["aaa", "bbb"] {
            assert_eq!(self.text(&format!("status-{id}")), "running\n");
        }
        let left = std::fs::read_dir(self.scratch.join("state/freeze"));
        let left: Vec<_> = left
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "lock")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Asks for an end as soon as a container is paused.
struct Watching {
    collect: Collect,
    status: Option<PathBuf>,
    seen: AtomicBool,
}

impl Monitor for Watching {
    fn finding(&self, finding: Finding) {
        self.collect.finding(finding);
    }

    fn progress(&self, _: Progress<'_>) {}

    fn interrupted(&self) -> bool {
        let paused = self
            .status
            .as_ref()
            .is_some_and(|path| std::fs::read_to_string(path).unwrap() == "paused\n");
        self.seen.fetch_or(paused, Ordering::Relaxed) || paused
    }
}

fn selector(volume: &str) -> Selector {
    Selector {
        item: Item::new(ItemKind::Volume, volume.as_bytes()),
        glob: false,
    }
}

fn warnings(findings: &[Finding]) -> Vec<&Finding> {
    let warns = |finding: &&Finding| finding.kind.is_warning();
    findings.iter().filter(warns).collect()
}

/// All of a group is as it was at one moment, whatever is written before and after it, and the next
/// backup finds the rest.
fn one_moment(mounted: &Mounted) {
    let bench = Bench::new(mktree::Scratch::inside(mounted.path()));
    bench.put("at-pause", WRITES);
    bench.put("at-unpause", WRITES_ON);
    let (report, findings) = bench.back_up(|_| {});
    let report = report.unwrap();
    assert_eq!(warnings(&findings), Vec::<&Finding>::new());
    assert!(report.complete);
    assert_eq!(bench.calls(), ["pause aaa bbb", "unpause aaa bbb"]);
    for item in &report.items {
        assert_eq!(item.consistency, Consistency::Pause);
        let frozen = item.frozen.unwrap();
        assert!(frozen.seconds > 0.0 && frozen.expected > 0.0);
    }
    bench.assert_saved_as(&bench.scratch.join("expected"));
    bench.assert_going();

    // What was written after the thaw is not lost: the states of the first backup are no lie.
    std::fs::remove_file(bench.scratch.join("at-pause")).unwrap();
    std::fs::remove_file(bench.scratch.join("at-unpause")).unwrap();
    let (report, _) = bench.back_up(|_| {});
    assert!(report.unwrap().complete);
    bench.assert_saved_as(&bench.scratch.join("volumes"));
}

#[test]
fn v_20_a_group_is_saved_as_of_one_moment_on_ext4() {
    one_moment(&Mounted::image("ext4", 100, &[]));
}

#[test]
fn v_20_a_group_is_saved_as_of_one_moment_on_xfs_with_reflinks() {
    one_moment(&Mounted::image("xfs", 400, &["-m", "reflink=1"]));
}

#[test]
fn v_20_a_group_is_saved_as_of_one_moment_on_btrfs() {
    one_moment(&Mounted::image("btrfs", 300, &[]));
}

#[test]
fn v_20_without_a_pause_the_snapshot_says_so() {
    let bench = Bench::new(mktree::Scratch::new());
    let (report, findings) = bench.back_up(|options| options.consistency = Some(Consistency::Live));
    for item in report.unwrap().items {
        assert_eq!((item.consistency, item.frozen), (Consistency::Live, None));
    }
    assert!(warnings(&findings).is_empty());
    assert!(bench.calls().is_empty());
}

#[test]
fn containers_that_cannot_be_paused_are_read_live_and_go_on() {
    let bench = Bench::new(mktree::Scratch::new());
    bench.put("fail-pause", "");
    let (report, findings) = bench.back_up(|_| {});
    let report = report.unwrap();
    assert!(report.complete);
    assert!(
        report
            .items
            .iter()
            .all(|item| item.consistency == Consistency::Live)
    );
    let [finding] = warnings(&findings)[..] else {
        panic!("{findings:?}");
    };
    assert_eq!(finding.kind, FindingKind::Consistency);
    assert_eq!(finding.object, "containers db, web");
    assert!(
        finding.message.contains("cannot pause"),
        "{}",
        finding.message
    );
    bench.assert_saved_as(&bench.scratch.join("volumes"));
    bench.assert_going();
}

#[test]
fn containers_go_on_when_the_run_is_ended() {
    let mut bench = Bench::new(mktree::Scratch::new());
    bench.interrupt = true;
    let (report, _) = bench.back_up(|_| {});
    assert!(
        matches!(report, Err(OperationError::Interrupted)),
        "{report:?}"
    );
    assert_eq!(bench.calls(), ["pause aaa bbb", "unpause aaa bbb"]);
    bench.assert_going();
}

#[test]
fn containers_go_on_when_the_repository_is_full() {
    let effect = Effect::FailBefore(StoreErrorKind::NoSpace);
    let faults = Arc::new(Faults::new(MemoryStore::new()));
    let bench = Bench::with_store(mktree::Scratch::new(), faults.clone());
    faults.plan(Fault::at_write(1, effect).under("packs").lasting());
    // All that is new comes while they are paused, and there is more of it than fits one pack.
    bench.put(
        "at-pause",
        "dd if=/dev/urandom of=$V/db/_data/new bs=1M count=48 2>/dev/null",
    );
    let (report, _) = bench.back_up(|_| {});
    let error = report.unwrap_err();
    assert!(!matches!(error, OperationError::Interrupted), "{error}");
    assert_eq!(bench.calls(), ["pause aaa bbb", "unpause aaa bbb"]);
    bench.assert_going();
}

#[test]
fn containers_go_on_when_they_were_at_rest_for_too_long() {
    let bench = Bench::new(mktree::Scratch::new());
    bench.put("at-pause", "sleep 3");
    let (report, findings) =
        bench.back_up(|options| options.max_freeze = Some(Duration::from_secs(3)));
    let report = report.unwrap();
    assert!(report.complete);
    assert!(
        report
            .items
            .iter()
            .all(|item| item.consistency == Consistency::Live)
    );
    let late = warnings(&findings);
    assert_eq!(late.len(), 3, "{findings:?}");
    for finding in late {
        assert_eq!(finding.kind, FindingKind::Consistency);
        assert!(
            finding.message.contains("--max-freeze"),
            "{}",
            finding.message
        );
    }
    assert_eq!(bench.calls(), ["pause aaa bbb", "unpause aaa bbb"]);
    bench.assert_going();
}

#[test]
fn containers_that_would_be_at_rest_for_too_long_are_left_alone() {
    let bench = Bench::new(mktree::Scratch::new());
    let (report, findings) =
        bench.back_up(|options| options.max_freeze = Some(Duration::from_millis(1)));
    let report = report.unwrap();
    assert!(report.complete);
    for item in &report.items {
        assert_eq!((item.consistency, item.frozen), (Consistency::Live, None));
    }
    let [finding] = warnings(&findings)[..] else {
        panic!("{findings:?}");
    };
    assert_eq!(finding.object, "containers db, web");
    assert!(
        finding.message.contains("longer than --max-freeze"),
        "{}",
        finding.message
    );
    assert!(bench.calls().is_empty());
    bench.assert_saved_as(&bench.scratch.join("volumes"));
}

#[test]
fn what_podman_would_remove_is_paused_and_the_rest_is_stopped() {
    let bench = Bench::new(mktree::Scratch::new());
    bench.put("at-stop", WRITES);
    bench.put("at-start", WRITES_ON);
    let (report, findings) = bench.back_up(|options| options.consistency = Some(Consistency::Stop));
    let report = report.unwrap();
    assert_eq!(warnings(&findings), Vec::<&Finding>::new());
    let note = findings.iter().find(|f| f.object == "container web");
    let note = note.expect("it is told");
    assert!(
        note.message.contains("paused, not stopped"),
        "{}",
        note.message
    );
    // The least that was done to one is what may be said of all.
    assert!(
        report
            .items
            .iter()
            .all(|item| item.consistency == Consistency::Pause)
    );
    let calls = ["stop aaa", "pause bbb", "unpause bbb", "start aaa"];
    assert_eq!(bench.calls(), calls);
    bench.assert_saved_as(&bench.scratch.join("expected"));
    bench.assert_going();
}

const HOOKS: &str = r#"{"io.podkeep.backup.pre":"[\"checkpoint\"]",
    "io.podkeep.backup.post":"go on"}"#;

#[test]
fn commands_of_labels_run_around_the_pause() {
    let bench = Bench::new(mktree::Scratch::new());
    bench.put("labels-aaa", HOOKS);
    let (report, findings) = bench.back_up(|_| {});
    assert!(report.unwrap().complete);
    assert_eq!(warnings(&findings), Vec::<&Finding>::new());
    let calls = [
        "exec aaa checkpoint",
        "pause aaa bbb",
        "unpause aaa bbb",
        "exec aaa /bin/sh -c go on",
    ];
    assert_eq!(bench.calls(), calls);
}

#[test]
fn o_10_without_its_first_command_a_group_is_not_saved_and_the_second_runs_all_the_same() {
    let bench = Bench::new(mktree::Scratch::new());
    bench.put("labels-aaa", HOOKS);
    bench.put("fail-exec", "");
    let (report, findings) = bench.back_up(|_| {});
    let report = report.unwrap();
    assert!(report.run.is_none() && !report.complete);
    assert_eq!(
        bench.calls(),
        ["exec aaa checkpoint", "exec aaa /bin/sh -c go on"]
    );
    for volume in VOLUMES {
        let told = |finding: &&Finding| finding.object == format!("volume:{volume}");
        let finding = findings.iter().find(told).unwrap();
        assert!(
            finding.message.contains("a command in container db"),
            "{}",
            finding.message
        );
    }
    // Unless it asks to be saved all the same.
    bench.put("calls", "");
    let goes_on = HOOKS.replace('{', r#"{"io.podkeep.backup.on-error":"continue","#);
    bench.put("labels-aaa", &goes_on);
    let (report, findings) = bench.back_up(|_| {});
    assert!(report.unwrap().complete);
    assert_eq!(bench.calls().len(), 4);
    assert!(
        warnings(&findings)
            .iter()
            .all(|f| f.kind == FindingKind::Consistency)
    );
    bench.assert_going();
}

#[test]
fn what_a_run_left_frozen_goes_on_with_the_next() {
    let bench = Bench::new(mktree::Scratch::new());
    std::fs::create_dir_all(bench.scratch.join("state/freeze")).unwrap();
    let record = r#"{"format":1,"frozen":[
        {"object":"container db","resume":{"unpause":"aaa"}},
        {"object":"container web","resume":{"start":"bbb"}}]}"#;
    bench.put("state/freeze/0123.json", record);
    bench.put("status-aaa", "paused\n");
    bench.put("status-bbb", "exited\n");
    let (report, findings) = bench.back_up(|options| options.consistency = Some(Consistency::Live));
    assert!(report.unwrap().complete);
    assert_eq!(bench.calls(), ["unpause aaa", "start bbb"]);
    let note = findings
        .iter()
        .find(|f| f.object == "container db, container web");
    assert_eq!(note.unwrap().kind, FindingKind::Note);
    bench.assert_going();
}
