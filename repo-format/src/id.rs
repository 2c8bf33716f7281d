//! Ids: fixed arrays with a type each, so that one kind cannot be taken for another.

use std::fmt;

/// Writes bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// Reads exactly `N` bytes of lower-case hex.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'a'..=b'f' => Some(d - b'a' + 10),
        _ => None,
    };
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            pub const LEN: usize = $len;

            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            pub fn to_hex(self) -> String {
                hex(&self.0)
            }

            pub fn from_hex(text: &str) -> Option<Self> {
                unhex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex(&self.0[..4]))
            }
        }
    };
}

id!(
    /// Keyed BLAKE3 of a chunk's plaintext, domain-separated by [`ChunkKind`]. What the index
    /// maps to a place in a pack.
    ChunkId, 32);
id!(
    /// The chunk id of a directory's topmost tree node (kind `Tree`). An item's root id is the
    /// id of a one-entry node that holds the root's own attributes.
    TreeId, 32);
id!(
    /// The chunk id of a content list node (kind `List`).
    ListId, 32);
id!(
    /// BLAKE3 of a pack's bytes, unkeyed.
    PackId, 32);
id!(
    /// BLAKE3 of an index segment's bytes, unkeyed.
    SegmentId, 32);
id!(
    /// BLAKE3 of an item snapshot's bytes, unkeyed.
    SnapshotId, 32);
id!(
    /// One run: the snapshot as people see it. Random.
    RunId, 16);
id!(
    /// Random, made by `init`.
    RepositoryId, 16);
id!(
    /// Random, made on a host's first use.
    HostId, 16);
id!(
    /// Random, one per lease.
    LeaseId, 16);
id!(
    /// An author's Ed25519 public key.
    AuthorId, 32);
id!(
    /// First 16 bytes of BLAKE3 of a key slot's bytes.
    SlotId, 16);
id!(
    /// BLAKE3 of an endorsement's bytes, unkeyed.
    EndorsementId, 32);
id!(
    /// Hardlinks of one file in one item: keyed hash of the item and the lowest member path.
    LinkGroup, 16);
id!(
    /// sha256 of a layer's uncompressed tar (OCI image-spec, config.md).
    DiffId, 32);

/// The domain of a chunk id: equal bytes of different kinds have different ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChunkKind {
    /// File or stream content, large extended attributes.
    Data = 1,
    /// A tree node.
    Tree = 2,
    /// A content list node.
    List = 3,
    /// A definition (of a volume, container, ...).
    Record = 4,
}

impl ChunkKind {
    pub const ALL: [Self; 4] = [Self::Data, Self::Tree, Self::List, Self::Record];

    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == value)
    }
}

impl From<TreeId> for ChunkId {
    fn from(id: TreeId) -> Self {
        Self(id.0)
    }
}

impl From<ListId> for ChunkId {
    fn from(id: ListId) -> Self {
        Self(id.0)
    }
}

/// Keys the ids of chunks: one subkey for each [`ChunkKind`].
#[derive(Clone)]
pub struct ChunkIdKey {
    subkeys: [[u8; 32]; 4],
    link: [u8; 32],
    name: [u8; 32],
}

impl ChunkIdKey {
    /// Derives the subkeys from the repository's 32-byte chunk-id key.
    pub fn new(key: &[u8; 32]) -> Self {
        let derive = |domain: &[u8]| *blake3::keyed_hash(key, domain).as_bytes();
        Self {
            subkeys: [
                derive(b"podkeep chunk id: data"),
                derive(b"podkeep chunk id: tree"),
                derive(b"podkeep chunk id: list"),
                derive(b"podkeep chunk id: record"),
            ],
            link: derive(b"podkeep link group"),
            name: derive(b"podkeep tree split"),
        }
    }

    pub fn chunk_id(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.subkeys[kind as usize - 1], bytes).as_bytes())
    }

    /// `item` is the item's text form, `lowest_path` the lowest member path (raw bytes, relative
    /// to the item's root, sorted as byte strings).
    pub fn link_group(&self, item: &str, lowest_path: &[u8]) -> LinkGroup {
        let mut hasher = blake3::Hasher::new_keyed(&self.link);
        hasher.update(&(item.len() as u64).to_le_bytes());
        hasher.update(item.as_bytes());
        hasher.update(lowest_path);
        let mut group = [0; 16];
        group.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        LinkGroup(group)
    }

    /// The keyed hash that decides whether a large directory is split behind `name`.
    pub fn split_hash(&self, name: &[u8]) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&blake3::keyed_hash(&self.name, name).as_bytes()[..8]);
        u64::from_le_bytes(head)
    }
}

impl Drop for ChunkIdKey {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.subkeys.zeroize();
        self.link.zeroize();
        self.name.zeroize();
    }
}
