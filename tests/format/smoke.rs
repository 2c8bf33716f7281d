//! The fuzz targets' kept corpus and mutations of it, in bounded time and always the same ones:
//! no decoder panics, and none accepts a second encoding of a value.

use std::fs;
use std::path::PathBuf;

use crate::decoders::{DECODERS, accepts, read_as_far, read_as_near, read_framed, read_text};
use crate::samples::{bodies, conversation, objects};

/// Mutations of each seed.
const MUTATIONS: u32 = 400;
/// Targets for decoders of the engine, whose tests read their corpus.
const READ_BY_THE_ENGINE: [&str; 9] = [
    "api-answer",
    "artifacts",
    "bolt-state",
    "definition",
    "images-json",
    "layer-objects",
    "layers-json",
    "tar",
    "tar-split",
];

/// A small generator; what matters is that it never changes.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

fn mutate(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.next(4) {
        let at = dice.next(bytes.len());
        match dice.next(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.next(8),
            1 if !bytes.is_empty() => bytes[at] = EDGES[dice.next(EDGES.len())],
            2 => bytes.insert(at, EDGES[dice.next(EDGES.len())]),
            3 if !bytes.is_empty() => {
                bytes.remove(at);
            }
            4 => bytes.truncate(at),
            _ => {
                let end = (at + dice.next(16)).min(bytes.len());
                let part = bytes[at.min(end)..end].to_vec();
                let to = dice.next(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
        }
    }
    bytes
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
    let mut files: Vec<PathBuf> = match fs::read_dir(folder.join(target)) {
        Ok(found) => found.map(|file| file.expect("a file").path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    files
        .into_iter()
        .map(|file| fs::read(file).expect("a seed"))
        .collect()
}

#[test]
fn decoders_survive_the_corpus_and_its_mutations() {
    for (name, _) in DECODERS {
        let mut seeds: Vec<Vec<u8>> = bodies()
            .into_iter()
            .filter(|(body, _)| body == name)
            .map(|(_, bytes)| bytes)
            .collect();
        assert!(!seeds.is_empty(), "{name} has no sample");
        for seed in &seeds {
            assert!(accepts(name, seed), "{name}: the sample");
        }
        let kept = corpus(name);
        assert!(!kept.is_empty(), "{name} has no corpus");
        seeds.extend(kept);
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            accepts(name, seed);
            for _ in 0..MUTATIONS {
                accepts(name, &mutate(seed, &mut dice));
            }
        }
    }
}

#[test]
fn framed_objects_survive_mutations_under_a_true_checksum() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut seeds: Vec<Vec<u8>> = objects().into_iter().map(|(_, bytes)| bytes).collect();
    for seed in &mut seeds {
        seed.truncate(seed.len() - 32);
    }
    seeds.extend(corpus("framed"));
    for seed in &seeds {
        read_framed(seed);
        for _ in 0..MUTATIONS / 4 {
            read_framed(&mutate(seed, &mut dice));
        }
    }
}

#[test]
fn text_survives_mutations() {
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let mut seeds = vec![
        b"config.2".to_vec(),
        b"snapshots/abababababababababababababababababababababababababababababababab.2".to_vec(),
        b"packs/ab/abababababababababababababababababababababababababababababababab".to_vec(),
        b"leases/abababababababababababababababab/0000000000000001".to_vec(),
        br"a\\b\x0a\xff".to_vec(),
    ];
    seeds.extend(corpus("text"));
    seeds.extend(
        objects()
            .into_iter()
            .filter(|(name, _)| *name == "write-key-file")
            .map(|(_, bytes)| bytes),
    );
    for seed in &seeds {
        read_text(seed);
        for _ in 0..MUTATIONS {
            read_text(&mutate(seed, &mut dice));
        }
    }
}

/// Both ends of the protocol hear what the other one said, and everything near it.
#[test]
fn both_ends_survive_a_hostile_one() {
    let (asked, said) = conversation();
    let mut dice = Dice(0x0bad_cafe_1234_5677);
    for (target, sample, read) in [
        ("wire-far", asked, read_as_far as fn(&[u8])),
        ("wire-near", said, read_as_near),
    ] {
        let mut seeds = corpus(target);
        assert!(!seeds.is_empty(), "{target} has no corpus");
        seeds.push(sample);
        for seed in &seeds {
            read(seed);
            for _ in 0..MUTATIONS {
                read(&mutate(seed, &mut dice));
            }
        }
    }
}

/// A folder of a target that is gone, or that was never one, would be read by nobody.
#[test]
fn every_corpus_folder_has_a_target() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
    let mut expected: Vec<String> = DECODERS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    expected.extend(["framed", "text", "wire-far", "wire-near"].map(str::to_owned));
    expected.extend(READ_BY_THE_ENGINE.map(str::to_owned));
    expected.sort();
    let names = |path: PathBuf| {
        let mut names: Vec<String> = fs::read_dir(path)
            .expect("a folder")
            .map(|file| {
                let name = file.expect("a file").file_name();
                let name = name.to_str().expect("a plain name").to_owned();
                name.trim_end_matches(".rs").to_owned()
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(folder.join("corpus")), expected);
    assert_eq!(names(folder.join("fuzz_targets")), expected);
}

#[test]
#[ignore = "writes the first seeds of the fuzz corpus"]
fn write_the_seeds() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(folder.join(target)).expect("a folder");
        fs::write(folder.join(target).join(name), bytes).expect("a seed");
    };
    for (name, bytes) in bodies() {
        put(name, "sample", &bytes);
    }
    for (name, bytes) in objects() {
        put("framed", name, &bytes[..bytes.len() - 32]);
    }
    let (asked, said) = conversation();
    put("wire-far", "conversation", &asked);
    put("wire-near", "conversation", &said);
    put(
        "text",
        "name",
        b"leases/abababababababababababababababab/0000000000000001",
    );
    put("text", "escaped", br"a\\b\x0a\xff");
}
