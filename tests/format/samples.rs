//! One full value of every type, the same on every run: what the golden vectors hold.

use podkeep_format::author::{AuthorCertificate, Revocation};
use podkeep_format::block::{BlockClass, BlockHeader, PayloadBuilder};
use podkeep_format::codec::Encoder;
use podkeep_format::config::Config;
use podkeep_format::endorsement::Endorsement;
use podkeep_format::fence::{Fence, Verdict};
use podkeep_format::frame::{SessionKeys, Statement};
use podkeep_format::id::{
    AuthorId, ChunkId, ChunkIdKey, ChunkKind, DiffId, HostId, LayerRecordId, LeaseId, LinkGroup,
    ListId, PackId, RepositoryId, RunId, SegmentId, SnapshotId, TreeId,
};
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::keys::{Argon2Params, KeySlot, Role, Secrets, WriteKeyFile};
use podkeep_format::layer::LayerRecord;
use podkeep_format::lease::{Lease, Purpose};
use podkeep_format::pack::{FinishedPack, PackBuilder, PackHeader, TocBlock, TocChunk, encode_toc};
use podkeep_format::recipe::{Recipe, RunsEncoder, Stream};
use podkeep_format::run::RunRecord;
use podkeep_format::seal::{AuthorKey, PrivateKey, PublicKey, Secret, SessionSeal};
use podkeep_format::segment::{SegmentBuilder, seal_segment};
use podkeep_format::snapshot::{Consistency, IdRange, Snapshot, SnapshotBody, SnapshotHeader};
use podkeep_format::tombstone::Tombstone;
use podkeep_format::tree::{
    Content, Entry, ListNode, Node, Piece, Time, TreeNode, Xattr, XattrValue,
};
use podkeep_format::wire::{Greeting, encode_told};

pub use self::wire::{call, conversation, failure, opened, request};

mod wire;

pub const REPOSITORY: RepositoryId = RepositoryId(*b"sample repositor");
pub const PASSPHRASE: &[u8] = b"correct horse battery staple";
/// As light as Argon2 goes: what is tested is the slot, not the passphrase.
pub const LIGHT: Argon2Params = Argon2Params {
    memory_kib: 8,
    passes: 1,
    lanes: 1,
};

/// 32 bytes that differ for each name.
pub fn bytes32(name: &str) -> [u8; 32] {
    *blake3::hash(name.as_bytes()).as_bytes()
}

pub fn bytes16(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&bytes32(name)[..16]);
    bytes
}

pub fn owner() -> AuthorKey {
    AuthorKey::from_bytes(&bytes32("owner"))
}

pub fn writer() -> AuthorKey {
    AuthorKey::from_bytes(&bytes32("writer"))
}

pub fn private() -> PrivateKey {
    PrivateKey(bytes32("private"))
}

pub fn public() -> PublicKey {
    private().public().expect("a private key")
}

pub fn index() -> Secret {
    Secret(bytes32("index"))
}

pub fn session() -> Secret {
    Secret(bytes32("session"))
}

pub fn session_seal(author: AuthorId) -> SessionSeal {
    SessionSeal::seal(&session(), &public(), REPOSITORY, author, &bytes32("seed"))
        .expect("a public key")
}

pub fn ids() -> ChunkIdKey {
    ChunkIdKey::new(&bytes32("chunk id"))
}

pub fn time(secs: i64) -> Time {
    Time {
        secs,
        nanos: 123_456_789,
    }
}

pub fn full_secrets() -> Secrets {
    Secrets {
        chunk_id: Secret(bytes32("chunk id")),
        chunker: Secret(bytes32("chunker")),
        index: index(),
        role: Role::Full {
            private: private(),
            owner: owner(),
        },
    }
}

pub fn write_secrets() -> Secrets {
    Secrets {
        role: Role::Write {
            public: public(),
            author: writer(),
        },
        ..full_secrets()
    }
}

