//! Whole objects: what sealing and signing promise.

use podkeep_format::author::{AuthorCertificate, Revocation};
use podkeep_format::codec::{DecodeError, Defect};
use podkeep_format::config::Config;
use podkeep_format::endorsement::Endorsement;
use podkeep_format::fence::{Fence, Verdict};
use podkeep_format::frame::Statement;
use podkeep_format::id::RepositoryId;
use podkeep_format::keys::{KeySlot, WriteKeyFile};
use podkeep_format::layer::LayerRecord;
use podkeep_format::lease::Lease;
use podkeep_format::pack::open_toc;
use podkeep_format::run::SealedRun;
use podkeep_format::seal::{PrivateKey, Secret};
use podkeep_format::segment::open_segment;
use podkeep_format::snapshot::{SealedSnapshot, Snapshot};
use podkeep_format::tombstone::Tombstone;

use crate::samples::{self, REPOSITORY, bytes32, index, objects, owner, private, writer};

/// Reads a whole object of a golden name as its owner would; the value as text.
pub fn read(
    name: &str,
    bytes: &[u8],
    repository: RepositoryId,
    index: &Secret,
) -> Result<String, DecodeError> {
    let owner = owner().id();
    Ok(match name {
        "config" => format!("{:?}", Config::decode(bytes)?),
        "key-full" | "key-write" => format!("{:?}", KeySlot::read(bytes)?),
        "write-key-file" => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{:?}", WriteKeyFile::decode(text)?.pin),
            Err(_) => return Err(WriteKeyFile::decode("").map(|_| ()).unwrap_err()),
        },
        "author" => format!("{:?}", AuthorCertificate::decode(bytes, repository, owner)?),
        "revocation" => format!("{:?}", Revocation::decode(bytes, repository, owner)?),
        "snapshot" => {
            let sealed = SealedSnapshot::read(bytes, repository, index)?;
            format!("{:?} {:?}", sealed.header, sealed.open(&private())?)
        }
        "run" => format!(
            "{:?}",
            SealedRun::read(bytes, repository)?.open(&private())?
        ),
        "lease" => format!("{:?}", Lease::open(bytes, repository, index)?),
        "tombstone" => format!("{:?}", Tombstone::open(bytes, repository, index)?),
        "fence" => format!("{:?}", Fence::open(bytes, repository, index)?),
        "verdict" => format!("{:?}", Verdict::open(bytes, repository, index)?),
        "endorsement" => format!("{:?}", Endorsement::open(bytes, repository, index)?),
        "layer-record" => format!("{:?}", LayerRecord::open(bytes, repository, index)?),
        "pack" => format!("{:?}", open_toc(repository, index, bytes)?),
        "segment" => format!("{:?}", open_segment(repository, index, bytes.to_vec())?),
        other => panic!("there is no object named {other}"),
    })
}

/// Sealed objects whose readers hold the index key.
fn needs_index(name: &str) -> bool {
    !matches!(
        name,
        "config" | "key-full" | "key-write" | "write-key-file" | "author" | "revocation" | "run"
    )
}

/// The frame puts a checksum over every byte; packs are named by their hash, and what their table
/// of contents does not sign is sealed or repeated.
#[test]
fn every_flipped_bit_of_an_object_is_refused() {
    for (name, bytes) in objects() {
        if name == "pack" {
            continue;
        }
        read(name, &bytes, REPOSITORY, &index()).unwrap_or_else(|e| panic!("{name}: {e}"));
        // The end of a text's last line says nothing.
        let said = bytes.len() - usize::from(name == "write-key-file");
        for at in 0..said * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(
                read(name, &changed, REPOSITORY, &index()).is_err(),
                "{name}: bit {at} is not covered"
            );
        }
        for len in 0..said {
            assert!(read(name, &bytes[..len], REPOSITORY, &index()).is_err());
        }
    }
}

