use super::*;
use std::collections::{BTreeMap, BTreeSet};

use podkeep_format::id::{RunId, SnapshotId};
use podkeep_format::item::ItemKind;
use podkeep_format::tree::{Node, Time};

#[test]
fn base64_of_rfc_4648() {
    for (bytes, coded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(bytes.as_bytes()), coded);
    }
    assert_eq!(base64(b"\xff\xfe\xfd"), "//79");
}

#[test]
fn f_01_names_that_are_not_utf8_are_lossless_in_json() {
    let fields = PathFields::below_item(b"caf\xe9");
    assert_eq!(fields.path, "/caf\\xe9");
    assert_eq!(fields.path_b64.as_deref(), Some("L2NhZuk="));
    let fields = PathFields::below_item(b"a\nb\\");
    assert_eq!(fields.path, "/a\nb\\");
    assert_eq!(fields.path_b64, None);
}

/// The fields that a section of docs/json.md lists, by its heading.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut heading = String::new();
    let mut head = "";
    for line in include_str!("../../../docs/json.md").lines() {
        if let Some(text) = line.strip_prefix("## ").or(line.strip_prefix("### ")) {
            heading = text.to_owned();
        } else if let Some(rest) = line.strip_prefix('|') {
            let cell = rest.split('|').next().unwrap_or_default().trim();
            match cell.strip_prefix('`') {
                Some(name) if head == "field" => {
                    let name = name.trim_end_matches('`').to_owned();
                    sections.entry(heading.clone()).or_default().insert(name);
                }
                None if cell != "---" && !cell.starts_with("--") => head = cell,
                _ => {}
            }
        }
    }
    sections
}

fn fields(value: &serde_json::Value) -> BTreeSet<String> {
    let object = value.as_object().expect("a line is an object");
    object
        .keys()
        .filter(|key| *key != "type")
        .cloned()
        .collect()
}

fn value(message: &Message) -> serde_json::Value {
    serde_json::to_value(message).expect("a line can be written")
}

fn odd_symlink() -> Entry {
    Entry {
        name: b"\xff".to_vec(),
        mode: 0o777,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node: Node::Symlink {
            target: b"\xfe".to_vec(),
        },
    }
}

/// One message of each type, with every field that it can have.
fn samples() -> Vec<(&'static str, serde_json::Value)> {
    let item = || Item::new(ItemKind::Volume, b"web".as_slice());
    let entry = odd_symlink();
    let mut listed = EntryLine::from(&ListedEntry {
        item: item(),
        path: entry.name.clone(),
        entry: entry.clone(),
        run: Some(RunId([1; 16])),
    });
    listed.attributes.unstable = true;
    let difference = DifferenceLine::from(&DiffRow {
        item: item(),
        path: entry.name.clone(),
        change: Change::Added,
        before: None,
        after: Some(entry),
        field: None,
    });
    let field = FieldDifferenceLine::new(
        &item(),
        &FieldChange {
            field: "/name".to_owned(),
            before: None,
            after: None,
            reason: None,
        },
    );
    let manifest = ManifestLine::from(&ManifestRow {
        item: item(),
        snapshot: SnapshotId([1; 32]),
        complete: true,
        files: 0,
        bytes_logical: 0,
        bytes_definition: 0,
    });
    let row = SnapshotRow {
        run: RunId([1; 16]),
        time: Time::default(),
        zone_minutes: 0,
        host: "web1".to_owned(),
        scope_all: true,
        complete: true,
        tags: Vec::new(),
        bytes_logical: 0,
        bytes_added: 0,
        files: 0,
        items: vec![item()],
        cut_off: false,
    };
    let backup = BackupItem {
        item: item(),
        snapshot: None,
        root: None,
        files: 0,
        bytes_logical: 0,
        bytes_read: 0,
        complete: false,
        consistency: podkeep_format::snapshot::Consistency::Live,
        frozen: None,
        failure: None,
    };
    let finding = Finding {
        object: "volume:web".to_owned(),
        kind: podkeep_engine::monitor::FindingKind::Note,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: String::new(),
    };
    let message = String::new;
    [
        (
            "start",
            Message::Start {
                schema: SCHEMA,
                command: "",
            },
        ),
        ("snapshot", Message::Snapshot(SnapshotLine::from(&row))),
        ("item", Message::Item(ItemLine::from(&backup))),
        ("manifest", Message::Manifest(manifest)),
        (
            "definition",
            Message::Definition(DefinitionLine {
                item: message(),
                definition: serde_json::Value::Null,
            }),
        ),
        ("entry", Message::Entry(listed)),
        ("difference", Message::Difference(difference)),
        ("field-difference", Message::FieldDifference(field)),
        (
            "key",
            Message::Key(KeyLine {
                id: message(),
                kind: "full",
                label: message(),
                damage: None,
            }),
        ),
        (
            "hosts",
            Message::Hosts {
                from: (&About::default()).into(),
                to: (&About::default()).into(),
            },
        ),
        (
            "takes",
            Message::Takes {
                items: vec![(&item()).into()],
            },
        ),
        (
            "pass",
            Message::Pass(PassLine {
                number: 1,
                at_rest: false,
                bytes_read: 0,
                bytes_sent: 0,
                seconds: 0.0,
            }),
        ),
        (
            "predicted",
            Message::Predicted {
                seconds: 0.0,
                bytes: 0,
            },
        ),
        (
            "stopped",
            Message::Stopped {
                containers: Vec::new(),
            },
        ),
        (
            "started",
            Message::Started {
                containers: Vec::new(),
            },
        ),
        (
            "proven",
            Message::Proven {
                item: message(),
                fields: 0,
                differences: Vec::new(),
            },
        ),
        ("action", Message::Action { message: message() }),
        (
            "space",
            Message::Space {
                place: message(),
                bytes_needed: 0,
                bytes_free: 0,
            },
        ),
        ("conflict", Message::Conflict { message: message() }),
        (
            "proof",
            Message::Proof(ProofLine {
                item: message(),
                name: message(),
                fields: 0,
                differences: Vec::new(),
            }),
        ),
        ("finding", Message::Finding(FindingLine::from(&finding))),
        ("progress", Message::Progress(ProgressLine::default())),
        (
            "error",
            Message::Error {
                code: "",
                message: message(),
                hint: None,
                exit_code: 1,
            },
        ),
    ]
    .map(|(heading, message)| (heading, value(&message)))
    .to_vec()
}

