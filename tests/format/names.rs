//! Names of objects.

use podkeep_format::id::{
    AuthorId, EndorsementId, LayerKey, LayerRecordId, LeaseId, PackId, RunId, SegmentId, SlotId,
    SnapshotId,
};
use podkeep_format::names::{self, NUMBER_MAX, Name};

#[test]
fn names_are_what_the_specification_says() {
    let (a, b) = ("ab".repeat(32), "ab".repeat(16));
    let lease = LeaseId([0xab; 16]);
    let pack = PackId([0xab; 32]);
    let cases = [
        (Name::Config { second: false }, "config".to_owned()),
        (Name::Config { second: true }, "config.2".to_owned()),
        (
            Name::Key {
                slot: SlotId([0xab; 16]),
                second: false,
            },
            format!("keys/{b}"),
        ),
        (
            Name::Key {
                slot: SlotId([0xab; 16]),
                second: true,
            },
            format!("keys/{b}.2"),
        ),
        (Name::Author(AuthorId([0xab; 32])), format!("authors/{a}")),
        (
            Name::Revocation(12),
            "revocations/0000000000000012".to_owned(),
        ),
        (Name::Pack(pack), format!("packs/ab/{a}")),
        (Name::Segment(SegmentId([0xab; 32])), format!("index/{a}")),
        (
            Name::Snapshot {
                id: SnapshotId([0xab; 32]),
                second: false,
            },
            format!("snapshots/{a}"),
        ),
        (
            Name::Snapshot {
                id: SnapshotId([0xab; 32]),
                second: true,
            },
            format!("snapshots/{a}.2"),
        ),
        (Name::Run(RunId([0xab; 16])), format!("runs/{b}")),
        (
            Name::Lease(lease, NUMBER_MAX),
            format!("leases/{b}/9999999999999999"),
        ),
        (Name::Tombstone(pack), format!("tombstones/{a}")),
        (Name::Fence(lease), format!("fences/{b}")),
        (Name::Verdict(lease), format!("fences/{b}.verdict")),
        (
            Name::Endorsement(EndorsementId([0xab; 32])),
            format!("endorsements/{a}"),
        ),
        (Name::Reserve(0), "reserve/0000000000000000".to_owned()),
        (
            Name::Layer {
                layer: LayerKey([0xab; 32]),
                record: LayerRecordId([0xab; 32]),
            },
            format!("layers/{a}.{a}"),
        ),
    ];
    for (name, text) in cases {
        assert_eq!(name.to_text(), text);
        assert_eq!(Name::parse(&text), Some(name));
        assert!(text.len() <= 200);
    }
    assert!(names::lease(lease, 3).starts_with(&names::lease_folder(lease)));
    assert!(names::pack(pack).starts_with(&names::pack_shard(0xab)));
}

#[test]
fn other_names_are_not_podkeeps() {
    let (a, b) = ("ab".repeat(32), "ab".repeat(16));
    for foreign in [
        String::new(),
        "config.3".to_owned(),
        "config.2.2".to_owned(),
        "configs".to_owned(),
        "config/".to_owned(),
        format!("keys/{}", b.to_uppercase()),
        format!("keys/{a}"),
        format!("keys/{b}/"),
        format!("authors/{a}.2"),
        "revocations/12".to_owned(),
        "revocations/+000000000000012".to_owned(),
        format!("packs/{a}"),
        format!("packs/ac/{a}"),
        format!("packs/abab/{a}"),
        format!("packs//{a}"),
        "packs/ab/".to_owned(),
        format!("leases/{b}"),
        format!("leases/{b}/1"),
        format!("fences/{b}.verdict.verdict"),
        format!("layers/{a}"),
        format!("layers/{a}.{b}"),
        format!("layers/{a}.{a}.2"),
        format!("layers/{a}/{a}"),
        format!("index/{a}.tmp"),
    ] {
        assert_eq!(Name::parse(&foreign), None, "{foreign}");
    }
}
