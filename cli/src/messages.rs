//! The lines of `--json`, as docs/json.md describes them. A test holds the two together.

use podkeep_engine::host::About;
use podkeep_engine::host::replay::{FieldDifference, Proof, Reason};
use podkeep_engine::monitor::Finding;
use podkeep_engine::operations::migrate::FreezeParts;
use podkeep_engine::operations::{
    BackupItem, Change, DiffRow, FieldChange, ImageEntry, ListedEntry, ManifestRow, SnapshotRow,
};
use podkeep_format::item::{Escaped, Item};
use podkeep_format::tree::Entry;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::shown::{Shown, ShownNode};
use crate::units;

/// Counts up when a field changes its meaning or goes; new fields do not count.
pub const SCHEMA: u32 = 1;

/// One line.
#[derive(Serialize, Debug)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Message {
    Start {
        schema: u32,
        command: &'static str,
    },
    Snapshot(SnapshotLine),
    Item(ItemLine),
    Manifest(ManifestLine),
    Definition(DefinitionLine),
    Entry(EntryLine),
    Difference(DifferenceLine),
    FieldDifference(FieldDifferenceLine),
    Key(KeyLine),
    Action {
        message: String,
    },
    Space {
        place: String,
        bytes_needed: u64,
        bytes_free: u64,
    },
    Conflict {
        message: String,
    },
    Proof(ProofLine),
    Hosts {
        from: HostLine,
        to: HostLine,
    },
    Takes {
        items: Vec<ItemName>,
    },
    Pass(PassLine),
    Predicted {
        seconds: f64,
        bytes: u64,
    },
    Stopped {
        containers: Vec<String>,
    },
    Started {
        containers: Vec<String>,
    },
    Proven {
        item: String,
        fields: u64,
        differences: Vec<String>,
    },
    Finding(FindingLine),
    Progress(ProgressLine),
    Summary {
        #[serde(flatten)]
        summary: Summary,
        exit_code: u8,
    },
    Error {
        code: &'static str,
        message: String,
        hint: Option<String>,
        exit_code: u8,
    },
}

#[derive(Serialize, Debug)]
pub struct ItemName {
    pub kind: &'static str,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_b64: Option<String>,
}

#[derive(Serialize, Debug)]
pub struct SnapshotLine {
    pub id: String,
    pub time: String,
    pub host: String,
    pub scope: &'static str,
    pub complete: bool,
    pub cut_off: bool,
    pub tags: Vec<String>,
    pub files: u64,
    pub bytes_logical: u64,
    pub bytes_added: u64,
    pub items: Vec<ItemName>,
}

/// One side of a migration.
#[derive(Serialize, Debug)]
pub struct HostLine {
    pub podman: String,
    pub driver: String,
    pub rootful: bool,
}

impl From<&About> for HostLine {
    fn from(about: &About) -> Self {
        Self {
            podman: about.podman.clone(),
            driver: about.driver.clone(),
            rootful: about.rootful,
        }
    }
}

#[derive(Serialize, Debug)]
pub struct PassLine {
    pub number: u32,
    /// The containers were stopped meanwhile.
    pub at_rest: bool,
    pub bytes_read: u64,
    pub bytes_sent: u64,
    pub seconds: f64,
}

/// What the containers rested for, in seconds.
#[derive(Serialize, Debug, Default)]
pub struct FreezePartsLine {
    pub stop: f64,
    pub read: f64,
    pub write: f64,
    pub fence: f64,
    pub start: f64,
}

impl From<&FreezeParts> for FreezePartsLine {
    fn from(parts: &FreezeParts) -> Self {
        let FreezeParts {
            stop,
            read,
            write,
            fence,
            start,
        } = *parts;
        Self {
            stop,
            read,
            write,
            fence,
            start,
        }
    }
}

/// Whether a definition came out as it was stored.
#[derive(Serialize, Debug)]
pub struct ProofLine {
    pub item: String,
    /// What it is called here.
    pub name: String,
    /// How many fields were compared.
    pub fields: u64,
    pub differences: Vec<FieldLine>,
}

#[derive(Serialize, Debug)]
pub struct FieldLine {
    pub field: String,
    pub stored: String,
    pub made: String,
    /// From a closed list; null: unexplained, which is a finding as well.
    pub reason: Option<&'static str>,
}

impl ProofLine {
    pub fn new(proof: &Proof) -> Self {
        let line = |difference: &FieldDifference| FieldLine {
            field: difference.field.clone(),
            stored: difference.stored.clone(),
            made: difference.made.clone(),
            reason: difference.reason.map(Reason::word),
        };
        Self {
            item: proof.item.to_string(),
            name: proof.name.clone(),
            fields: proof.fields,
            differences: proof.differences.iter().map(line).collect(),
        }
    }
}

#[derive(Serialize, Debug)]
pub struct ItemLine {
    pub item: String,
    pub snapshot: Option<String>,
    pub complete: bool,
    pub files: u64,
    pub bytes_read: u64,
    pub bytes_logical: u64,
    pub consistency: &'static str,
    pub freeze_seconds: Option<f64>,
    pub freeze_expected: Option<f64>,
    pub failure: Option<String>,
}