fn summaries() -> Vec<(&'static str, serde_json::Value)> {
    let id = String::new;
    [
        (
            "init",
            Summary::Init {
                repository: id(),
                place: id(),
                findings: 0,
            },
        ),
        (
            "backup, import",
            Summary::Backup {
                snapshot: None,
                complete: true,
                items: 0,
                files: 0,
                bytes_read: 0,
                bytes_logical: 0,
                bytes_added: 0,
                bytes_parity: 0,
                chunks_new: 0,
                chunks_known: 0,
                findings: 0,
                seconds: 0.0,
            },
        ),
        (
            "snapshots",
            Summary::Snapshots {
                snapshots: 0,
                hosts: 0,
                findings: 0,
            },
        ),
        (
            "ls, find",
            Summary::Entries {
                entries: 0,
                findings: 0,
            },
        ),
        (
            "diff",
            Summary::Differences {
                added: 0,
                removed: 0,
                modified: 0,
                attributes: 0,
                definitions: 0,
                findings: 0,
            },
        ),
        (
            "stats",
            Summary::Stats {
                snapshots: 0,
                items: 0,
                packs: 0,
                packs_bytes: 0,
                segments: 0,
                segments_bytes: 0,
                snapshots_bytes: 0,
                other_bytes: 0,
                reserve_bytes: 0,
                chunks: 0,
                chunks_bytes: 0,
                bytes_logical: 0,
                findings: 0,
            },
        ),
        (
            "restore",
            Summary::Restore {
                items: 0,
                files: 0,
                bytes_written: 0,
                bytes_decoded: 0,
                incomplete: false,
                findings: 0,
                seconds: 0.0,
            },
        ),
        (
            "migrate",
            Summary::Migrate {
                phase: "active",
                items: 0,
                freeze_seconds: 0.0,
                freeze_parts: FreezePartsLine::default(),
                bytes_sent: 0,
                bytes_logical: 0,
                findings: 0,
                seconds: 0.0,
            },
        ),
        (
            "restore --repair-layers",
            Summary::RepairLayers {
                layers: 0,
                damaged: 0,
                repaired: 0,
                files: 0,
                bytes_written: 0,
                findings: 0,
                seconds: 0.0,
            },
        ),
        (
            "export",
            Summary::Export {
                item: id(),
                place: id(),
                files: 0,
                bytes_written: 0,
                digest: Some(id()),
                incomplete: false,
                findings: 0,
                seconds: 0.0,
            },
        ),
        (
            "check",
            Summary::Check {
                snapshots: 0,
                packs: 0,
                packs_read: 0,
                chunks: 0,
                damaged: 0,
                healed: 0,
                findings: 0,
                seconds: 0.0,
            },
        ),
        (
            "doctor",
            Summary::Doctor {
                images: 0,
                layers: 0,
                damaged: 0,
                findings: 0,
                seconds: 0.0,
            },
        ),
        (
            "key list",
            Summary::Keys {
                keys: 0,
                findings: 0,
            },
        ),
        (
            "key add, key remove, key passwd, key export-write",
            Summary::KeyChanged {
                key: id(),
                findings: 0,
            },
        ),
        ("man", Summary::Man { pages: 0 }),
    ]
    .map(|(heading, summary)| {
        let message = Message::Summary {
            summary,
            exit_code: 0,
        };
        (heading, value(&message))
    })
    .to_vec()
}

#[test]
fn o_04_every_field_is_documented_and_every_documented_field_is_written() {
    let mut written = BTreeMap::new();
    for (heading, value) in samples() {
        assert_eq!(value["type"], heading);
        written.insert(heading.to_owned(), fields(&value));
    }
    for (heading, value) in summaries() {
        assert_eq!(value["type"], "summary");
        written.insert(heading.to_owned(), fields(&value));
    }
    assert_eq!(written, documented());
}

#[test]
fn the_two_sides_of_a_difference_are_attributes_of_an_entry() {
    let after = Attributes::from(&odd_symlink());
    let after = serde_json::to_value(after).expect("it can be written");
    let mut samples = samples().into_iter();
    let (_, entry) = samples
        .find(|(heading, _)| *heading == "entry")
        .expect("a sample");
    assert!(fields(&after).is_subset(&fields(&entry)));
    assert_eq!(after["target_b64"], "/g==");
}
