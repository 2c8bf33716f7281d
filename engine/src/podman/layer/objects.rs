//! The files of a layer in a composefs store: objects called by their sha256, `35/dbf7fb...`. A container
//! sees their names by way of an EROFS image; the layer's table of contents, by which it was pulled or that
//! Podman made while it was, says the same.

use std::collections::HashMap;

use podkeep_format::id::DiffId;
use rustix::io::Errno;
use serde::Deserialize;

use super::clean;
use crate::podman::storage::{List, Root, StorageDriver, StoredLayer, big_data_file};

/// What the table of contents is called among the layer's big data.
const TABLE: &str = "zstd-chunked-manifest";
/// Bytes of one: Podman reads none that is larger.
const TABLE_BYTES_MAX: usize = 150 << 20;
/// Entries of one: files, and the pieces that they were compressed in.
const ENTRIES_MAX: usize = 4 << 20;

/// Of each file with content, as the tar names it, the object that has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LayerObjects {
    by_name: HashMap<Vec<u8>, DiffId>,
}

#[derive(Deserialize)]
struct Table {
    entries: List<Entry, ENTRIES_MAX>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: Option<String>,
}

impl LayerObjects {
    /// `Err`: the table is missing, too large, or (EBADMSG) none.
    pub(super) fn of(root: &Root, layer: &StoredLayer) -> Result<Self, Errno> {
        let driver = StorageDriver::Overlay.word();
        let table = format!("{driver}-layers/{}/{}", layer.id, big_data_file(TABLE));
        Self::parse(&root.read(&table, TABLE_BYTES_MAX)?).ok_or(Errno::BADMSG)
    }

    /// Reads a table of contents. Of a name that it has twice, the last one counts, as it does for Podman.
    pub fn parse(table: &[u8]) -> Option<Self> {
        let table: Table = serde_json::from_slice(table).ok()?;
        let mut objects = Self::default();
        for entry in table.entries.0 {
            let digest = entry.digest.as_deref();
            let digest =
                digest.and_then(|digest| DiffId::from_hex(digest.strip_prefix("sha256:")?));
            if let ("reg", Some(digest)) = (entry.kind.as_str(), digest) {
                objects.by_name.insert(clean(entry.name.as_bytes()), digest);
            }
        }
        Some(objects)
    }

    /// Where the content of a file is, below the layer's objects.
    pub fn place(&self, name: &[u8]) -> Option<String> {
        let digest = self.by_name.get(&clean(name))?.to_hex();
        Some(format!("{}/{}", &digest[..2], &digest[2..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_contents_tells_where_contents_are() {
        let digest = format!("{:02x}", 0xab).repeat(32);
        let table = format!(
            r#"{{"version":1,"entries":[{{"type":"dir","name":"srv/"}},
                {{"type":"reg","name":"./srv/page","size":3,"digest":"sha256:{digest}"}},
                {{"type":"chunk","name":"srv/page","chunkDigest":"sha256:00"}},
                {{"type":"reg","name":"srv/empty"}},
                {{"type":"reg","name":"srv/odd","digest":"sha256:../../etc/passwd"}},
                {{"type":"hardlink","name":"srv/link","linkName":"srv/page"}}]}}"#
        );
        let objects = LayerObjects::parse(table.as_bytes()).unwrap();
        let place = objects.place(b"srv/page").unwrap();
        assert_eq!(place, format!("ab/{}", "ab".repeat(31)));
        for name in [&b"srv/empty"[..], b"srv/odd", b"srv/link", b"srv"] {
            assert_eq!(objects.place(name), None);
        }
        assert_eq!(LayerObjects::parse(b"[]"), None);
        assert_eq!(
            LayerObjects::parse(br#"{"entries":null}"#),
            Some(LayerObjects::default())
        );
    }
}
