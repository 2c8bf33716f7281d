//! Every value comes back from its encoding, and every encoding is the only one.

use podkeep_format::author::{AuthorCertificate, Revocation};
use podkeep_format::codec::{Decoder, Defect, Encoder};
use podkeep_format::config::Config;
use podkeep_format::endorsement::Endorsement;
use podkeep_format::fence::{Fence, Verdict};
use podkeep_format::frame::Statement;
use podkeep_format::id::{
    AuthorId, ChunkId, DiffId, HostId, LayerKey, LayerRecordId, LeaseId, PackId, RepositoryId,
    RunId, SegmentId, SnapshotId, TreeId,
};
use podkeep_format::item::{Escaped, Item, ItemKind, unescape};
use podkeep_format::layer::LayerRecord;
use podkeep_format::lease::{Lease, Purpose};
use podkeep_format::recipe::{LAYER_BYTES_MAX, Recipe, Run, RunsDecoder, RunsEncoder, Stream};
use podkeep_format::run::RunRecord;
use podkeep_format::seal::PublicKey;
use podkeep_format::snapshot::{Consistency, SnapshotBody, SnapshotHeader};
use podkeep_format::tombstone::Tombstone;
use podkeep_format::tree::{Content, Entry, ListNode, TreeNode};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, proptest};
use proptest::sample::select;

use crate::decoders::{DECODERS, accepts, decoder};
use crate::random::{content, entry, id_map, item, list_node, text, time, tree_node};
use crate::samples::{REPOSITORY, bodies, index, owner};

fn cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(128)
    }
}

fn config() -> impl Strategy<Value = Config> {
    let sizes = (8..=22u32, 1..=1000u32).prop_map(|(bits, part)| {
        let avg = 1u32 << bits;
        let min = (avg / 1001 * part / 2 * 2).clamp(64, avg - 2);
        (min, avg, (avg + avg / 1001 * part / 2 * 2).min(8 << 20))
    });
    (
        (any::<[u8; 16]>(), any::<[u8; 32]>(), sizes),
        (
            [
                4096..=8u32 << 20,
                4096..=8 << 20,
                4096..=8 << 20,
                4096..=8 << 20,
            ],
            65_536..=512u32 << 20,
            option::of(0..=86_400u32),
            0..=1u64 << 40,
            time(),
        ),
    )
        .prop_map(|((repository, key, (min, avg, max)), rest)| {
            let (block_bytes, pack_bytes, settle_secs, reserve_bytes, created) = rest;
            Config {
                repository: RepositoryId(repository),
                public_key: PublicKey(key),
                owner: owner().id(),
                chunk_min: min,
                chunk_avg: avg,
                chunk_max: max,
                block_bytes,
                pack_bytes,
                settle_secs,
                reserve_bytes,
                created,
            }
        })
}

fn header() -> impl Strategy<Value = SnapshotHeader> {
    (
        any::<[u8; 16]>(),
        item(),
        1..=u64::MAX,
        option::of(any::<[u8; 32]>()),
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        time(),
    )
        .prop_map(
            |(host, item, sequence, predecessor, lease, run, time)| SnapshotHeader {
                author: AuthorId([7; 32]),
                host: HostId(host),
                item,
                sequence,
                predecessor: predecessor.map(SnapshotId),
                lease: LeaseId(lease),
                run: RunId(run),
                time,
            },
        )
}

fn body() -> impl Strategy<Value = SnapshotBody> {
    (
        (
            text(200),
            option::of(any::<[u8; 32]>()),
            option::of((any::<[u8; 32]>(), 1..=u32::MAX)),
            id_map(),
            id_map(),
            select(&Consistency::ALL[..]),
        ),
        (
            any::<bool>(),
            32..=u64::MAX,
            vec(text(1024), 0..=32),
            time(),
            time(),
            -1080..=1080i16,
        ),
        (
            any::<bool>(),
            vec(text(256), 0..10),
            any::<[u64; 5]>(),
            vec(text(400), 0..10),
            any::<[bool; 2]>(),
            [text(64), text(64), text(64)],
            btree_set(text(64), 0..5),
        ),
    )
        .prop_map(|(first, second, third)| {
            let (host_name, root, definition, uid_map, gid_map, consistency) = first;
            let (complete, findings, finding_samples, started, finished, zone_minutes) = second;
            let (scope_all, tags, numbers, excludes, switches, texts, aliases) = third;
            let [exclude_caches, cross_mounts] = switches;
            let [
                files,
                directories,
                bytes_logical,
                bytes_allocated,
                bytes_read,
            ] = numbers;
            let [driver, podman_version, podkeep_version] = texts;
            SnapshotBody {
                host_name,
                aliases: aliases.into_iter().collect(),
                root: root.map(TreeId),
                definition: definition.map(|(id, len)| (ChunkId(id), len)),
                uid_map,
                gid_map,
                consistency,
                complete,
                findings,
                finding_samples,
                started,
                finished,
                zone_minutes,
                scope_all,
                tags,
                files,
                directories,
                bytes_logical,
                bytes_allocated,
                bytes_read,
                excludes,
                exclude_caches,
                cross_mounts,
                driver,
                podman_version,
                podkeep_version,
            }
        })
}

