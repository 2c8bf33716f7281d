//! Malformed vectors, `vectors/malformed`: each has exactly one defect and says which decoder
//! must refuse it, and how. Adding a case is adding a file:
//!
//! ```text
//! decoder: tree-node
//! refused: tree node: order of entries is not in its canonical form
//! bytes:
//! 0002...
//! ```

use std::collections::BTreeMap;
use std::fs;

use podkeep_format::author::Revocation;
use podkeep_format::block::{BlockClass, BlockHeader};
use podkeep_format::codec::Encoder;
use podkeep_format::frame::Statement;
use podkeep_format::id::{AuthorId, ChunkId, LinkGroup, ListId, SnapshotId, TreeId};
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::layer::LayerRecord;
use podkeep_format::pack::encode_toc;
use podkeep_format::recipe::{Recipe, Stream};
use podkeep_format::seal::SessionSeal;
use podkeep_format::snapshot::IdRange;
use podkeep_format::tree::{Content, Entry, ListNode, Node, Piece, TreeNode, Xattr, XattrValue};

use crate::decoders::{DECODERS, decoder};
use crate::golden::{dump, folder, undump};
use crate::samples;

#[test]
fn every_malformed_vector_is_refused_for_its_defect() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for file in fs::read_dir(folder("malformed")).expect("the folder") {
        let path = file.expect("a file").path();
        let shown = path.display();
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{shown}: {error}"));
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{shown} has no line {name}"))
        };
        let name = field("decoder: ");
        let (_, digits) = text.split_once("bytes:\n").expect("bytes");
        match decoder(name)(&undump(digits)) {
            Ok(_) => panic!("{shown} is accepted"),
            Err(error) => assert_eq!(error.to_string(), field("refused: "), "{shown}"),
        }
        *seen.entry(name.to_owned()).or_default() += 1;
    }
    for (name, _) in DECODERS {
        assert!(seen.contains_key(*name), "{name} has no malformed vector");
    }
}

#[test]
#[ignore = "writes vectors/malformed anew: only for a case that is new"]
fn write_the_malformed_vectors() {
    for (name, case, bytes) in cases() {
        let refused = match decoder(name)(&bytes) {
            Ok(_) => panic!("{name}, {case}: is accepted"),
            Err(error) => error,
        };
        let text = format!(
            "decoder: {name}\nrefused: {refused}\nbytes:\n{}",
            dump(&bytes)
        );
        fs::write(folder("malformed").join(format!("{name}.{case}.txt")), text).expect("a vector");
    }
}

type Case = (&'static str, &'static str, Vec<u8>);

fn encoded(encode: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut out = Encoder::new();
    encode(&mut out);
    out.finish()
}