pub fn config() -> Config {
    Config {
        repository: REPOSITORY,
        public_key: public(),
        owner: owner().id(),
        chunk_min: 8 << 10,
        chunk_avg: 32 << 10,
        chunk_max: 128 << 10,
        block_bytes: [2 << 20, 512 << 10, 8 << 20, 256 << 10],
        pack_bytes: 32 << 20,
        settle_secs: Some(120),
        reserve_bytes: 128 << 20,
        created: time(1_700_000_000),
    }
}

pub fn item() -> Item {
    Item::new(ItemKind::Volume, *b"web")
}

pub fn path_item() -> Item {
    Item::new(ItemKind::Path, b"/srv/d\xff".to_vec())
}

pub fn certificate() -> AuthorCertificate {
    AuthorCertificate {
        author: writer().id(),
        label: "web1, nightly".to_owned(),
        created: time(1_700_000_001),
    }
}

pub fn sorted<const N: usize>(prefix: &str) -> [[u8; 32]; N] {
    let mut ids = std::array::from_fn(|n| bytes32(&format!("{prefix} {n}")));
    ids.sort();
    ids
}

pub fn revocation() -> Revocation {
    Revocation {
        authors: sorted::<3>("revoked").map(AuthorId).to_vec(),
        number: 4,
    }
}

pub fn snapshot_header() -> SnapshotHeader {
    SnapshotHeader {
        author: writer().id(),
        host: HostId(bytes16("host")),
        item: item(),
        sequence: 300,
        predecessor: Some(SnapshotId(bytes32("predecessor"))),
        lease: LeaseId(bytes16("lease")),
        run: RunId(bytes16("run")),
        time: time(1_700_000_100),
    }
}

pub fn snapshot_body() -> SnapshotBody {
    SnapshotBody {
        host_name: "web1".to_owned(),
        aliases: vec!["localhost/web:2".to_owned()],
        root: Some(TreeId(bytes32("root"))),
        definition: Some((ChunkId(bytes32("definition")), 812)),
        uid_map: vec![
            IdRange {
                inside: 0,
                outside: 1000,
                len: 1,
            },
            IdRange {
                inside: 1,
                outside: 100_000,
                len: 65_536,
            },
        ],
        gid_map: vec![IdRange {
            inside: 0,
            outside: 0,
            len: u32::MAX,
        }],
        consistency: Consistency::Pause,
        complete: false,
        findings: 40,
        finding_samples: vec!["volume:web:/a: changed while it was read".to_owned()],
        started: time(1_700_000_100),
        finished: time(1_700_000_160),
        zone_minutes: -330,
        scope_all: true,
        tags: vec!["nightly".to_owned()],
        files: 1200,
        directories: 34,
        bytes_logical: 5_000_000_000,
        bytes_allocated: 4_000_000_000,
        bytes_read: 12_345,
        excludes: vec!["*.tmp".to_owned()],
        exclude_caches: true,
        cross_mounts: false,
        driver: "overlay".to_owned(),
        podman_version: "5.4.2".to_owned(),
        podkeep_version: "0.1.0".to_owned(),
    }
}

pub fn run_record() -> RunRecord {
    RunRecord {
        run: RunId(bytes16("run")),
        author: writer().id(),
        host: HostId(bytes16("host")),
        host_name: "web1".to_owned(),
        snapshots: vec![SnapshotId(bytes32("one")), SnapshotId(bytes32("two"))],
        items_failed: vec![(path_item(), "permission denied".to_owned())],
        scope_all: false,
        tags: Vec::new(),
        started: time(-1),
        finished: time(1_700_000_200),
        zone_minutes: 120,
        complete: false,
        bytes_read: 1,
        bytes_logical: 1 << 40,
        bytes_added: 3,
        files: 128,
    }
}

pub fn lease() -> Lease {
    Lease {
        lease: LeaseId(bytes16("lease")),
        number: 17,
        purpose: Purpose::Write,
        author: writer().id(),
        host: HostId(bytes16("host")),
        host_name: "web1".to_owned(),
        heartbeat_secs: 60,
        lease_secs: 300,
        time: time(1_700_000_300),
    }
}

pub fn tombstone() -> Tombstone {
    Tombstone {
        pack: PackId(bytes32("pack")),
        prune: LeaseId(bytes16("prune")),
        author: owner().id(),
        time: time(1_700_000_400),
    }
}

