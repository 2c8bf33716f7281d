//! Packs and segments as wholes: what is written is found again, and nothing else.

use podkeep_format::block::{
    BlockClass, BlockHeader, HEADER_BYTES, PayloadBuilder, decode_payload,
};
use podkeep_format::id::{ChunkId, ChunkKind, PackId};
use podkeep_format::pack::{PackHeader, TocBlock, TocChunk, decode_toc, encode_toc, open_toc};
use podkeep_format::segment::{Segment, SegmentBuilder, open_segment};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, proptest};
use proptest::sample::select;

use crate::samples::{self, REPOSITORY, bytes32, index, pack, payload, session, toc, writer};

fn cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    }
}

/// Blocks that follow each other, with chunks that fill their payloads.
fn blocks() -> impl Strategy<Value = Vec<TocBlock>> {
    let chunk = (any::<[u8; 32]>(), select(&ChunkKind::ALL[..]), 1..5000u32);
    let block = (
        select(&BlockClass::ALL[..]),
        any::<bool>(),
        vec(chunk, 1..40),
    );
    (50..500u64, vec(block, 1..8)).prop_map(|(start, blocks)| {
        let mut position = start;
        let mut toc = Vec::new();
        for (class, compressed, chunks) in blocks {
            let data: u32 = chunks.iter().map(|(_, _, len)| len).sum();
            let payload_len = data + 3 + 3 * chunks.len() as u32;
            let sealed_len = match compressed {
                true => payload_len / 2 + 17,
                false => payload_len + 16,
            };
            toc.push(TocBlock {
                position,
                class,
                compressed,
                sealed_len,
                payload_len,
                chunks: chunks
                    .into_iter()
                    .map(|(id, kind, len)| TocChunk {
                        id: ChunkId(id),
                        kind,
                        len,
                    })
                    .collect(),
            });
            position += HEADER_BYTES as u64 + u64::from(sealed_len);
        }
        toc
    })
}