/// The sample of that decoder with the bytes at `at` replaced.
fn patched(name: &str, at: usize, with: &[u8]) -> Vec<u8> {
    let bodies = samples::bodies();
    let found = bodies.into_iter().find(|(known, _)| *known == name);
    let (_, mut bytes) = found.expect("a sample");
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

fn cases() -> Vec<Case> {
    let mut cases = tree_cases();
    cases.extend(content_cases());
    cases.extend(layer_cases());
    cases.extend(pack_cases());
    cases.extend(record_cases());
    cases.extend(snapshot_cases());
    cases.extend(crate::wire::malformed());
    cases
}

fn tree_cases() -> Vec<Case> {
    let entries = match samples::leaf() {
        TreeNode::Leaf(entries) => entries,
        _ => unreachable!("a leaf"),
    };
    let leaf = |entries: Vec<Entry>| TreeNode::Leaf(entries).encode();
    let one = |entry: Entry| encoded(|out| entry.encode(out));
    let fifo = samples::entry("a", Node::Fifo);
    let named = |name: &[u8]| {
        one(Entry {
            name: name.to_vec(),
            ..fifo.clone()
        })
    };
    let with_xattrs = |xattrs| {
        one(Entry {
            xattrs,
            ..fifo.clone()
        })
    };
    let inline = |name: &[u8]| Xattr {
        name: name.to_vec(),
        value: XattrValue::Inline(vec![1]),
    };
    // Name and tag, then the flags.
    let flagged = |flags: u8, rest: &[u8]| {
        let mut bytes = named(b"a");
        bytes[3] = flags;
        bytes.extend_from_slice(rest);
        bytes
    };
    let recipe_flagged = |flags: u8| {
        let mut bytes = flagged(flags, &[5]);
        bytes[2] = 10;
        bytes.extend_from_slice(&[1; 32]);
        bytes
    };
    let mut reversed = entries.clone();
    reversed.reverse();
    let branch = |level, names: &[&[u8]]| {
        TreeNode::Branch {
            level,
            children: names
                .iter()
                .map(|name| (name.to_vec(), TreeId([3; 32])))
                .collect(),
        }
        .encode()
    };
    vec![
        ("entry", "dot", named(b".")),
        ("entry", "dot-dot", named(b"..")),
        ("entry", "slash-in-name", named(b"a/b")),
        ("entry", "nul-in-name", named(b"a\0b")),
        ("entry", "no-name", named(b"")),
        ("entry", "long-name", named(&[b'x'; 256])),
        ("entry", "unknown-type", {
            let mut bytes = named(b"a");
            bytes[2] = 11;
            bytes
        }),
        ("entry", "unknown-flag", flagged(64, &[])),
        ("entry", "hole-flag-on-a-fifo", flagged(16, &[])),
        ("entry", "recipe-over-any-layer", {
            let content = Content::Recipe {
                id: ChunkId([1; 32]),
            };
            let (holes, unstable) = (Vec::new(), false);
            one(samples::entry(
                "a",
                Node::File {
                    size: (1 << 40) + 1,
                    content,
                    holes,
                    unstable,
                },
            ))
        }),
        ("entry", "recipe-with-holes", recipe_flagged(16)),
        ("entry", "recipe-that-is-unstable", recipe_flagged(32)),
        ("entry", "zero-inode-flags", flagged(1, &[0; 4])),
        ("entry", "zero-project", flagged(2, &[0; 4])),
        ("entry", "no-xattrs", flagged(4, &[0])),
        (
            "entry",
            "link-of-a-directory",
            one(Entry {
                link: Some(LinkGroup([1; 16])),
                ..samples::entry(
                    "d",
                    Node::Directory {
                        tree: TreeId([1; 32]),
                    },
                )
            }),
        ),
        (
            "entry",
            "mode-over-07777",
            one(Entry {
                mode: 0o10000,
                ..fifo.clone()
            }),
        ),
        ("entry", "nanoseconds", {
            let mut entry = fifo.clone();
            entry.mtime.nanos = 1_000_000_000;
            one(entry)
        }),
        (
            "entry",
            "xattrs-not-sorted",
            with_xattrs(vec![inline(b"user.b"), inline(b"user.a")]),
        ),
        (
            "entry",
            "xattr-twice",
            with_xattrs(vec![inline(b"user.a"), inline(b"user.a")]),
        ),
        (
            "entry",
            "xattr-without-name",
            with_xattrs(vec![inline(b"")]),
        ),
        (
            "entry",
            "xattr-inline-too-long",
            with_xattrs(vec![Xattr {
                name: b"user.a".to_vec(),
                value: XattrValue::Inline(vec![0; 513]),
            }]),
        ),
        (
            "entry",
            "xattr-chunk-too-short",
            with_xattrs(vec![Xattr {
                name: b"user.a".to_vec(),
                value: XattrValue::Chunk {
                    id: ChunkId([1; 32]),
                    len: 512,
                },
            }]),
        ),
        (
            "entry",
            "empty-link-target",
            one(samples::entry("a", Node::Symlink { target: Vec::new() })),
        ),
        (
            "entry",
            "nul-in-link-target",
            one(samples::entry(
                "a",
                Node::Symlink {
                    target: b"a\0".to_vec(),
                },
            )),
        ),
        ("tree-node", "not-sorted", leaf(reversed)),
        (
            "tree-node",
            "name-twice",
            leaf(vec![entries[1].clone(), entries[1].clone()]),
        ),
        ("tree-node", "level-too-high", branch(13, &[b"a", b"b"])),
        ("tree-node", "branch-without-children", branch(1, &[])),
        ("tree-node", "children-not-sorted", branch(1, &[b"b", b"a"])),
        ("tree-node", "root-with-a-name", {
            let mut bytes = vec![0xff];
            bytes.extend(named(b"a"));
            bytes
        }),
        ("tree-node", "trailing", {
            let mut bytes = samples::leaf().encode();
            bytes.push(0);
            bytes
        }),
        ("tree-node", "overlong-count", vec![0, 0x80, 0x00]),
    ]
}

fn content_cases() -> Vec<Case> {
    let chunk = |len| Piece::Chunk {
        id: ChunkId([5; 32]),
        len,
    };
    let file = |size, content, holes: &[(u64, u64)]| {
        encoded(|out| {
            samples::entry(
                "f",
                Node::File {
                    size,
                    content,
                    holes: holes.to_vec(),
                    unstable: false,
                },
            )
            .encode(out);
        })
    };
    let pieces = |size, pieces: &[Piece]| file(size, Content::Pieces(pieces.to_vec()), &[]);
    let holes = |holes| file(100_000, Content::Pieces(vec![chunk(100_000)]), holes);
    let lists = |level, children: &[u64]| {
        ListNode::Lists {
            level,
            children: children
                .iter()
                .map(|bytes| (ListId([4; 32]), *bytes))
                .collect(),
        }
        .encode()
    };
    let max = i64::MAX as u64;
    vec![
        ("entry", "inline-too-long", {
            file(257, Content::Inline(vec![1; 257]), &[])
        }),
        ("entry", "size-of-pieces", pieces(100, &[chunk(99)])),
        ("entry", "no-pieces", pieces(100, &[])),
        (
            "entry",
            "too-many-pieces",
            pieces(257, &vec![chunk(1); 257]),
        ),
        (
            "entry",
            "two-zero-runs",
            pieces(2, &[Piece::Zero { len: 1 }, Piece::Zero { len: 1 }]),
        ),
        (
            "entry",
            "piece-too-long",
            pieces(1 << 25, &[chunk(1 << 25)]),
        ),
        (
            "entry",
            "list-too-deep",
            file(
                100,
                Content::List {
                    id: ListId([1; 32]),
                    level: 13,
                },
                &[],
            ),
        ),
        (
            "entry",
            "empty-list",
            file(
                0,
                Content::List {
                    id: ListId([1; 32]),
                    level: 0,
                },
                &[],
            ),
        ),
        ("entry", "hole-not-on-a-page", holes(&[(100, 4096)])),
        ("entry", "hole-of-half-a-page", holes(&[(4096, 2048)])),
        ("entry", "hole-of-nothing", holes(&[(4096, 0)])),
        ("entry", "holes-touch", holes(&[(4096, 4096), (8192, 4096)])),
        ("entry", "hole-behind-the-end", holes(&[(98_304, 4096)])),
        (
            "list-node",
            "no-pieces",
            ListNode::Pieces(Vec::new()).encode(),
        ),
        (
            "list-node",
            "zero-run-of-nothing",
            ListNode::Pieces(vec![Piece::Zero { len: 0 }]).encode(),
        ),
        (
            "list-node",
            "too-many-pieces",
            ListNode::Pieces(vec![chunk(1); 1025]).encode(),
        ),
        (
            "list-node",
            "pieces-over-any-file",
            ListNode::Pieces(vec![Piece::Zero { len: max }, chunk(1)]).encode(),
        ),
        ("list-node", "no-children", lists(1, &[])),
        ("list-node", "empty-child", lists(1, &[5, 0])),
        ("list-node", "children-over-any-file", lists(1, &[max, 1])),
        ("list-node", "level-too-high", lists(13, &[5])),
    ]
}

fn layer_cases() -> Vec<Case> {
    let recipe = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = samples::recipe();
        change(&mut recipe);
        recipe.encode()
    };
    let record = |change: &dyn Fn(&mut LayerRecord)| {
        let mut record = samples::layer_record();
        change(&mut record);
        record.encode_body()
    };
    let runs = |literals, payloads, numbers: &[u64]| {
        encoded(|out| {
            out.varint(literals).varint(payloads);
            for number in numbers {
                out.varint(*number);
            }
        })
    };
    vec![
        ("recipe", "recipe-of-a-recipe", {
            recipe(&|r| {
                r.literals.content = Content::Recipe {
                    id: ChunkId([1; 32]),
                };
            })
        }),
        ("recipe", "size-of-streams", recipe(&|r| r.size += 1)),
        (
            "recipe",
            "size-over-any-layer",
            recipe(&|r| r.size = (1 << 40) + 1),
        ),
        (
            "recipe",
            "no-runs",
            recipe(&|r| r.runs.content = Content::Inline(Vec::new())),
        ),
        ("recipe", "more-runs-than-bytes", {
            recipe(&|r| {
                r.runs = Stream {
                    size: r.size + 3,
                    content: r.payloads.content.clone(),
                };
            })
        }),
        ("runs", "no-literals-in-the-middle", {
            runs(10, 10, &[5, 5, 0, 5, 5, 0])
        }),
        ("runs", "no-payload-in-the-middle", {
            runs(10, 10, &[5, 0, 5, 10])
        }),
        ("runs", "a-run-of-nothing", runs(10, 0, &[0, 0, 10, 0])),
        ("runs", "over-the-literals", runs(10, 10, &[11, 10])),
        ("runs", "over-the-payloads", runs(10, 10, &[10, 11])),
        ("runs", "behind-the-streams", runs(10, 10, &[10, 10, 0])),
        ("runs", "less-than-the-streams", runs(10, 10, &[5, 5])),
        ("runs", "half-a-run", runs(10, 0, &[10])),
        (
            "runs",
            "longer-form-of-a-number",
            encoded(|out| {
                out.varint(10).varint(0).raw(&[0x8a, 0, 0]);
            }),
        ),
        ("layer-record", "not-sorted", {
            record(&|r| r.chunks.reverse())
        }),
        ("layer-record", "without-its-recipe", {
            record(&|r| r.recipe = ChunkId([7; 32]))
        }),
        (
            "layer-record",
            "size-over-any-layer",
            record(&|r| r.size = (1 << 40) + 1),
        ),
        ("layer-record", "trailing", {
            let mut bytes = samples::layer_record().encode_body();
            bytes.push(0);
            bytes
        }),
    ]
}