pub fn fence() -> Fence {
    Fence {
        lease: LeaseId(bytes16("lease")),
        prune: LeaseId(bytes16("prune")),
        author: owner().id(),
        time: time(1_700_000_500),
    }
}

pub fn verdict() -> Verdict {
    Verdict {
        lease: LeaseId(bytes16("lease")),
        prune: LeaseId(bytes16("prune")),
        author: owner().id(),
        snapshots: sorted::<3>("counts").map(SnapshotId).to_vec(),
        time: time(1_700_000_600),
    }
}

pub fn endorsement() -> Endorsement {
    Endorsement {
        author: owner().id(),
        segments: sorted::<2>("segment").map(SegmentId).to_vec(),
        layers: sorted::<2>("layer record").map(LayerRecordId).to_vec(),
        time: time(1_700_000_700),
    }
}

pub fn layer_record() -> LayerRecord {
    let chunks = sorted::<3>("layer").map(ChunkId).to_vec();
    LayerRecord {
        author: writer().id(),
        layer: ids().layer_key(&DiffId(bytes32("diff id"))),
        recipe: chunks[1],
        size: 84_992_000,
        chunks,
    }
}

/// Two runs; the second one has no payload.
pub fn runs() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut runs = RunsEncoder::new();
    runs.literals(512, &mut bytes);
    runs.payloads(70_000);
    runs.literals(144, &mut bytes);
    runs.literals(1024, &mut bytes);
    runs.finish(&mut bytes);
    bytes
}

pub fn recipe() -> Recipe {
    Recipe {
        diff_id: DiffId(bytes32("diff id")),
        size: 71_680,
        literals: Stream {
            size: 1680,
            content: Content::Pieces(vec![chunk("literals", 1680)]),
        },
        payloads: Stream {
            size: 70_000,
            content: Content::List {
                id: ListId(bytes32("payloads")),
                level: 0,
            },
        },
        runs: Stream {
            size: runs().len() as u64,
            content: Content::Inline(runs()),
        },
    }
}

pub fn entry(name: &str, node: Node) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        mode: 0o644,
        uid: 1000,
        gid: 100,
        mtime: time(1_600_000_000),
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node,
    }
}

fn chunk(name: &str, len: u32) -> Piece {
    Piece::Chunk {
        id: ChunkId(bytes32(name)),
        len,
    }
}

pub fn leaf() -> TreeNode {
    let file = |size, content| Node::File {
        size,
        content,
        holes: Vec::new(),
        unstable: false,
    };
    TreeNode::Leaf(vec![
        Entry {
            inode_flags: 0x10,
            project: 7,
            xattrs: vec![
                Xattr {
                    name: b"security.capability".to_vec(),
                    value: XattrValue::Inline(vec![1, 0, 0, 2]),
                },
                Xattr {
                    name: b"user.big".to_vec(),
                    value: XattrValue::Chunk {
                        id: ChunkId(bytes32("xattr")),
                        len: 600,
                    },
                },
            ],
            link: Some(LinkGroup(bytes16("link"))),
            ..entry("all", file(3, Content::Inline(b"abc".to_vec())))
        },
        entry("block", Node::BlockDevice { major: 8, minor: 1 }),
        entry(
            "char",
            Node::CharDevice {
                major: 5,
                minor: 70_000,
            },
        ),
        entry(
            "dir",
            Node::Directory {
                tree: TreeId(bytes32("tree")),
            },
        ),
        entry("empty", file(0, Content::Inline(Vec::new()))),
        entry("fifo", Node::Fifo),
        entry(
            "list",
            file(
                1 << 33,
                Content::List {
                    id: ListId(bytes32("list")),
                    level: 1,
                },
            ),
        ),
        entry(
            "pieces",
            Node::File {
                size: 1_148_576,
                content: Content::Pieces(vec![
                    chunk("a", 50_000),
                    Piece::Zero { len: 1_048_576 },
                    chunk("b", 50_000),
                ]),
                holes: vec![(53_248, 8192), (65_536, 4096), (1_097_728, 50_848)],
                unstable: true,
            },
        ),
        entry(
            "recipe",
            file(
                1 << 30,
                Content::Recipe {
                    id: ChunkId(bytes32("recipe")),
                },
            ),
        ),
        entry("socket", Node::Socket),
        entry(
            "symlink",
            Node::Symlink {
                target: b"../x".to_vec(),
            },
        ),
    ])
}

