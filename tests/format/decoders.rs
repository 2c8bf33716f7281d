//! Every decoder of plain bytes under one name: what the malformed vectors, the one-bit tests and
//! the fuzz targets run. The fuzz crate includes this file by path.

use podkeep_format::author::{AuthorCertificate, Revocation};
use podkeep_format::block::{BlockHeader, PayloadBuilder, decode_payload};
use podkeep_format::codec::{DecodeError, Decoder, Encoder};
use podkeep_format::config::Config;
use podkeep_format::endorsement::Endorsement;
use podkeep_format::fence::{Fence, Verdict};
use podkeep_format::frame::Statement;
use podkeep_format::id::{AuthorId, ChunkId};
use podkeep_format::item::{Item, unescape};
use podkeep_format::keys::{HandedKeys, KeySlot, WriteKeyFile};
use podkeep_format::layer::LayerRecord;
use podkeep_format::lease::Lease;
use podkeep_format::names::Name;
use podkeep_format::pack::{PackHeader, PackTail, decode_toc, encode_toc};
use podkeep_format::recipe::{Recipe, RunsDecoder, RunsEncoder};
use podkeep_format::run::RunRecord;
use podkeep_format::seal::SessionSeal;
use podkeep_format::segment::Segment;
use podkeep_format::snapshot::{SnapshotBody, SnapshotHeader};
use podkeep_format::tombstone::Tombstone;
use podkeep_format::tree::{Entry, ListNode, TreeNode};
use podkeep_format::wire::{
    ASSEMBLY_BYTES_MAX, Answer, Call, Failure, Far, FarEvent, Greeting, NOISE_BYTES_MAX, Near,
    PAYLOAD_BYTES_MAX, Request, decode_told, encode_told,
};

/// Decodes, and encodes again what came out.
pub type Recode = fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

/// Bodies name their author outside; any will do.
const AUTHOR: AuthorId = AuthorId([7; 32]);