fn pack_cases() -> Vec<Case> {
    let header = BlockHeader {
        class: BlockClass::Small,
        compressed: false,
        sealed_len: 116,
        payload_len: 100,
        position: 200,
        counter: 0,
    };
    let block = |change: &dyn Fn(&mut BlockHeader)| {
        let mut header = header;
        change(&mut header);
        header.encode().to_vec()
    };
    let toc = |change: &dyn Fn(&mut Vec<podkeep_format::pack::TocBlock>)| {
        let mut toc = samples::toc();
        change(&mut toc);
        encode_toc(&toc)
    };
    let seal = |recipients| encoded(|out| SessionSeal { recipients }.encode(out));
    vec![
        ("block-header", "magic", patched("block-header", 0, b"X")),
        ("block-header", "version", patched("block-header", 4, &[2])),
        ("block-header", "class", patched("block-header", 5, &[9])),
        ("block-header", "flags", patched("block-header", 6, &[2])),
        ("block-header", "raw-length", block(&|h| h.sealed_len = 115)),
        (
            "block-header",
            "compressed-and-no-smaller",
            block(&|h| h.compressed = true),
        ),
        (
            "block-header",
            "too-large",
            block(&|h| {
                h.payload_len = (16 << 20) + 1;
                h.sealed_len = h.payload_len + 16;
            }),
        ),
        ("pack-header", "magic", patched("pack-header", 7, b"Q")),
        ("pack-header", "version", patched("pack-header", 8, &[9])),
        (
            "pack-header",
            "too-long",
            patched("pack-header", 9, &[0xff, 0xff, 0xff]),
        ),
        (
            "pack-header",
            "body-too-short",
            patched("pack-header", 9, &[50]),
        ),
        ("pack-trailer", "magic", patched("pack-trailer", 8, b"X")),
        (
            "pack-trailer",
            "toc-too-long",
            patched("pack-trailer", 3, &[0xff]),
        ),
        ("payload", "no-chunks", vec![0]),
        ("payload", "empty-chunk", vec![1, 1, 0]),
        ("payload", "chunk-kind", vec![1, 9, 1, 0]),
        ("payload", "data-too-short", vec![1, 1, 2, 0]),
        ("payload", "data-too-long", vec![1, 1, 1, 0, 0]),
        ("session-seal", "no-recipient", seal(Vec::new())),
        (
            "session-seal",
            "too-many-recipients",
            seal(vec![(0x20, vec![0; 80]); 17]),
        ),
        (
            "session-seal",
            "recipient-too-long",
            seal(vec![(0x20, vec![0; 4097])]),
        ),
        ("table-of-contents", "gap", toc(&|toc| toc[1].position += 1)),
        (
            "table-of-contents",
            "overlap",
            toc(&|toc| toc[1].position -= 1),
        ),
        (
            "table-of-contents",
            "chunks-over-the-payload",
            toc(&|toc| toc[0].chunks[0].len = 609),
        ),
        (
            "table-of-contents",
            "empty-chunk",
            toc(&|toc| toc[0].chunks[0].len = 0),
        ),
        (
            "table-of-contents",
            "no-chunks",
            toc(&|toc| toc[0].chunks.clear()),
        ),
        (
            "table-of-contents",
            "raw-length",
            toc(&|toc| toc[1].sealed_len += 1),
        ),
        ("segment", "magic", patched("segment", 0, b"X")),
        ("segment", "filter-lines", patched("segment", 20, &[2])),
        ("segment", "filter-bit", {
            let bytes = samples::segment_body();
            let at = (24..88).find(|at| bytes[*at] == 0).expect("an empty byte");
            patched("segment", at, &[1])
        }),
        ("segment", "fence", patched("segment", 88, &[0xee])),
        ("segment", "block-longer-than-its-payload", {
            // Header, one line of the filter, one fence, two packs; the first block's length.
            patched("segment", 24 + 64 + 8 + 64 + 8, &u32::MAX.to_le_bytes())
        }),
        ("segment", "block-behind-any-pack", {
            patched("segment", 24 + 64 + 8 + 64 + 4, &(1u32 << 30).to_le_bytes())
        }),
        ("segment", "trailing", {
            let mut bytes = samples::segment_body();
            bytes.push(0);
            bytes
        }),
    ]
}

