//! Key slots and write-key files.

use podkeep_format::codec::Defect;
use podkeep_format::id::RepositoryId;
use podkeep_format::keys::{
    ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES_MAX, Argon2Params, KeySlot, Role, Secrets, SlotKind,
    WriteKeyFile, slot_id,
};

use crate::samples::{self, LIGHT, PASSPHRASE, REPOSITORY, bytes32, full_secrets, write_secrets};

fn same(a: &Secrets, b: &Secrets) -> bool {
    let role = match (&a.role, &b.role) {
        (
            Role::Full { private, owner },
            Role::Full {
                private: private_b,
                owner: owner_b,
            },
        ) => private.0 == private_b.0 && owner.to_bytes() == owner_b.to_bytes(),
        (
            Role::Write { public, author },
            Role::Write {
                public: public_b,
                author: author_b,
            },
        ) => public == public_b && author.to_bytes() == author_b.to_bytes(),
        _ => false,
    };
    role && a.chunk_id.0 == b.chunk_id.0 && a.chunker.0 == b.chunker.0 && a.index.0 == b.index.0
}

fn seal(secrets: &Secrets, params: Argon2Params) -> Vec<u8> {
    KeySlot::seal(
        secrets,
        REPOSITORY,
        PASSPHRASE,
        "web1",
        params,
        bytes32("salt"),
    )
    .expect("a slot")
}

#[test]
fn a_slot_gives_back_what_it_holds() {
    for (secrets, kind) in [
        (full_secrets(), SlotKind::Full),
        (write_secrets(), SlotKind::Write),
    ] {
        let bytes = seal(&secrets, LIGHT);
        let slot = KeySlot::read(&bytes).expect("a slot");
        assert_eq!((slot.kind, slot.label.as_str()), (kind, "web1"));
        assert_eq!(slot.params, LIGHT);
        assert_eq!(slot.id, slot_id(&bytes));
        let opened = slot.open(REPOSITORY, PASSPHRASE).expect("opens");
        assert!(same(&secrets, &opened));
        assert_eq!(opened.private().is_some(), kind == SlotKind::Full);
        assert_eq!(opened.public().expect("a key"), samples::public());
    }
}

#[test]
fn a_wrong_passphrase_is_told_from_a_foreign_slot() {
    let slot = KeySlot::read(&seal(&full_secrets(), LIGHT)).expect("a slot");
    for wrong in [&b""[..], b"correct horse battery stapl", b"Correct horse"] {
        let refused = slot.open(REPOSITORY, wrong).map(|_| ()).unwrap_err();
        assert_eq!(refused.defect, Defect::NotAuthentic("passphrase"));
    }
    let other = RepositoryId([9; 16]);
    let refused = slot.open(other, PASSPHRASE).map(|_| ()).unwrap_err();
    assert_eq!(refused.defect, Defect::NotAuthentic("seal"));
}

/// The kind, the label and the parameters stand in clear: a store that changes them, checksum and
/// all, must not get away with it.
#[test]
fn what_stands_in_clear_is_bound() {
    let bytes = seal(&write_secrets(), LIGHT);
    // Behind magic and version: kind, length of the label, label, parameters, salt.
    for at in [9, 11, 15, 19, 23, 27] {
        let mut changed = bytes.clone();
        changed[at] ^= 3;
        let end = changed.len() - 32;
        let checksum = blake3::hash(&changed[..end]);
        changed[end..].copy_from_slice(checksum.as_bytes());
        let opened = KeySlot::read(&changed).and_then(|slot| slot.open(REPOSITORY, PASSPHRASE));
        assert!(opened.is_err(), "byte {at} is not bound");
    }
}

#[test]
fn a_slot_cannot_ask_for_the_machine() {
    let over = [
        Argon2Params {
            memory_kib: ARGON2_MEMORY_KIB_MAX + 1,
            ..LIGHT
        },
        Argon2Params {
            passes: ARGON2_PASSES_MAX + 1,
            ..LIGHT
        },
        Argon2Params { lanes: 17, ..LIGHT },
    ];
    for params in over {
        let bytes = seal(&full_secrets(), LIGHT);
        let mut changed = bytes.clone();
        let fields = [params.memory_kib, params.passes, params.lanes];
        for (n, field) in fields.iter().enumerate() {
            changed[15 + n * 4..19 + n * 4].copy_from_slice(&field.to_le_bytes());
        }
        let end = changed.len() - 32;
        let checksum = blake3::hash(&changed[..end]);
        changed[end..].copy_from_slice(checksum.as_bytes());
        assert_eq!(
            KeySlot::read(&changed).unwrap_err().defect,
            Defect::TooLarge("Argon2 parameters")
        );
    }
    for params in [
        Argon2Params { passes: 0, ..LIGHT },
        Argon2Params { lanes: 0, ..LIGHT },
        Argon2Params { lanes: 2, ..LIGHT },
    ] {
        let salt = bytes32("salt");
        assert!(KeySlot::seal(&full_secrets(), REPOSITORY, b"", "", params, salt).is_err());
    }
}

#[test]
fn the_default_parameters_work() {
    let slot = KeySlot::read(&seal(&write_secrets(), Argon2Params::DEFAULT)).expect("a slot");
    assert_eq!(slot.params, Argon2Params::DEFAULT);
    assert!(slot.open(REPOSITORY, PASSPHRASE).is_ok());
}

#[test]
fn a_write_key_file_carries_what_a_backup_needs() {
    let file = WriteKeyFile {
        repository: REPOSITORY,
        pin: samples::config().pin(),
        secrets: write_secrets(),
    };
    let text = file.encode().expect("a write key");
    assert!(text.starts_with("podkeep write key 1\n"));
    assert!(text.is_ascii() && text.ends_with('\n'));
    for form in [
        text.to_string(),
        text.replace('\n', "\r\n"),
        text.trim_end().to_owned(),
        format!("{}\n\n", text.replace('\n', "\n  ")),
    ] {
        let read = WriteKeyFile::decode(&form).expect("reads");
        assert_eq!((read.repository, read.pin), (REPOSITORY, file.pin));
        assert!(same(&read.secrets, &file.secrets));
    }
}

#[test]
fn a_write_key_file_with_one_wrong_digit_is_refused() {
    let file = WriteKeyFile {
        repository: REPOSITORY,
        pin: samples::config().pin(),
        secrets: write_secrets(),
    };
    let text = file.encode().expect("a write key").to_string();
    let start = WriteKeyFile::HEADER.len() + 1;
    for at in start..text.len() - 1 {
        let digit = text.as_bytes()[at];
        if digit == b'\n' {
            continue;
        }
        let mut changed = text.clone().into_bytes();
        changed[at] = if digit == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert!(WriteKeyFile::decode(&changed).is_err(), "digit {at}");
    }
    let defect = |text: &str| WriteKeyFile::decode(text).map(|_| ()).unwrap_err().defect;
    assert_eq!(defect(&text[1..]), Defect::Magic);
    assert_eq!(defect(&text[..text.len() - 3]), Defect::Truncated);
    assert_eq!(defect(&format!("{text}00\n")), Defect::Trailing);
    let upper = format!("{}\n{}", WriteKeyFile::HEADER, text[start..].to_uppercase());
    assert_eq!(defect(&upper), Defect::NotCanonical("hex digits"));
    let full = WriteKeyFile {
        secrets: full_secrets(),
        ..file
    };
    assert!(full.encode().is_err(), "a full key has a passphrase");
}