#[derive(Serialize, Debug)]
pub struct ManifestLine {
    pub item: String,
    pub snapshot: String,
    pub complete: bool,
    pub files: u64,
    pub bytes_logical: u64,
    pub bytes_definition: u64,
}

#[derive(Serialize, Debug)]
pub struct DefinitionLine {
    pub item: String,
    pub definition: Value,
}

#[derive(Serialize, Debug)]
pub struct FieldDifferenceLine {
    pub item: String,
    pub field: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// From the closed list of `proof`; null where nothing is known, or the object is the same.
    pub reason: Option<&'static str>,
}

#[derive(Serialize, Debug)]
pub struct EntryLine {
    /// `find`: the newest snapshot that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    pub item: String,
    #[serde(flatten)]
    pub path: PathFields,
    #[serde(flatten)]
    pub attributes: Attributes,
}

#[derive(Serialize, Debug)]
pub struct PathFields {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
}

#[derive(Serialize, Debug)]
pub struct Attributes {
    pub kind: &'static str,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_b64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unstable: bool,
}

#[derive(Serialize, Debug)]
pub struct DifferenceLine {
    pub item: String,
    #[serde(flatten)]
    pub path: PathFields,
    pub change: &'static str,
    pub before: Option<Attributes>,
    pub after: Option<Attributes>,
}

#[derive(Serialize, Debug)]
pub struct KeyLine {
    pub id: String,
    /// `full` or `write`.
    pub kind: &'static str,
    pub label: String,
    /// Why it cannot be read.
    pub damage: Option<String>,
}

#[derive(Serialize, Debug)]
pub struct FindingLine {
    pub object: String,
    pub kind: &'static str,
    pub snapshots: Vec<String>,
    pub paths: Vec<String>,
    pub message: String,
}

#[derive(Serialize, Debug, Default, Clone)]
pub struct ProgressLine {
    pub phase: String,
    pub item: String,
    pub files: u64,
    pub files_expected: u64,
    pub bytes: u64,
    pub bytes_expected: u64,
    pub seconds: f64,
}

/// What a command amounts to, by command.
#[derive(Serialize, Debug)]
#[serde(untagged)]
pub enum Summary {
    Init {
        repository: String,
        place: String,
        findings: u64,
    },
    Backup {
        snapshot: Option<String>,
        complete: bool,
        items: u64,
        files: u64,
        bytes_read: u64,
        bytes_logical: u64,
        bytes_added: u64,
        bytes_parity: u64,
        chunks_new: u64,
        chunks_known: u64,
        findings: u64,
        seconds: f64,
    },
    Snapshots {
        snapshots: u64,
        hosts: u64,
        findings: u64,
    },
    /// `ls` and `find`.
    Entries {
        entries: u64,
        findings: u64,
    },
    Differences {
        added: u64,
        removed: u64,
        modified: u64,
        attributes: u64,
        definitions: u64,
        findings: u64,
    },
    Stats {
        snapshots: u64,
        items: u64,
        packs: u64,
        packs_bytes: u64,
        segments: u64,
        segments_bytes: u64,
        snapshots_bytes: u64,
        other_bytes: u64,
        reserve_bytes: u64,
        chunks: u64,
        chunks_bytes: u64,
        bytes_logical: u64,
        findings: u64,
    },
    Restore {
        items: u64,
        files: u64,
        bytes_written: u64,
        bytes_decoded: u64,
        incomplete: bool,
        findings: u64,
        seconds: f64,
    },
    Migrate {
        phase: &'static str,
        items: u64,
        freeze_seconds: f64,
        freeze_parts: FreezePartsLine,
        bytes_sent: u64,
        bytes_logical: u64,
        findings: u64,
        seconds: f64,
    },
    RepairLayers {
        layers: u64,
        damaged: u64,
        repaired: u64,
        files: u64,
        bytes_written: u64,
        findings: u64,
        seconds: f64,
    },
    Export {
        item: String,
        place: String,
        files: u64,
        bytes_written: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        incomplete: bool,
        findings: u64,
        seconds: f64,
    },
    Check {
        snapshots: u64,
        packs: u64,
        packs_read: u64,
        chunks: u64,
        damaged: u64,
        healed: u64,
        findings: u64,
        seconds: f64,
    },
    Doctor {
        images: u64,
        layers: u64,
        damaged: u64,
        findings: u64,
        seconds: f64,
    },
    Keys {
        keys: u64,
        findings: u64,
    },
    /// `key add`, `key remove`, `key passwd`, `key export-write`.
    KeyChanged {
        key: String,
        findings: u64,
    },
    Man {
        pages: u64,
    },
    /// Of a command that ran on another machine, as that one says it.
    Afar(Map<String, Value>),
    /// Of a command that has no JSON form, so that this is never written.
    Raw {},
}