fn record_cases() -> Vec<Case> {
    let lease = |change: &dyn Fn(&mut podkeep_format::lease::Lease)| {
        let mut lease = samples::lease();
        change(&mut lease);
        lease.encode_body()
    };
    let config = |change: &dyn Fn(&mut podkeep_format::config::Config)| {
        let mut config = samples::config();
        change(&mut config);
        config.encode_body()
    };
    let mut endorsement = samples::endorsement();
    endorsement.segments.reverse();
    let mut endorsed_layers = samples::endorsement();
    endorsed_layers.layers.reverse();
    let mut verdict = samples::verdict();
    verdict.snapshots.push(SnapshotId([0; 32]));
    let item = |kind, name: &[u8]| encoded(|out| Item::new(kind, name).encode(out));
    let mut certificate = samples::certificate();
    certificate.label = "x".repeat(257);
    vec![
        ("author", "label-too-long", certificate.encode_body()),
        ("author", "label-not-utf8", patched("author", 33, &[0xff])),
        (
            "revocation",
            "author-twice",
            Revocation {
                authors: vec![AuthorId([1; 32]); 2],
                number: 1,
            }
            .encode_body(),
        ),
        ("config", "odd-chunk-size", config(&|c| c.chunk_min = 8193)),
        (
            "config",
            "average-not-a-power-of-two",
            config(&|c| c.chunk_avg = 30_000),
        ),
        (
            "config",
            "min-not-below-avg",
            config(&|c| c.chunk_min = 32 << 10),
        ),
        (
            "config",
            "avg-over-max",
            config(&|c| c.chunk_max = 16 << 10),
        ),
        ("config", "huge-chunks", config(&|c| c.chunk_max = 16 << 20)),
        ("config", "tiny-blocks", config(&|c| c.block_bytes[2] = 0)),
        (
            "config",
            "huge-blocks",
            config(&|c| c.block_bytes[0] = 1 << 31),
        ),
        ("config", "tiny-packs", config(&|c| c.pack_bytes = 1)),
        ("config", "huge-packs", config(&|c| c.pack_bytes = 1 << 30)),
        (
            "config",
            "settles-never",
            config(&|c| c.settle_secs = Some(u32::MAX)),
        ),
        (
            "config",
            "huge-reserve",
            config(&|c| c.reserve_bytes = u64::MAX),
        ),
        ("config", "settle-tag", patched("config", 80, &[2])),
        ("endorsement", "not-sorted", endorsement.encode_body()),
        (
            "endorsement",
            "layers-not-sorted",
            endorsed_layers.encode_body(),
        ),
        ("verdict", "not-sorted", verdict.encode_body()),
        ("fence", "nanoseconds", {
            let mut fence = samples::fence();
            fence.time.nanos = u32::MAX;
            fence.encode_body()
        }),
        ("tombstone", "trailing", {
            let mut bytes = samples::tombstone().encode_body();
            bytes.push(0);
            bytes
        }),
        ("item", "kind", vec![11, 1, b'a']),
        ("item", "no-name", item(ItemKind::Volume, b"")),
        ("item", "nul", item(ItemKind::Volume, b"a\0")),
        ("item", "relative-path", item(ItemKind::Path, b"a")),
        ("item", "dot-dot", item(ItemKind::Path, b"/a/../b")),
        ("lease", "no-heartbeat", lease(&|l| l.heartbeat_secs = 0)),
        (
            "lease",
            "heartbeat-over-lease-time",
            lease(&|l| l.heartbeat_secs = 301),
        ),
        (
            "lease",
            "lasts-for-ever",
            lease(&|l| l.lease_secs = u32::MAX),
        ),
        ("lease", "purpose", patched("lease", 17, &[4])),
        (
            "lease",
            "number-over-its-digits",
            lease(&|l| l.number = 10_000_000_000_000_000),
        ),
    ]
}

