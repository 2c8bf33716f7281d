//! Items that are made up by their definitions: what `ls`, `dump` and `diff` show of them, and that
//! nothing shares a block with them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use podkeep_engine::host::{
    ContainerFacts, HostError, Inventory, OpenItem, ScanRequest, SecretFacts, Source, VolumeFacts,
};
use podkeep_engine::monitor::{Collect, Finding, FindingKind};
use podkeep_engine::operations::diff::{After, diff};
use podkeep_engine::operations::{
    BackupOptions, BackupReport, ItemPath, OperationResult, Selection, Selector, SnapSpec,
    SnapWhich, backup, dump, ls,
};
use podkeep_engine::repo::Repository;
use podkeep_engine::store::ObjectStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::id::SnapshotId;
use podkeep_format::item::{Item, ItemKind};
use serde_json::{Value, json};

use super::{init, open};

/// "hunter2-and-more" and its base64.
const SECRET: &str = "hunter2-and-more";
const CODED: &str = "aHVudGVyMi1hbmQtbW9yZQ==";

fn item(text: &str) -> Item {
    let (kind, name) = text.split_once(':').unwrap();
    Item::new(ItemKind::from_word(kind).unwrap(), name)
}

fn latest() -> SnapSpec {
    SnapSpec {
        which: SnapWhich::Latest(0),
        host: None,
    }
}

fn at(named: &str, path: &str) -> ItemPath {
    ItemPath {
        selector: Selector {
            item: item(named),
            glob: false,
        },
        path: path.as_bytes().to_vec(),
    }
}

/// A host whose items have definitions and no files.
#[derive(Default)]
struct Host {
    definitions: Mutex<BTreeMap<Item, Value>>,
    unlisted: Vec<Finding>,
}

impl Host {
    fn new() -> Self {
        let host = Self::default();
        host.set(
            "secret:dbpass",
            json!({"format": 1, "id": "0123456789abcdef012345678", "name": "dbpass",
                   "driver": "file", "data": CODED}),
        );
        host.set(
            "container:web",
            json!({"format": 1, "status": "running", "names": {"a": "b"}}),
        );
        host.set("volume:data", json!({"format": 1}));
        host
    }

    fn set(&self, named: &str, definition: Value) {
        self.definitions
            .lock()
            .unwrap()
            .insert(item(named), definition);
    }
}

impl Source for Host {
    fn inventory(&self) -> Result<Inventory, HostError> {
        Ok(Inventory {
            podman_version: Some("5.4".into()),
            containers: vec![ContainerFacts {
                name: "web".into(),
                secrets: vec!["dbpass".into()],
                volumes: vec!["data".into()],
                binds: ["/run/x.sock", "/srv/cfg"].map(PathBuf::from).into(),
                data_binds: vec!["/srv/cfg".into()],
                logs: vec!["/var/log/web".into()],
                ..ContainerFacts::default()
            }],
            secrets: vec![SecretFacts {
                name: "dbpass".into(),
                ..SecretFacts::default()
            }],
            volumes: vec![VolumeFacts {
                name: "data".into(),
                driver: "local".into(),
                anonymous: false,
                used_by: Vec::new(),
                used_by_running: Vec::new(),
            }],
            definition_findings: self.unlisted.clone(),
            ..Inventory::default()
        })
    }

    fn open(&self, request: &ScanRequest) -> Result<OpenItem, HostError> {
        let definitions = self.definitions.lock().unwrap();
        let definition = definitions.get(&request.item).ok_or(HostError::Podman {
            action: "read",
            object: request.item.to_string(),
            cause: "there is no such item".into(),
        })?;
        Ok(OpenItem {
            definition: Some(serde_json::to_vec(definition).unwrap()),
            tree: None,
            findings: Vec::new(),
        })
    }

    fn published(&self, _: &ScanRequest, _: SnapshotId) -> Result<(), HostError> {
        Ok(())
    }
}

fn back_up(
    repo: &Repository,
    host: &Host,
    named: Option<&str>,
    change: impl FnOnce(&mut BackupOptions),
) -> OperationResult<(BackupReport, Vec<Finding>)> {
    let selectors = named.into_iter().map(|named| at(named, "").selector);
    let mut options = BackupOptions {
        selection: Selection {
            all: named.is_none(),
            selectors: selectors.collect(),
        },
        threads: 2,
        ..BackupOptions::default()
    };
    change(&mut options);
    let monitor = Collect::default();
    let report = backup::backup(repo, host, &options, &monitor)?;
    Ok((report, monitor.findings.into_inner().unwrap()))
}

fn items(report: &BackupReport) -> Vec<String> {
    report
        .items
        .iter()
        .map(|item| item.item.to_string())
        .collect()
}

fn dumped(repo: &Repository, named: &str, path: &str) -> OperationResult<String> {
    let mut out = Vec::new();
    dump::dump(
        repo,
        &latest(),
        &at(named, path),
        &mut out,
        &Collect::default(),
    )?;
    Ok(String::from_utf8(out).unwrap())
}