/// A table that is longer than the room in front of the chunks.
#[test]
fn a_payload_of_many_small_chunks() {
    let mut payload = PayloadBuilder::new();
    for n in 0..10_000u32 {
        assert_eq!(payload.push(ChunkKind::Data, &n.to_le_bytes()), 4 * n);
    }
    assert_eq!(payload.data_len(), 40_000);
    let payload = payload.finish();
    let found = decode_payload(&payload).expect("sound");
    assert_eq!(found.len(), 10_000);
    for (n, (kind, range)) in (0u32..).zip(found) {
        assert_eq!(
            (kind, &payload[range]),
            (ChunkKind::Data, &n.to_le_bytes()[..])
        );
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn tables_of_contents(toc in blocks()) {
        prop_assert_eq!(decode_toc(&encode_toc(&toc)).expect("sound"), toc);
    }

    #[test]
    fn payloads(chunks in vec((select(&ChunkKind::ALL[..]), vec(any::<u8>(), 1..300)), 1..20)) {
        let mut payload = PayloadBuilder::new();
        let mut offsets = Vec::new();
        for (kind, bytes) in &chunks {
            assert!(payload.has_room(bytes.len()));
            offsets.push(payload.push(*kind, bytes) as usize);
        }
        let payload = payload.finish();
        let found = decode_payload(&payload).expect("sound");
        prop_assert_eq!(found.len(), chunks.len());
        let start = found[0].1.start;
        for (n, (kind, range)) in found.into_iter().enumerate() {
            prop_assert_eq!(range.start, start + offsets[n]);
            prop_assert_eq!((kind, &payload[range]), (chunks[n].0, &chunks[n].1[..]));
        }
    }

    #[test]
    fn segments_find_every_chunk_and_no_other(
        packs in vec((any::<[u8; 32]>(), blocks()), 1..4), unknown in vec(any::<[u8; 32]>(), 20),
    ) {
        let mut segment = SegmentBuilder::new();
        for (pack, toc) in &packs {
            segment.push(PackId(*pack), toc);
        }
        let records = segment.records();
        let segment = Segment::parse(segment.finish()).expect("sound");
        prop_assert_eq!(segment.len(), records);
        prop_assert_eq!(segment.packs().collect::<Vec<_>>(),
            packs.iter().map(|(pack, _)| PackId(*pack)).collect::<Vec<_>>());
        for (pack, toc) in &packs {
            for block in toc {
                let mut offset = 0;
                for chunk in &block.chunks {
                    let place = segment.places(&chunk.id).find(|place| {
                        place.block.pack.0 == *pack
                            && u64::from(place.block.position) == block.position
                            && place.offset == offset
                    });
                    let place = place.expect("every chunk has its place");
                    prop_assert_eq!(place.len, chunk.len);
                    prop_assert_eq!(place.block.class, block.class);
                    offset += chunk.len;
                }
            }
        }
        for id in unknown {
            prop_assert_eq!(segment.places(&ChunkId(id)).count(), 0);
        }
    }
}

/// Look-up memory and time stand on it: about one unknown id in a hundred may touch a record.
#[test]
fn the_filter_keeps_unknown_ids_out() {
    let mut segment = SegmentBuilder::new();
    for pack in 0..20u32 {
        let chunks = (0..1000u32).map(|chunk| TocChunk {
            id: ChunkId(bytes32(&format!("{pack} {chunk}"))),
            kind: ChunkKind::Data,
            len: 10,
        });
        let block = TocBlock {
            position: 200,
            class: BlockClass::Small,
            compressed: false,
            sealed_len: 12_016,
            payload_len: 12_000,
            chunks: chunks.collect(),
        };
        segment.push(PackId(bytes32(&format!("pack {pack}"))), &[block]);
    }
    let segment = Segment::parse(segment.finish()).expect("sound");
    let unknown = (0..20_000u32).map(|n| ChunkId(bytes32(&format!("unknown {n}"))));
    let passed = unknown.filter(|id| segment.may_contain(id)).count();
    assert!(passed < 400, "{passed} of 20000 pass the filter");
}

#[test]
fn a_pack_is_read_from_its_end_and_from_its_start() {
    let finished = pack();
    let bytes = &finished.bytes;
    let (header, toc) = open_toc(REPOSITORY, &index(), bytes).expect("sound");
    assert_eq!(header, samples::pack_header());
    assert_eq!(toc, finished.blocks);
    // Without its tail: header, then blocks that say where they lie.
    let (front, len) = PackHeader::decode(bytes).expect("sound");
    assert_eq!(front, header);
    let block = BlockHeader::decode(&bytes[len..len + HEADER_BYTES]).expect("sound");
    assert_eq!(block.position, len as u64);
    assert_eq!(block.position, toc[0].position);
    let end = len + HEADER_BYTES + block.sealed_len as usize;
    let mut sealed = bytes[len + HEADER_BYTES..end].to_vec();
    let opened = header
        .block_key(REPOSITORY, &session())
        .open(
            &bytes[len..len + HEADER_BYTES],
            u64::from(block.counter),
            &mut sealed,
        )
        .expect("opens");
    assert_eq!(opened, payload());
    for (range, chunk) in decode_payload(opened)
        .expect("sound")
        .into_iter()
        .zip(&toc[0].chunks)
    {
        let id = samples::ids().chunk_id(range.0, &opened[range.1]);
        assert_eq!((id, range.0), (chunk.id, chunk.kind));
    }
}

/// Packs are named by the hash of their bytes; still, whoever indexes one without knowing its
/// name must notice every change to what the table of contents is about.
#[test]
fn a_table_of_contents_covers_the_blocks() {
    let bytes = pack().bytes;
    assert!(open_toc(REPOSITORY, &index(), &bytes).is_ok());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        assert!(
            open_toc(REPOSITORY, &index(), &changed).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn a_sealed_segment_is_of_its_author() {
    let sealed = samples::objects()
        .into_iter()
        .find(|(name, _)| *name == "segment")
        .map(|(_, bytes)| bytes)
        .expect("a segment");
    let (author, body) = open_segment(REPOSITORY, &index(), sealed).expect("sound");
    assert_eq!(author, writer().id());
    assert_eq!(body, samples::segment_body());
    assert_eq!(
        Segment::parse(body).expect("sound").len(),
        toc().iter().map(|block| block.chunks.len()).sum::<usize>() + toc()[0].chunks.len()
    );
}