#[test]
fn an_object_is_of_one_repository_and_one_kind() {
    let other = RepositoryId(*b"another one!!!!!");
    let objects = objects();
    for (name, bytes) in &objects {
        match *name {
            // These say themselves which repository they are of; a slot is bound when opened.
            "config" | "write-key-file" | "key-full" | "key-write" => {}
            _ => {
                let refused = read(name, bytes, other, &index()).unwrap_err();
                assert!(
                    matches!(refused.defect, Defect::NotAuthentic(_)),
                    "{name}: {refused}"
                );
            }
        }
        if needs_index(name) {
            let wrong = Secret(bytes32("another index"));
            let refused = read(name, bytes, REPOSITORY, &wrong).unwrap_err();
            assert_eq!(refused.defect, Defect::NotAuthentic("seal"), "{name}");
        }
        for (as_name, _) in &objects {
            let same = as_name == name || (as_name.starts_with("key") && name.starts_with("key"));
            if !same {
                let refused = read(as_name, bytes, REPOSITORY, &index()).unwrap_err();
                let magic = matches!(refused.defect, Defect::Magic | Defect::TooLarge(_));
                assert!(magic, "{name} as {as_name}: {refused}");
            }
        }
    }
}

#[test]
fn only_the_private_key_opens_a_snapshots_body() {
    let sealed =
        SealedSnapshot::read(&samples::sealed_snapshot(), REPOSITORY, &index()).expect("sound");
    assert_eq!(sealed.header, samples::snapshot_header());
    assert_eq!(
        sealed.open(&private()).expect("opens"),
        samples::snapshot_body()
    );
    assert_eq!(
        sealed.open_with(&samples::session()).expect("opens"),
        samples::snapshot_body()
    );
    let wrong = PrivateKey(bytes32("another private key"));
    assert_eq!(
        sealed.open(&wrong).unwrap_err().defect,
        Defect::NotAuthentic("session key")
    );
    assert!(sealed.open_with(&Secret(bytes32("another"))).is_err());
}

#[test]
fn an_author_signs_only_in_its_own_name() {
    let salt = bytes32("salt");
    let lease = samples::lease();
    assert!(
        lease.seal(REPOSITORY, &index(), &owner(), &salt).is_err(),
        "the lease is the writer's"
    );
    let (author, session) = (owner(), samples::session());
    let seal = samples::session_seal(author.id());
    let keys = samples::session_keys(&author, &session, &seal);
    let header = samples::snapshot_header();
    assert!(Snapshot::seal(&header, &samples::snapshot_body(), &index(), &keys).is_err());
    assert!(samples::run_record().seal(&keys).is_err());
    // A certificate that the writer signed for itself is none.
    let forged = samples::certificate()
        .encode(REPOSITORY, &writer())
        .expect("encodes");
    assert_eq!(
        AuthorCertificate::decode(&forged, REPOSITORY, owner().id())
            .unwrap_err()
            .defect,
        Defect::NotAuthentic("owner")
    );
}

/// Whoever holds the index key could otherwise put another author's snapshot under a second name.
#[test]
fn a_signed_statement_cannot_be_sealed_anew_by_another() {
    let sealed = samples::sealed_snapshot();
    let changed_salt = {
        let mut bytes = sealed.clone();
        bytes[9 + 32] ^= 1;
        let end = bytes.len() - 32;
        let checksum = blake3::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(checksum.as_bytes());
        bytes
    };
    assert_eq!(
        SealedSnapshot::read(&changed_salt, REPOSITORY, &index())
            .unwrap_err()
            .defect,
        Defect::NotAuthentic("signature")
    );
}

#[test]
fn sealing_refuses_what_reading_would_refuse() {
    let salt = bytes32("salt");
    let mut verdict = samples::verdict();
    verdict.snapshots.reverse();
    assert_eq!(
        verdict
            .seal(REPOSITORY, &index(), &owner(), &salt)
            .unwrap_err()
            .defect,
        Defect::NotCanonical("snapshots")
    );
    let mut lease = samples::lease();
    lease.heartbeat_secs = 0;
    assert!(lease.seal(REPOSITORY, &index(), &writer(), &salt).is_err());
    let (author, session) = (writer(), samples::session());
    let seal = samples::session_seal(author.id());
    let keys = samples::session_keys(&author, &session, &seal);
    let mut body = samples::snapshot_body();
    body.tags = vec!["x".repeat(257)];
    assert_eq!(
        Snapshot::seal(&samples::snapshot_header(), &body, &index(), &keys)
            .unwrap_err()
            .defect,
        Defect::TooLarge("tag")
    );
}