pub fn toc() -> Vec<TocBlock> {
    let chunk = |name: &str, kind, len| TocChunk {
        id: ChunkId(bytes32(name)),
        kind,
        len,
    };
    vec![
        TocBlock {
            position: 200,
            class: BlockClass::Small,
            compressed: true,
            sealed_len: 500,
            payload_len: 1008,
            chunks: vec![
                chunk("c1", ChunkKind::Data, 600),
                chunk("c2", ChunkKind::Tree, 400),
            ],
        },
        TocBlock {
            position: 728,
            class: BlockClass::Meta,
            compressed: false,
            sealed_len: 120,
            payload_len: 104,
            chunks: vec![chunk("c3", ChunkKind::Record, 100)],
        },
    ]
}

pub fn pack_header() -> PackHeader {
    PackHeader {
        lease: LeaseId(bytes16("lease")),
        author: writer().id(),
        salt: bytes32("pack salt"),
        session: session_seal(writer().id()),
    }
}

pub fn payload() -> Vec<u8> {
    let mut payload = PayloadBuilder::new();
    payload.push(ChunkKind::Data, b"the first chunk");
    payload.push(ChunkKind::Record, b"and a record");
    payload.finish().to_vec()
}

pub fn pack() -> FinishedPack {
    let mut pack = PackBuilder::new(REPOSITORY, pack_header(), &session(), Vec::new());
    let stored = payload();
    let chunks = [
        (ChunkKind::Data, &b"the first chunk"[..]),
        (ChunkKind::Record, &b"and a record"[..]),
    ]
    .map(|(kind, bytes)| TocChunk {
        id: ids().chunk_id(kind, bytes),
        kind,
        len: bytes.len() as u32,
    });
    let len = stored.len() as u32;
    pack.push(BlockClass::Small, false, &stored, len, chunks.to_vec())
        .expect("a block");
    pack.finish(&writer(), &index()).expect("a pack")
}

pub fn segment_body() -> Vec<u8> {
    let mut segment = SegmentBuilder::new();
    segment.push(PackId(bytes32("pack")), &toc());
    segment.push(PackId(bytes32("pack 2")), &toc()[..1]);
    segment.finish()
}

pub fn session_keys<'a>(
    author: &'a AuthorKey,
    session: &'a Secret,
    seal: &'a SessionSeal,
) -> SessionKeys<'a> {
    SessionKeys {
        repository: REPOSITORY,
        author,
        session,
        seal,
        salt: bytes32("salt"),
    }
}

pub fn sealed_snapshot() -> Vec<u8> {
    let (author, session) = (writer(), session());
    let seal = session_seal(author.id());
    let keys = session_keys(&author, &session, &seal);
    Snapshot::seal(&snapshot_header(), &snapshot_body(), &index(), &keys).expect("a snapshot")
}

pub fn sealed_run() -> Vec<u8> {
    let (author, session) = (writer(), session());
    let seal = session_seal(author.id());
    run_record()
        .seal(&session_keys(&author, &session, &seal))
        .expect("a run record")
}