impl From<&SnapshotRow> for SnapshotLine {
    fn from(row: &SnapshotRow) -> Self {
        Self {
            id: row.run.to_hex(),
            time: units::rfc3339(row.time, row.zone_minutes),
            host: row.host.clone(),
            scope: if row.scope_all { "all" } else { "items" },
            complete: row.complete,
            cut_off: row.cut_off,
            tags: row.tags.clone(),
            files: row.files,
            bytes_logical: row.bytes_logical,
            bytes_added: row.bytes_added,
            items: row.items.iter().map(ItemName::from).collect(),
        }
    }
}

impl From<&Item> for ItemName {
    fn from(item: &Item) -> Self {
        let (name, name_b64) = text(&item.name);
        Self {
            kind: item.kind.word(),
            name,
            name_b64,
        }
    }
}

impl From<&BackupItem> for ItemLine {
    fn from(item: &BackupItem) -> Self {
        Self {
            item: item.item.to_string(),
            snapshot: item.snapshot.map(|id| id.to_hex()),
            complete: item.complete,
            files: item.files,
            bytes_read: item.bytes_read,
            bytes_logical: item.bytes_logical,
            consistency: item.consistency.word(),
            freeze_seconds: item.frozen.map(|frozen| frozen.seconds),
            freeze_expected: item.frozen.map(|frozen| frozen.expected),
            failure: item.failure.clone(),
        }
    }
}

impl From<&ManifestRow> for ManifestLine {
    fn from(row: &ManifestRow) -> Self {
        Self {
            item: row.item.to_string(),
            snapshot: row.snapshot.to_hex(),
            complete: row.complete,
            files: row.files,
            bytes_logical: row.bytes_logical,
            bytes_definition: row.bytes_definition,
        }
    }
}

impl FieldDifferenceLine {
    pub fn new(item: &Item, change: &FieldChange) -> Self {
        Self {
            item: item.to_string(),
            field: change.field.clone(),
            before: change.before.clone(),
            after: change.after.clone(),
            reason: change.reason.map(Reason::word),
        }
    }
}

impl From<&ListedEntry> for EntryLine {
    fn from(listed: &ListedEntry) -> Self {
        Self {
            snapshot: listed.run.map(|run| run.to_hex()),
            item: listed.item.to_string(),
            path: PathFields::below_item(&listed.path),
            attributes: Attributes::from(&listed.entry),
        }
    }
}

impl From<&ImageEntry> for EntryLine {
    fn from(entry: &ImageEntry) -> Self {
        Self {
            snapshot: None,
            item: entry.item.to_string(),
            path: PathFields::below_item(&entry.path),
            attributes: Attributes::from(Shown::from(entry)),
        }
    }
}

impl From<&DiffRow> for DifferenceLine {
    fn from(row: &DiffRow) -> Self {
        Self {
            item: row.item.to_string(),
            path: PathFields::below_item(&row.path),
            change: match row.change {
                Change::Added => "added",
                Change::Removed => "removed",
                Change::Modified => "modified",
                Change::Attributes => "attributes",
                Change::Definition => "definition",
            },
            before: row.before.as_ref().map(Attributes::from),
            after: row.after.as_ref().map(Attributes::from),
        }
    }
}

impl From<&Finding> for FindingLine {
    fn from(finding: &Finding) -> Self {
        Self {
            object: finding.object.clone(),
            kind: finding.kind.as_str(),
            snapshots: finding.snapshots.clone(),
            paths: finding
                .paths
                .iter()
                .map(|path| Escaped(path).to_string())
                .collect(),
            message: finding.message.clone(),
        }
    }
}

impl PathFields {
    /// With a slash in front; the item's root is `/`.
    fn below_item(path: &[u8]) -> Self {
        let mut whole = Vec::with_capacity(path.len() + 1);
        whole.push(b'/');
        whole.extend_from_slice(path);
        let (path, path_b64) = text(&whole);
        Self { path, path_b64 }
    }
}

impl From<&Entry> for Attributes {
    fn from(entry: &Entry) -> Self {
        Self::from(Shown::from(entry))
    }
}

impl From<Shown<'_>> for Attributes {
    fn from(entry: Shown<'_>) -> Self {
        let (size, target) = match entry.what {
            ShownNode::File { size } => (size, None),
            ShownNode::Symlink { target } => (target.len() as u64, Some(text(target))),
            _ => (0, None),
        };
        let (target, target_b64) = match target {
            Some((target, b64)) => (Some(target), b64),
            None => (None, None),
        };
        Self {
            kind: entry.word,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size,
            mtime: units::rfc3339(entry.mtime, 0),
            target,
            target_b64,
            unstable: entry.unstable,
        }
    }
}

/// Bytes as JSON can carry them: UTF-8 as it is. Else escaped as listings do it, and besides in
/// base64, which alone says which bytes they are.
fn text(bytes: &[u8]) -> (String, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (Escaped(bytes).to_string(), Some(base64(bytes))),
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut word = [0; 3];
        word[..group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for position in 0..4 {
            if position <= group.len() {
                text.push(char::from(
                    ALPHABET[(word >> (18 - 6 * position) & 63) as usize],
                ));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