fn snapshot_cases() -> Vec<Case> {
    let header = |change: &dyn Fn(&mut podkeep_format::snapshot::SnapshotHeader)| {
        let mut header = samples::snapshot_header();
        change(&mut header);
        header.encode_body()
    };
    let body = |change: &dyn Fn(&mut podkeep_format::snapshot::SnapshotBody)| {
        let mut body = samples::snapshot_body();
        change(&mut body);
        body.encode()
    };
    let range = |inside, outside, len| IdRange {
        inside,
        outside,
        len,
    };
    let map = |ranges: &[IdRange]| body(&|b| b.uid_map = ranges.to_vec());
    let run = |change: &dyn Fn(&mut podkeep_format::run::RunRecord)| {
        let mut run = samples::run_record();
        change(&mut run);
        run.encode_body()
    };
    vec![
        ("snapshot-header", "sequence-0", header(&|h| h.sequence = 0)),
        ("snapshot-header", "trailing", {
            let mut bytes = samples::snapshot_header().encode_body();
            bytes.push(0);
            bytes
        }),
        ("snapshot-body", "empty-id-range", map(&[range(0, 0, 0)])),
        (
            "snapshot-body",
            "id-ranges-overlap",
            map(&[range(0, 0, 10), range(9, 100, 1)]),
        ),
        (
            "snapshot-body",
            "id-range-wraps",
            map(&[range(0, u32::MAX, 2)]),
        ),
        (
            "snapshot-body",
            "too-many-id-ranges",
            map(&(0..341).map(|n| range(n, n, 1)).collect::<Vec<_>>()),
        ),
        (
            "snapshot-body",
            "more-samples-than-findings",
            body(&|b| b.findings = 0),
        ),
        (
            "snapshot-body",
            "too-many-samples",
            body(&|b| b.finding_samples = vec![String::new(); 33]),
        ),
        (
            "snapshot-body",
            "sample-too-long",
            body(&|b| b.finding_samples = vec!["x".repeat(1025)]),
        ),
        (
            "snapshot-body",
            "empty-definition",
            body(&|b| b.definition = Some((ChunkId([1; 32]), 0))),
        ),
        (
            "snapshot-body",
            "alias-twice",
            body(&|b| b.aliases = vec!["a".to_owned(); 2]),
        ),
        ("snapshot-body", "zone", body(&|b| b.zone_minutes = 1081)),
        (
            "snapshot-body",
            "host-name-not-utf8",
            patched("snapshot-body", 1, &[0xff]),
        ),
        ("run", "complete-and-failed", run(&|r| r.complete = true)),
        (
            "run",
            "host-name-too-long",
            run(&|r| r.host_name = "x".repeat(1025)),
        ),
    ]
}