/// The plain bytes that the decoder of that name takes. Every decoder has at least one.
pub fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let encoded = |encode: &dyn Fn(&mut Encoder)| {
        let mut out = Encoder::new();
        encode(&mut out);
        out.finish()
    };
    let entries = match leaf() {
        TreeNode::Leaf(entries) => entries,
        _ => unreachable!("a leaf"),
    };
    vec![
        ("author", certificate().encode_body()),
        (
            "block-header",
            BlockHeader {
                class: BlockClass::Layer,
                compressed: true,
                sealed_len: 5000,
                payload_len: 9000,
                position: 200,
                counter: 3,
            }
            .encode()
            .to_vec(),
        ),
        ("config", config().encode_body()),
        ("endorsement", endorsement().encode_body()),
        ("entry", encoded(&|out| entries[0].encode(out))),
        ("fence", fence().encode_body()),
        ("item", encoded(&|out| item().encode(out))),
        ("layer-record", layer_record().encode_body()),
        ("lease", lease().encode_body()),
        (
            "list-node",
            ListNode::Lists {
                level: 2,
                children: vec![
                    (ListId(bytes32("l1")), 1 << 30),
                    (ListId(bytes32("l2")), 77),
                ],
            }
            .encode(),
        ),
        ("pack-header", pack_header().encode()),
        (
            "pack-trailer",
            encoded(&|out| {
                out.u32(2000).u32(197).raw(b"Ppeekdop");
            }),
        ),
        ("payload", payload()),
        ("recipe", recipe().encode()),
        ("revocation", revocation().encode_body()),
        ("run", run_record().encode_body()),
        (
            "runs",
            encoded(&|out| {
                out.varint(1680).varint(70_000).raw(&runs());
            }),
        ),
        ("segment", segment_body()),
        (
            "session-seal",
            encoded(&|out| session_seal(writer().id()).encode(out)),
        ),
        ("snapshot-body", snapshot_body().encode()),
        ("snapshot-header", snapshot_header().encode_body()),
        ("table-of-contents", encode_toc(&toc())),
        ("tombstone", tombstone().encode_body()),
        ("tree-node", leaf().encode()),
        ("verdict", verdict().encode_body()),
        ("wire-answer", opened().encode()),
        ("wire-call", call().encode()),
        ("wire-failure", failure().encode()),
        ("wire-greeting", Greeting::own("0.1.0").encode()),
        ("wire-request", request().encode()),
        (
            "wire-told",
            encode_told([&b"one"[..], &[7; 200]].into_iter()).1,
        ),
    ]
}

/// Whole objects as a store holds them.
pub fn objects() -> Vec<(&'static str, Vec<u8>)> {
    let salt = bytes32("salt");
    let (owner, writer, index) = (owner(), writer(), index());
    let slot = |secrets: &Secrets, label| {
        KeySlot::seal(secrets, REPOSITORY, PASSPHRASE, label, LIGHT, salt).expect("a slot")
    };
    vec![
        ("config", config().encode(&owner)),
        ("key-full", slot(&full_secrets(), "the owner's")),
        ("key-write", slot(&write_secrets(), "web1")),
        (
            "write-key-file",
            WriteKeyFile {
                repository: REPOSITORY,
                pin: config().pin(),
                secrets: write_secrets(),
            }
            .encode()
            .expect("a write key")
            .as_bytes()
            .to_vec(),
        ),
        (
            "author",
            certificate()
                .encode(REPOSITORY, &owner)
                .expect("a certificate"),
        ),
        (
            "revocation",
            revocation().encode(REPOSITORY, &owner).expect("a list"),
        ),
        ("snapshot", sealed_snapshot()),
        ("run", sealed_run()),
        (
            "lease",
            lease()
                .seal(REPOSITORY, &index, &writer, &salt)
                .expect("a lease"),
        ),
        (
            "tombstone",
            tombstone()
                .seal(REPOSITORY, &index, &owner, &salt)
                .expect("a tombstone"),
        ),
        (
            "fence",
            fence()
                .seal(REPOSITORY, &index, &owner, &salt)
                .expect("a fence"),
        ),
        (
            "verdict",
            verdict()
                .seal(REPOSITORY, &index, &owner, &salt)
                .expect("a verdict"),
        ),
        (
            "endorsement",
            endorsement()
                .seal(REPOSITORY, &index, &owner, &salt)
                .expect("an endorsement"),
        ),
        (
            "layer-record",
            layer_record()
                .seal(REPOSITORY, &index, &writer, &salt)
                .expect("a layer record"),
        ),
        ("pack", pack().bytes),
        (
            "segment",
            seal_segment(REPOSITORY, &index, &writer, &salt, segment_body()).expect("a segment"),
        ),
    ]
}
