//! Golden vectors, `vectors/golden`: bytes that this and every later version must read, and
//! that the same values must encode to for as long as the format version is 1.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use podkeep_format::codec::DecodeError;

use crate::decoders::decoder;
use crate::frames::read;
use crate::samples::{REPOSITORY, bodies, index, objects};

pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(name)
}

/// Hex in lines of 32 bytes.
pub fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        text.push_str(&podkeep_format::id::hex(line));
        text.push('\n');
    }
    text
}

pub fn undump(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    let digit = |d: u8| char::from(d).to_digit(16).expect("a hex digit") as u8;
    digits
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn vectors() -> Vec<(String, Vec<u8>)> {
    let bodies = bodies().into_iter().map(|(name, bytes)| {
        let name = format!("body-{name}.hex");
        (name, bytes)
    });
    let objects = objects().into_iter().map(|(name, bytes)| {
        let name = format!("object-{name}.hex");
        (name, bytes)
    });
    bodies.chain(objects).collect()
}

#[test]
fn the_golden_vectors_hold() {
    let mut known = BTreeSet::new();
    for (name, bytes) in vectors() {
        let stored = fs::read_to_string(folder("golden").join(&name))
            .unwrap_or_else(|error| panic!("vectors/golden/{name}: {error}"));
        let stored = undump(&stored);
        assert!(
            stored == bytes,
            "{name}: the value has another encoding now"
        );
        let decoded: Result<(), DecodeError> = match name.strip_suffix(".hex") {
            Some(stem) if stem.starts_with("body-") => {
                decoder(&stem["body-".len()..])(&stored).map(|again| assert_eq!(again, stored))
            }
            Some(stem) => read(&stem["object-".len()..], &stored, REPOSITORY, &index()).map(|_| ()),
            None => unreachable!("all end in .hex"),
        };
        decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
        known.insert(name);
    }
    for file in fs::read_dir(folder("golden")).expect("the folder") {
        let name = file.expect("a file").file_name();
        let name = name.to_str().expect("a plain name");
        assert!(known.contains(name), "no test reads vectors/golden/{name}");
    }
}

#[test]
#[ignore = "writes vectors/golden anew: only for a value that is new"]
fn write_the_golden_vectors() {
    for (name, bytes) in vectors() {
        fs::write(folder("golden").join(name), dump(&bytes)).expect("a vector");
    }
}
