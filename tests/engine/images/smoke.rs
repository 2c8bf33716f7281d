//! The kept corpus of the fuzz targets that read stores, and mutations of it, in bounded time and
//! always the same ones.

use std::fs;
use std::path::PathBuf;

use podkeep_engine::podman::StorageDriver;

use super::foreign::DECODERS;
use super::{noise, odd_tar, upper_tar};
use crate::fake_store::{FakeStore, gzip};

/// Mutations of each seed.
const MUTATIONS: u64 = 400;

fn corpus(target: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
    folder.join(target)
}

/// One to four changes of a bit, a byte, a digit or a stretch.
pub fn mutate(seed: &[u8], number: u64) -> Vec<u8> {
    let dice = noise(number, 64);
    let mut bytes = seed.to_vec();
    for dice in dice.chunks_exact(16).take(usize::from(dice[15] % 4) + 1) {
        let far = u32::from_le_bytes([dice[0], dice[1], dice[2], dice[3]]) as usize;
        let at = far % (bytes.len() + 1);
        let end = (at + usize::from(dice[4] % 32)).min(bytes.len());
        match dice[5] % 6 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (dice[6] % 8),
            1 if at < bytes.len() => {
                bytes[at] = b"0129-\"[]{},:e\\\0\xff"[usize::from(dice[6] % 16)]
            }
            2 => bytes.insert(at, dice[6]),
            3 => bytes.truncate(at),
            4 => {
                bytes.drain(at..end);
            }
            _ => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

#[test]
fn decoders_of_stores_survive_the_corpus_and_its_mutations() {
    for (target, read) in DECODERS {
        let mut seeds: Vec<PathBuf> = fs::read_dir(corpus(target))
            .expect("a corpus")
            .map(|file| file.expect("a file").path())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{target} has no corpus");
        for seed in seeds {
            let seed = fs::read(seed).expect("a seed");
            read(&seed);
            for number in 0..MUTATIONS {
                read(&mutate(&seed, number));
            }
        }
    }
}

#[test]
#[ignore = "writes the first seeds of the fuzz corpus"]
fn write_the_seeds() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let lower = store.layer(&odd_tar(), None);
    let upper = store.layer(&upper_tar(), Some(lower));
    store.record(upper)["flags"] = serde_json::json!({"incomplete": true});
    store.image("localhost/a:1", Some(upper));
    let list = |list: &Vec<serde_json::Value>| serde_json::to_vec(list).expect("JSON");
    let split = upper_tar().split();
    for (target, name, bytes) in [
        ("tar-split", "text", split.clone()),
        ("tar-split", "compressed", gzip(&split, 2)),
        ("images-json", "sample", list(&store.images)),
        ("layers-json", "sample", list(&store.layers)),
    ] {
        fs::create_dir_all(corpus(target)).expect("a folder");
        fs::write(corpus(target).join(name), bytes).expect("a seed");
    }
}