pub const DECODERS: &[(&str, Recode)] = &[
    ("author", |b| {
        Ok(AuthorCertificate::decode_body(b)?.encode_body())
    }),
    ("block-header", |b| {
        Ok(BlockHeader::decode(b)?.encode().to_vec())
    }),
    ("config", |b| {
        Ok(Config::decode_body(AUTHOR, b)?.encode_body())
    }),
    ("endorsement", |b| {
        Ok(Endorsement::decode_body(AUTHOR, b)?.encode_body())
    }),
    ("entry", |b| {
        whole("entry", b, |input, out| {
            Entry::decode(input, false)?.encode(out);
            Ok(())
        })
    }),
    (
        "fence",
        |b| Ok(Fence::decode_body(AUTHOR, b)?.encode_body()),
    ),
    ("item", |b| {
        whole("item", b, |input, out| {
            Item::decode(input)?.encode(out);
            Ok(())
        })
    }),
    ("layer-record", |b| {
        Ok(LayerRecord::decode_body(AUTHOR, b)?.encode_body())
    }),
    (
        "lease",
        |b| Ok(Lease::decode_body(AUTHOR, b)?.encode_body()),
    ),
    ("list-node", |b| Ok(ListNode::decode(b)?.encode())),
    ("pack-header", |b| {
        let (header, len) = PackHeader::decode(b)?;
        let mut bytes = header.encode();
        bytes.extend_from_slice(&b[len..]);
        Ok(bytes)
    }),
    ("pack-trailer", |b| {
        let tail = PackTail::decode(1 << 30, b)?;
        let mut out = Encoder::new();
        out.u32(tail.toc_len as u32)
            .u32(tail.header_len as u32)
            .raw(b"Ppeekdop");
        Ok(out.finish())
    }),
    ("payload", |b| {
        let mut payload = PayloadBuilder::new();
        for (kind, range) in decode_payload(b)? {
            payload.push(kind, &b[range]);
        }
        Ok(payload.finish().to_vec())
    }),
    ("recipe", |b| Ok(Recipe::decode(b)?.encode())),
    ("revocation", |b| {
        Ok(Revocation::decode_body(b)?.encode_body())
    }),
    ("run", |b| {
        Ok(RunRecord::decode_body(AUTHOR, b)?.encode_body())
    }),
    ("runs", |b| {
        // The sizes of the streams stand in the recipe; here, in front.
        whole("layer runs", b, |input, out| {
            let literals = input.bounded("literals", 1 << 62)?;
            let payloads = input.bounded("payloads", 1 << 62)?;
            out.varint(literals).varint(payloads);
            let mut runs = RunsDecoder::new(literals, payloads);
            let (mut again, mut encoded) = (RunsEncoder::new(), Vec::new());
            // Wherever the bytes are parted, the runs are the same.
            for part in input.take_rest().chunks(3) {
                runs.push(part, &mut |run| {
                    again.literals(run.literals, &mut encoded);
                    again.payloads(run.payloads);
                })?;
            }
            runs.finish()?;
            again.finish(&mut encoded);
            out.raw(&encoded);
            Ok(())
        })
    }),
    ("segment", |b| {
        // Its records do not say in which kind of chunk they lie, so it cannot be built again;
        // every look-up into it must hold.
        let segment = Segment::parse(b)?;
        let mut last = None;
        for (id, place) in segment.entries() {
            assert!(segment.places(&id).any(|found| found == place));
            assert!(last <= Some(id));
            last = Some(id);
        }
        assert_eq!(segment.ids().count(), segment.len());
        assert!(segment.packs().count() <= segment.blocks().count());
        let _ = segment.places(&ChunkId([0x5a; 32])).count();
        Ok(b.to_vec())
    }),
    ("session-seal", |b| {
        whole("session seal", b, |input, out| {
            SessionSeal::decode(input)?.encode(out);
            Ok(())
        })
    }),
    ("snapshot-body", |b| Ok(SnapshotBody::decode(b)?.encode())),
    ("snapshot-header", |b| {
        Ok(SnapshotHeader::decode_body(AUTHOR, b)?.encode_body())
    }),
    ("table-of-contents", |b| Ok(encode_toc(&decode_toc(b)?))),
    ("tombstone", |b| {
        Ok(Tombstone::decode_body(AUTHOR, b)?.encode_body())
    }),
    ("tree-node", |b| Ok(TreeNode::decode(b)?.encode())),
    ("verdict", |b| {
        Ok(Verdict::decode_body(AUTHOR, b)?.encode_body())
    }),
    ("wire-answer", |b| Ok(Answer::decode(b)?.encode())),
    ("wire-call", |b| Ok(Call::decode(b)?.encode())),
    ("wire-failure", |b| Ok(Failure::decode(b)?.encode())),
    ("wire-greeting", |b| Ok(Greeting::decode(b)?.encode())),
    ("wire-request", |b| Ok(Request::decode(b)?.encode())),
    ("wire-told", |b| {
        let told = decode_told(b)?;
        Ok(encode_told(told.iter().map(Vec::as_slice)).1)
    }),
];