/// Each changed field: item, pointer, values.
fn differences(repo: &Repository, before: &SnapSpec, after: &After<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut visit = |row: podkeep_engine::operations::DiffRow| {
        let field = row.field.expect("a field of a definition");
        let side = |value: Option<Value>| value.map_or("-".into(), |value| value.to_string());
        let (before, after) = (side(field.before), side(field.after));
        found.push(format!("{} {} {before} {after}", row.item, field.field));
        ControlFlow::Continue(())
    };
    diff(repo, before, after, &mut visit, &Collect::default()).unwrap();
    found
}

#[test]
fn c_14_a_secret_is_sealed_and_shown_only_when_it_is_asked_for() {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let repo = open(store.clone());
    let host = Host::new();
    let (report, _) = back_up(&repo, &host, None, |_| {}).unwrap();
    assert_eq!(
        items(&report),
        ["volume:data", "container:web", "secret:dbpass"]
    );
    for meta in store.list("").unwrap() {
        let bytes = store.get(&meta.name, u64::MAX).unwrap();
        for form in [SECRET, CODED] {
            let holds = bytes
                .windows(form.len())
                .any(|part| part == form.as_bytes());
            assert!(!holds, "{} holds it", meta.name);
        }
    }
    assert_eq!(dumped(&repo, "secret:dbpass", "data").unwrap(), SECRET);
    let shown = dumped(&repo, "secret:dbpass", "").unwrap();
    assert!(
        shown.contains("\"driver\": \"file\"") && !shown.contains(CODED),
        "{shown}"
    );
    let web: Value = serde_json::from_str(&dumped(&repo, "container:web", "").unwrap()).unwrap();
    assert_eq!(web["status"], "running");
    assert!(dumped(&repo, "container:web", "data").is_err());

    let mut listed = Vec::new();
    let mut visit = |item: &Item, definition: Value| {
        listed.push(format!("{item} {definition}"));
        ControlFlow::Continue(())
    };
    let all = ItemPath {
        selector: Selector {
            item: item("secret:*"),
            glob: true,
        },
        path: Vec::new(),
    };
    ls::definitions(&repo, &latest(), &all, &mut visit, &Collect::default()).unwrap();
    assert_eq!(listed.len(), 1);
    assert!(!listed[0].contains(CODED));
    let mut manifest = Vec::new();
    let mut visit = |row: podkeep_engine::operations::ManifestRow| {
        manifest.push((row.item.to_string(), row.bytes_definition > 0));
        ControlFlow::Continue(())
    };
    ls::manifest(&repo, &latest(), &mut visit, &Collect::default()).unwrap();
    assert_eq!(manifest.len(), 3);
    assert!(manifest.iter().all(|(_, defined)| *defined));
}

#[test]
fn definitions_are_compared_between_snapshots_and_with_the_host() {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let repo = open(store);
    let host = Host::new();
    let (first, _) = back_up(&repo, &host, None, |_| {}).unwrap();
    assert!(differences(&repo, &latest(), &After::Live(&host)).is_empty());
    host.set(
        "container:web",
        json!({"format": 1, "status": "exited", "names": {}}),
    );
    host.set(
        "secret:dbpass",
        json!({"format": 1, "id": "0123456789abcdef012345678", "name": "dbpass",
               "driver": "file", "data": "b3RoZXI="}),
    );
    let expected = [
        "container:web /names/a \"b\" -",
        "container:web /status \"running\" \"exited\"",
        "secret:dbpass /data \"(not shown)\" \"(not shown)\"",
    ];
    assert_eq!(differences(&repo, &latest(), &After::Live(&host)), expected);
    back_up(&repo, &host, None, |_| {}).unwrap();
    let before = SnapSpec {
        which: SnapWhich::Prefix(first.run.unwrap().to_hex()),
        host: None,
    };
    assert_eq!(
        differences(&repo, &before, &After::Snapshot(&latest())),
        expected
    );
}

#[test]
fn c_22_what_is_not_selected_comes_along_or_is_said() {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let repo = open(store);
    let mut host = Host::new();
    let dry = |options: &mut BackupOptions| options.dry_run = true;
    let (report, findings) = back_up(&repo, &host, Some("container:web"), dry).unwrap();
    assert_eq!(
        items(&report),
        ["container:web", "volume:data", "secret:dbpass"]
    );
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, FindingKind::Note);
    let message = &findings[0].message;
    assert!(message.contains("/run/x.sock, /srv/cfg"), "{message}");
    let only = |options: &mut BackupOptions| {
        options.dry_run = true;
        options.only = true;
        options.include_binds = true;
        options.include_logs = true;
    };
    let (report, findings) = back_up(&repo, &host, Some("container:web"), only).unwrap();
    // The socket is never data.
    assert_eq!(
        items(&report),
        ["container:web", "path:/srv/cfg", "path:/var/log/web"]
    );
    assert!(findings[0].message.contains("/run/x.sock") && !findings[0].message.contains("/srv"));
    // A host whose secrets cannot be listed is not saved completely.
    host.unlisted.push(Finding {
        object: "secrets".into(),
        kind: FindingKind::Unreadable,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: String::new(),
    });
    let (report, findings) = back_up(&repo, &host, None, |_| {}).unwrap();
    assert!(!report.complete);
    assert!(findings.iter().any(|finding| finding.object == "secrets"));
    let (report, _) = back_up(&repo, &host, Some("volume:data"), |_| {}).unwrap();
    assert!(report.complete);
}
