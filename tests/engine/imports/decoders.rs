//! The kept corpus of the fuzz target of tars, and mutations of it, always the same ones.

use std::fs;
use std::path::PathBuf;

use super::foreign::read_tar;
use crate::fake_store::{Ending, LongName, Tar};
use crate::images::odd_tar;
use crate::images::smoke::mutate;

/// Mutations of each seed.
const MUTATIONS: u64 = 2000;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/tar")
}

#[test]
fn the_decoder_of_tars_survives_the_corpus_and_its_mutations() {
    let mut seeds: Vec<PathBuf> = fs::read_dir(corpus())
        .expect("a corpus")
        .map(|file| file.expect("a file").path())
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "there is no corpus");
    for seed in seeds {
        let seed = fs::read(seed).expect("a seed");
        read_tar(&seed);
        for number in 0..MUTATIONS {
            read_tar(&with_checksums(mutate(&seed, number)));
        }
    }
}

/// Makes whatever stands where headers can stand fit its checksum: else changes end there.
fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] != *b"ustar" {
            continue;
        }
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// One of everything, in so few bytes that a mutation is likely to hit a header.
fn small_tar() -> Tar {
    let long = "n".repeat(150);
    Tar::default()
        .directory("d")
        .file("d/file", b"content")
        .symlink("link", b"/d")
        .hard_link("other", b"d/file")
        .fifo("fifo")
        .whiteout("d/gone")
        .file_with(
            "owned",
            b"x",
            &[("uid", b"7"), ("mtime", b"-1.5")],
            LongName::Pax,
        )
        .file_with(format!("{long}-gnu"), b"", &[], LongName::Gnu)
        .symlink(format!("{long}-pax"), long.as_bytes())
        .end(Ending::Blocks(2))
}

#[test]
#[ignore = "writes the first seeds of the fuzz corpus"]
fn write_the_seeds() {
    let sparse = |records: &[(&str, &[u8])], content: &[u8]| {
        Tar::default()
            .file_with("sparse", content, records, LongName::Pax)
            .bytes
    };
    let mut listed = b"1\n4096\n3\n".to_vec();
    listed.resize(512, 0);
    listed.extend_from_slice(b"end");
    let odd = odd_tar().bytes;
    for (name, bytes) in [
        ("odd", odd[..odd.len().min(16 << 10)].to_vec()),
        ("small", small_tar().bytes),
        (
            "sparse-0.1",
            sparse(
                &[
                    ("GNU.sparse.size", b"8192"),
                    ("GNU.sparse.map", b"4096,3"),
                    (
                        "SCHILY.acl.access",
                        b"user::rw-,user:7:r--,group::---,mask::r--,other::---",
                    ),
                ],
                b"end",
            ),
        ),
        (
            "sparse-1.0",
            sparse(
                &[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"real"),
                    ("GNU.sparse.realsize", b"8192"),
                ],
                &listed,
            ),
        ),
    ] {
        fs::create_dir_all(corpus()).expect("a folder");
        fs::write(corpus().join(name), bytes).expect("a seed");
    }
}