fn whole(
    object: &'static str,
    bytes: &[u8],
    recode: impl FnOnce(&mut Decoder<'_>, &mut Encoder) -> Result<(), DecodeError>,
) -> Result<Vec<u8>, DecodeError> {
    let mut input = Decoder::new(object, bytes);
    let mut out = Encoder::new();
    recode(&mut input, &mut out)?;
    input.end()?;
    Ok(out.finish())
}

pub fn decoder(name: &str) -> Recode {
    match DECODERS.iter().find(|(known, _)| *known == name) {
        Some((_, recode)) => *recode,
        None => panic!("there is no decoder named {name}"),
    }
}

/// Whether the bytes were accepted. Panics when they were, and are not the only encoding of what
/// they decode to.
pub fn accepts(name: &str, bytes: &[u8]) -> bool {
    match decoder(name)(bytes) {
        Ok(again) => {
            assert_eq!(again, bytes, "{name}: another encoding of the same value");
            true
        }
        Err(_) => false,
    }
}

/// Text that people or files hand in.
pub fn read_text(text: &[u8]) {
    if let Some(plain) = unescape(text) {
        let shown = podkeep_format::item::Escaped(&plain).to_string();
        assert_eq!(unescape(shown.as_bytes()), Some(plain));
    }
    if let Ok(text) = std::str::from_utf8(text) {
        if let Some(name) = Name::parse(text) {
            assert_eq!(name.to_text(), text);
        }
        if let Ok(file) = WriteKeyFile::decode(text) {
            let again = file.encode().expect("a file that was read");
            assert!(WriteKeyFile::decode(&again).is_ok());
        }
        if let Ok(keys) = HandedKeys::decode(text) {
            assert!(HandedKeys::decode(&keys.encode()).is_ok());
        }
    }
}

/// Puts a true checksum behind bytes that a fuzzer made, and reads them as every framed object.
pub fn read_framed(bytes: &[u8]) {
    use podkeep_format::id::RepositoryId;
    use podkeep_format::seal::Secret;
    let repository = RepositoryId([1; 16]);
    let index = Secret([2; 32]);
    let mut framed = bytes.to_vec();
    framed.extend_from_slice(blake3::hash(bytes).as_bytes());
    let _ = Config::decode(&framed);
    let _ = KeySlot::read(&framed);
    let _ = AuthorCertificate::decode(&framed, repository, AUTHOR);
    let _ = Revocation::decode(&framed, repository, AUTHOR);
    let _ = Lease::open(&framed, repository, &index);
    let _ = Tombstone::open(&framed, repository, &index);
    let _ = Fence::open(&framed, repository, &index);
    let _ = Verdict::open(&framed, repository, &index);
    let _ = Endorsement::open(&framed, repository, &index);
    let _ = LayerRecord::open(&framed, repository, &index);
    let _ = podkeep_format::snapshot::SealedSnapshot::read(&framed, repository, &index);
    let _ = podkeep_format::run::SealedRun::read(&framed, repository);
    let _ = podkeep_format::pack::open_toc(repository, &index, bytes);
    let _ = podkeep_format::segment::open_segment(repository, &index, bytes.to_vec());
}

/// What a conversation's end holds that has asked for nothing large: one frame, or the noise in
/// front of a greeting, in a buffer that doubles, and what was pushed last.
fn held_max(bytes: &[u8]) -> usize {
    2 * (NOISE_BYTES_MAX.max(PAYLOAD_BYTES_MAX) + bytes.len()) + 4096
}

/// A far end that says anything, to a near end with a request of each kind open.
pub fn read_as_near(bytes: &[u8]) {
    let mut near = Near::new("0.1.0");
    let mut out = Vec::new();
    let name = || "packs/00/x".to_owned();
    for request in [
        Request::Put {
            name: name(),
            len: 100_000,
            hash: [1; 32],
        },
        Request::Get {
            name: name(),
            bytes_max: 1000,
        },
        Request::GetRange {
            name: name(),
            offset: 7,
            len: 1000,
        },
        Request::Size { name: name() },
        Request::List {
            folder: "packs".to_owned(),
        },
        Request::Delete { name: name() },
        Request::TempOwners,
        Request::Order {
            order: b"{}".to_vec(),
            bytes_max: 1000,
        },
        Request::Work {
            job: b"{}".to_vec(),
            bytes_max: 1000,
        },
        Request::Next,
        Request::Hear,
        Request::Fetch {
            call: 1,
            bytes_max: 1000,
        },
        Request::Give {
            call: 1,
            outcome: Ok(Answer::Size(None)),
            len: 0,
            hash: [1; 32],
        },
        Request::Stop { signal: 2 },
    ] {
        near.begin(&request, &mut out).expect("a request");
    }
    for piece in bytes.chunks(97) {
        near.push(piece);
        loop {
            assert!(near.held() <= held_max(piece), "{} bytes", near.held());
            match near.next_event() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return assert!(!error.to_string().is_empty()),
            }
        }
    }
    let _ = near.end();
}

/// A near end that says anything, to a far end that answers every request with a failure.
pub fn read_as_far(bytes: &[u8]) {
    let mut far = Far::new("0.1.0");
    let mut out = Vec::new();
    for piece in bytes.chunks(97) {
        far.push(piece);
        loop {
            let held = far.held() as u64;
            assert!(held <= ASSEMBLY_BYTES_MAX + held_max(piece) as u64);
            match far.next_event(&mut out) {
                Ok(Some(FarEvent::Task(task))) => {
                    let again = Request::decode(&task.request.encode());
                    assert_eq!(again.as_ref(), Ok(&task.request));
                    assert_eq!(
                        task.body.len() as u64,
                        task.request.body().map_or(0, |b| b.0)
                    );
                    let failure = Failure::decode(&[1, 3, 0, 0]).expect("a failure");
                    far.fail(task.number, &failure, &mut out);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return assert!(!error.to_string().is_empty()),
            }
        }
    }
    let _ = far.end();
}