fn run() -> impl Strategy<Value = RunRecord> {
    (
        (any::<[[u8; 16]; 2]>(), text(100), any::<bool>()),
        (
            vec(any::<[u8; 32]>(), 0..20),
            vec((item(), text(500)), 0..5),
        ),
        (vec(text(100), 0..5), time(), time(), -1080..=1080i16),
        any::<[u64; 4]>(),
    )
        .prop_map(|(ids, items, rest, numbers)| {
            let ([run, host], host_name, scope_all) = ids;
            let (snapshots, items_failed) = items;
            let (tags, started, finished, zone_minutes) = rest;
            let [bytes_read, bytes_logical, bytes_added, files] = numbers;
            RunRecord {
                run: RunId(run),
                author: AuthorId([7; 32]),
                host: HostId(host),
                host_name,
                snapshots: snapshots.into_iter().map(SnapshotId).collect(),
                complete: items_failed.is_empty(),
                items_failed,
                scope_all,
                tags,
                started,
                finished,
                zone_minutes,
                bytes_read,
                bytes_logical,
                bytes_added,
                files,
            }
        })
}

fn lease() -> impl Strategy<Value = Lease> {
    (
        (any::<[[u8; 16]; 2]>(), 0..=9_999_999_999_999_999u64),
        select(&Purpose::ALL[..]),
        (text(100), 1..=300u32, 300..=604_800u32, time()),
    )
        .prop_map(|(([lease, host], number), purpose, rest)| {
            let (host_name, heartbeat_secs, lease_secs, time) = rest;
            Lease {
                lease: LeaseId(lease),
                number,
                purpose,
                author: owner().id(),
                host: HostId(host),
                host_name,
                heartbeat_secs,
                lease_secs,
                time,
            }
        })
}

fn sorted() -> impl Strategy<Value = Vec<[u8; 32]>> {
    btree_set(any::<[u8; 32]>(), 0..20).prop_map(|ids| ids.into_iter().collect())
}

fn stream() -> impl Strategy<Value = Stream> {
    content().prop_map(|(size, content)| {
        let size = match content {
            // Any size goes with a list: one that a layer may have.
            Content::List { .. } => size % (1 << 38) + 1,
            _ => size,
        };
        Stream { size, content }
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn varints(value: u64, signed: i64) {
        let mut out = Encoder::new();
        out.varint(value).varint_signed(signed);
        let bytes = out.finish();
        let mut input = Decoder::new("varints", &bytes);
        prop_assert_eq!(input.varint(), Ok(value));
        prop_assert_eq!(input.varint_signed(), Ok(signed));
        prop_assert_eq!(input.end(), Ok(()));
    }

    #[test]
    fn configs(config in config()) {
        prop_assert_eq!(&Config::decode(&config.encode(&owner())).expect("sound"), &config);
    }

    #[test]
    fn snapshot_headers(value in header()) {
        let bytes = value.encode_body();
        prop_assert_eq!(SnapshotHeader::decode_body(value.author, &bytes).expect("sound"), value);
    }

    #[test]
    fn snapshot_bodies(value in body()) {
        prop_assert_eq!(SnapshotBody::decode(&value.encode()).expect("sound"), value);
    }

    #[test]
    fn runs(value in run()) {
        let bytes = value.encode_body();
        prop_assert_eq!(RunRecord::decode_body(value.author, &bytes).expect("sound"), value);
    }

    #[test]
    fn leases(value in lease(), salt: [u8; 32]) {
        let bytes = value.seal(REPOSITORY, &index(), &owner(), &salt).expect("seals");
        prop_assert_eq!(Lease::open(&bytes, REPOSITORY, &index()).expect("sound"), value);
    }

    #[test]
    fn tombstones(pack: [u8; 32], prune: [u8; 16], time in time(), salt: [u8; 32]) {
        let value = Tombstone {
            pack: PackId(pack), prune: LeaseId(prune), author: owner().id(), time,
        };
        let bytes = value.seal(REPOSITORY, &index(), &owner(), &salt).expect("seals");
        prop_assert_eq!(Tombstone::open(&bytes, REPOSITORY, &index()).expect("sound"), value);
    }

    #[test]
    fn fences_and_verdicts(
        lease: [u8; 16], prune: [u8; 16], time in time(), named in sorted(), salt: [u8; 32],
    ) {
        let (lease, prune, author) = (LeaseId(lease), LeaseId(prune), owner().id());
        let fence = Fence { lease, prune, author, time };
        let bytes = fence.seal(REPOSITORY, &index(), &owner(), &salt).expect("seals");
        prop_assert_eq!(Fence::open(&bytes, REPOSITORY, &index()).expect("sound"), fence);
        let snapshots: Vec<SnapshotId> = named.into_iter().map(SnapshotId).collect();
        let verdict = Verdict { lease, prune, author, snapshots, time };
        for id in &verdict.snapshots {
            assert!(verdict.counts(id));
        }
        assert!(!verdict.counts(&SnapshotId(salt)));
        let bytes = verdict.seal(REPOSITORY, &index(), &owner(), &salt).expect("seals");
        prop_assert_eq!(Verdict::open(&bytes, REPOSITORY, &index()).expect("sound"), verdict);
    }

    #[test]
    fn endorsements(
        segments in sorted(), layers in sorted(), time in time(), salt: [u8; 32],
    ) {
        let segments = segments.into_iter().map(SegmentId).collect();
        let layers = layers.into_iter().map(LayerRecordId).collect();
        let value = Endorsement { author: owner().id(), segments, layers, time };
        let bytes = value.seal(REPOSITORY, &index(), &owner(), &salt).expect("seals");
        prop_assert_eq!(Endorsement::open(&bytes, REPOSITORY, &index()).expect("sound"), value);
    }

    #[test]
    fn layer_records(
        layer: [u8; 32], recipe: [u8; 32], size in 0..=LAYER_BYTES_MAX, others in sorted(),
        salt: [u8; 32],
    ) {
        let mut chunks: Vec<ChunkId> = others.into_iter().map(ChunkId).collect();
        chunks.push(ChunkId(recipe));
        chunks.sort();
        let (layer, recipe, author) = (LayerKey(layer), ChunkId(recipe), owner().id());
        let value = LayerRecord { author, layer, recipe, size, chunks };
        let bytes = value.seal(REPOSITORY, &index(), &owner(), &salt).expect("seals");
        prop_assert_eq!(LayerRecord::open(&bytes, REPOSITORY, &index()).expect("sound"), value);
    }

    #[test]
    fn recipes(diff_id: [u8; 32], literals in stream(), payloads in stream(), runs in stream()) {
        let mut runs = runs;
        let size = literals.size.saturating_add(payloads.size);
        let fits = size <= LAYER_BYTES_MAX
            && (runs.size == 0) == (size == 0)
            && runs.size <= size.saturating_add(2);
        if !fits {
            runs = Stream { size: 0, content: Content::Inline(Vec::new()) };
        }
        let value = Recipe { diff_id: DiffId(diff_id), size, literals, payloads, runs };
        let decoded = Recipe::decode(&value.encode());
        if fits {
            prop_assert_eq!(decoded.expect("sound"), value);
        } else {
            prop_assert_eq!(decoded.is_ok(), size == 0);
        }
    }

    #[test]
    fn layer_runs(parts in vec((any::<bool>(), 0..1u64 << 40), 0..60), split in 1..9usize) {
        let (mut encoder, mut bytes) = (RunsEncoder::new(), Vec::new());
        let mut expected: Vec<Run> = Vec::new();
        let mut sums = Run::default();
        for (literal, len) in &parts {
            if *literal {
                encoder.literals(*len, &mut bytes);
                sums.literals += len;
                if *len > 0 && expected.last().is_none_or(|run| run.payloads > 0) {
                    expected.push(Run::default());
                }
            } else {
                encoder.payloads(*len);
                sums.payloads += len;
                if *len > 0 && expected.is_empty() {
                    expected.push(Run::default());
                }
            }
            if let Some(run) = expected.last_mut() {
                run.literals += if *literal { *len } else { 0 };
                run.payloads += if *literal { 0 } else { *len };
            }
        }
        encoder.finish(&mut bytes);
        let mut decoder = RunsDecoder::new(sums.literals, sums.payloads);
        let mut found = Vec::new();
        for part in bytes.chunks(split) {
            decoder.push(part, &mut |run| found.push(run)).expect("sound");
        }
        prop_assert_eq!(decoder.finish(), Ok(()));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn authors(author: [u8; 32], label in text(256), created in time()) {
        let value = AuthorCertificate { author: AuthorId(author), label, created };
        let bytes = value.encode(REPOSITORY, &owner()).expect("encodes");
        let read = AuthorCertificate::decode(&bytes, REPOSITORY, owner().id());
        prop_assert_eq!(read.expect("sound"), value);
    }

    #[test]
    fn revocations(authors in sorted(), number in 0..=9_999_999_999_999_999u64) {
        let authors = authors.into_iter().map(AuthorId).collect();
        let value = Revocation { authors, number };
        let bytes = value.encode(REPOSITORY, &owner()).expect("encodes");
        let read = Revocation::decode(&bytes, REPOSITORY, owner().id());
        prop_assert_eq!(read.expect("sound"), value);
    }

    #[test]
    fn items(item in item()) {
        let mut out = Encoder::new();
        item.encode(&mut out);
        let bytes = out.finish();
        prop_assert_eq!(Item::decode(&mut Decoder::new("item", &bytes)).expect("sound"), item);
    }

    #[test]
    fn entries(entry in entry()) {
        let mut out = Encoder::new();
        entry.encode(&mut out);
        let bytes = out.finish();
        let mut input = Decoder::new("entry", &bytes);
        prop_assert_eq!(Entry::decode(&mut input, false).expect("sound"), entry);
        prop_assert_eq!(input.end(), Ok(()));
    }

    #[test]
    fn tree_nodes(node in tree_node()) {
        prop_assert_eq!(TreeNode::decode(&node.encode()).expect("sound"), node);
    }

    #[test]
    fn list_nodes(node in list_node()) {
        prop_assert_eq!(ListNode::decode(&node.encode()).expect("sound"), node);
    }

    #[test]
    fn escaped_bytes(bytes in vec(any::<u8>(), 0..60)) {
        let shown = Escaped(&bytes).to_string();
        assert!(!shown.chars().any(char::is_control));
        prop_assert_eq!(unescape(shown.as_bytes()), Some(bytes));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        for (name, _) in DECODERS {
            accepts(name, &bytes);
        }
    }
}

/// A decoder that let one bit through would give one value two encodings.
#[test]
fn every_flipped_bit_is_refused_or_is_another_value() {
    for (name, bytes) in bodies() {
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            accepts(name, &changed);
        }
    }
}

#[test]
fn every_cut_and_every_byte_too_many_is_refused() {
    for (name, bytes) in bodies() {
        for len in 0..bytes.len() {
            let refused = decoder(name)(&bytes[..len]);
            assert!(refused.is_err(), "{name} cut to {len}");
        }
        let mut longer = bytes;
        longer.push(0);
        match decoder(name)(&longer) {
            // Stands in front of other bytes, and says where it ends.
            Ok(again) => assert!(name == "pack-header" && again == longer, "{name}"),
            Err(error) => assert_eq!(error.defect, Defect::Trailing, "{name}"),
        }
    }
}

#[test]
fn paths_are_plain() {
    let decode = |path: &[u8]| {
        let mut out = Encoder::new();
        Item::new(ItemKind::Path, path).encode(&mut out);
        Item::decode(&mut Decoder::new("item", out.as_slice())).map(|_| ())
    };
    for plain in [&b"/"[..], b"/a", b"/srv/data", b"/.../..x", b"/\xff\n"] {
        assert_eq!(decode(plain), Ok(()));
    }
    for other in [
        &b"a"[..],
        b"./a",
        b"//",
        b"/a/",
        b"/a//b",
        b"/..",
        b"/a/../b",
        b"/./a",
        b"/a/.",
    ] {
        let refused = decode(other).unwrap_err();
        assert_eq!(refused.defect, Defect::NotCanonical("item name"));
    }
}

#[test]
fn a_configs_pin_is_its_identity() {
    let config = crate::samples::config();
    let pin = config.pin();
    let settings = Config {
        pack_bytes: 1 << 20,
        settle_secs: None,
        ..config.clone()
    };
    assert_eq!(settings.pin(), pin, "settings are not identity");
    for other in [
        Config {
            repository: RepositoryId([0; 16]),
            ..config.clone()
        },
        Config {
            public_key: PublicKey([9; 32]),
            ..config.clone()
        },
        Config {
            owner: AuthorId([9; 32]),
            ..config
        },
    ] {
        assert_ne!(other.pin(), pin);
    }
}
