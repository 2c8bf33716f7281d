//! The chunker: cut points that must never move, and the promise that only content decides them.

use std::fs;
use std::path::PathBuf;

use podkeep_engine::chunk::known::{ContentAt, Joining, KnownPieces, cut_part};
use podkeep_engine::chunk::{
    ChunkSizes, Chunker, Chunking, Cut, PAGE_BYTES, Stream, ZERO_RUN_BYTES_MIN,
};
use podkeep_format::id::{ChunkIdKey, ChunkKind};
use podkeep_format::tree::Piece;
use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

const KEY: [u8; 32] = *b"the key of all golden cut points";
/// Small, so that small contents have many cuts.
const SMALL: ChunkSizes = ChunkSizes {
    min: 1 << 10,
    avg: 4 << 10,
    max: 16 << 10,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Chunk(Vec<u8>),
    Zeros(u64),
}

fn own(cuts: &mut Vec<Owned>) -> impl FnMut(Cut<'_>) + '_ {
    |cut| {
        cuts.push(match cut {
            Cut::Chunk(bytes) => Owned::Chunk(bytes.to_vec()),
            Cut::Zeros(len) => Owned::Zeros(len),
        });
    }
}

fn whole(chunker: &Chunker, content: &[u8]) -> Vec<Owned> {
    let mut cuts = Vec::new();
    chunker.cut_whole(content, &mut own(&mut cuts));
    cuts
}

/// Incompressible bytes that are the same on every run.
fn noise(name: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(name.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// What the specification says, in the plainest way: find the runs of whole zero pages, and cut
/// each part between two of them by itself.
fn model(chunker: &Chunker, content: &[u8]) -> Vec<Owned> {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let pages: Vec<bool> = content.chunks_exact(PAGE_BYTES).map(is_zero).collect();
    let mut runs = Vec::new();
    let mut page = 0;
    while page < pages.len() {
        let start = page;
        while page < pages.len() && pages[page] {
            page += 1;
        }
        if (page - start) * PAGE_BYTES >= ZERO_RUN_BYTES_MIN {
            let mut end = page * PAGE_BYTES;
            if page == pages.len() && is_zero(&content[end..]) {
                end = content.len();
            }
            runs.push((start * PAGE_BYTES, end));
        }
        page += 1;
    }
    let mut cuts = Vec::new();
    let mut from = 0;
    for (start, end) in runs {
        cuts.extend(whole(chunker, &content[from..start]));
        cuts.push(Owned::Zeros((end - start) as u64));
        from = end;
    }
    cuts.extend(whole(chunker, &content[from..]));
    cuts
}

fn lengths(cuts: &[Owned]) -> String {
    let line = |cut: &Owned| match cut {
        Owned::Chunk(bytes) => format!("{}\n", bytes.len()),
        Owned::Zeros(len) => format!("zeros {len}\n"),
    };
    cuts.iter().map(line).collect()
}

/// `tests/vectors/cuts`: the sizes of a preset, the parts of a content, where it is cut.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/cuts")
}

fn golden(text: &str) -> (ChunkSizes, Vec<u8>) {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no line {name}"))
    };
    let sizes: Vec<u32> = field("sizes: ")
        .split(' ')
        .map(|size| size.parse().expect("a size"))
        .collect();
    let mut content = Vec::new();
    for part in field("content: ").split(", ") {
        let (kind, len) = part.split_once(' ').expect("a kind and a length");
        let len = len.parse().expect("a length");
        content.extend(match kind {
            "zeros" => vec![0; len],
            "text" => b"all work and no play makes a dull log line\n"
                .iter()
                .copied()
                .cycle()
                .take(len)
                .collect(),
            name => noise(name, len),
        });
    }
    let sizes = ChunkSizes {
        min: sizes[0],
        avg: sizes[1],
        max: sizes[2],
    };
    (sizes, content)
}

/// Two past releases of the crate moved cut points: every repository would have stored everything
/// anew.
#[test]
fn the_golden_cut_points_hold() {
    let mut read = 0;
    for file in fs::read_dir(folder()).expect("the folder") {
        let path = file.expect("a file").path();
        let text = fs::read_to_string(&path).expect("a vector");
        let (sizes, content) = golden(&text);
        let (_, cuts) = text.split_once("cuts:\n").expect("cuts");
        let found = whole(&Chunker::new(&KEY, sizes), &content);
        assert_eq!(lengths(&found), cuts, "{}", path.display());
        assert!(found.len() > 3);
        read += 1;
    }
    assert!(read >= 5);
}

#[test]
#[ignore = "writes the cuts of vectors/cuts anew: only for a vector that is new"]
fn write_the_golden_cut_points() {
    for file in fs::read_dir(folder()).expect("the folder") {
        let path = file.expect("a file").path();
        let text = fs::read_to_string(&path).expect("a vector");
        let (sizes, content) = golden(&text);
        let (head, _) = text.split_once("cuts:\n").expect("cuts");
        let cuts = lengths(&whole(&Chunker::new(&KEY, sizes), &content));
        fs::write(&path, format!("{head}cuts:\n{cuts}")).expect("a vector");
    }
}

#[test]
fn the_key_decides_the_cuts() {
    let content = noise("content", 1 << 20);
    let cuts = |key: &[u8; 32]| lengths(&whole(&Chunker::new(key, SMALL), &content));
    assert_ne!(cuts(&KEY), cuts(&[0; 32]));
}

#[test]
fn chunks_keep_their_bounds_and_lose_nothing() {
    for sizes in [SMALL, ChunkSizes::DEFAULT] {
        let chunker = Chunker::new(&KEY, sizes);
        for len in [
            0,
            1,
            100,
            sizes.min as usize,
            sizes.max as usize + 1,
            3_000_001,
        ] {
            let content = noise("bounds", len);
            let cuts = whole(&chunker, &content);
            let mut joined = Vec::new();
            for (n, cut) in cuts.iter().enumerate() {
                match cut {
                    Owned::Chunk(bytes) => {
                        assert!(!bytes.is_empty() && bytes.len() <= sizes.max as usize);
                        assert!(bytes.len() >= sizes.min as usize || n + 1 == cuts.len());
                        joined.extend_from_slice(bytes);
                    }
                    Owned::Zeros(_) => panic!("noise has no zeros"),
                }
            }
            assert_eq!(joined, content);
        }
        let average = 3_000_001 / whole(&chunker, &noise("bounds", 3_000_001)).len();
        let avg = sizes.avg as usize;
        assert!(
            (avg * 2 / 3..avg * 2).contains(&average),
            "{average} for {avg}"
        );
    }
}

/// Filling a hole, or punching one, must leave the chunks on its other side alone.
#[test]
fn chunking_restarts_behind_a_run() {
    let chunker = Chunker::new(&KEY, SMALL);
    let tail = noise("tail", 200_000);
    let behind = |front: Vec<u8>| {
        let mut content = front;
        content.resize(content.len() + (256 << 10), 0);
        content.resize(content.len().next_multiple_of(PAGE_BYTES), 0);
        content.extend_from_slice(&tail);
        let cuts = whole(&chunker, &content);
        let run = cuts.iter().rposition(|cut| matches!(cut, Owned::Zeros(_)));
        cuts[run.expect("a run") + 1..].to_vec()
    };
    let tail_alone = whole(&chunker, &tail);
    assert_eq!(behind(Vec::new()), tail_alone);
    assert_eq!(behind(noise("front", 12_345)), tail_alone);
    assert_eq!(behind(noise("other front", 777_777)), tail_alone);
}

#[test]
fn a_hole_of_terabytes_takes_no_time() {
    let chunker = Chunker::new(&KEY, ChunkSizes::DEFAULT);
    let mut cuts = Vec::new();
    let mut emit = own(&mut cuts);
    let mut stream = Stream::new(&chunker);
    stream.push(b"head", &mut emit);
    stream.hole((8 << 40) - 4, &mut emit);
    stream.push(b"tail", &mut emit);
    stream.finish(&mut emit);
    drop(emit);
    let mut head = b"head".to_vec();
    head.resize(PAGE_BYTES, 0);
    assert_eq!(
        cuts,
        [
            Owned::Chunk(head),
            Owned::Zeros((8 << 40) - PAGE_BYTES as u64),
            Owned::Chunk(b"tail".to_vec())
        ]
    );
}

#[test]
fn the_shortest_run_is_exactly_that() {
    let chunker = Chunker::new(&KEY, SMALL);
    let pages = ZERO_RUN_BYTES_MIN / PAGE_BYTES;
    for (len, is_run) in [
        ((pages - 1) * PAGE_BYTES, false),
        (pages * PAGE_BYTES - 1, false),
        (pages * PAGE_BYTES, true),
        (pages * PAGE_BYTES + 1, true),
    ] {
        let cuts = whole(&chunker, &vec![0; len]);
        assert_eq!(cuts == [Owned::Zeros(len as u64)], is_run, "{len} zeros");
    }
}

/// A content in parts: noise, zeros, or a few bytes.
fn parts() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    let part = prop_oneof![
        3 => (0..60_000usize, any::<u8>())
            .prop_map(|(len, n)| (false, noise(&n.to_string(), len))),
        2 => (0..100usize).prop_map(|pages| (true, vec![0; pages * PAGE_BYTES])),
        2 => (0..300_000usize).prop_map(|len| (true, vec![0; len])),
        1 => vec(any::<u8>(), 1..10).prop_map(|bytes| (false, bytes)),
        1 => (0..PAGE_BYTES).prop_map(|len| (false, noise("page", len.next_multiple_of(PAGE_BYTES)))),
    ];
    vec(part, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(96)
    })]

    #[test]
    fn content_alone_decides(parts in parts(), splits in vec(1..100_000usize, 1..20)) {
        let content: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        for sizes in [SMALL, ChunkSizes::DEFAULT] {
            let chunker = Chunker::new(&KEY, sizes);
            let expected = model(&chunker, &content);
            prop_assert_eq!(lengths(&whole(&chunker, &content)), lengths(&expected));

            // Pushed in any split.
            let mut cuts = Vec::new();
            let mut emit = own(&mut cuts);
            let mut stream = Stream::new(&chunker);
            let mut rest = &content[..];
            for split in splits.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (head, tail) = rest.split_at((*split).min(rest.len()));
                stream.push(head, &mut emit);
                rest = tail;
            }
            stream.finish(&mut emit);
            drop(emit);
            prop_assert!(cuts == expected, "pushed in parts: {}", lengths(&cuts));

            // Zeros as holes.
            let mut cuts = Vec::new();
            let mut emit = own(&mut cuts);
            let mut stream = Stream::new(&chunker);
            for (hole, bytes) in &parts {
                match hole {
                    true => stream.hole(bytes.len() as u64, &mut emit),
                    false => stream.push(bytes, &mut emit),
                }
            }
            stream.finish(&mut emit);
            drop(emit);
            prop_assert!(cuts == expected, "with holes: {}", lengths(&cuts));
        }
    }
}

fn pieces_of(chunking: &Chunking, content: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    chunking.chunker.cut_whole(content, &mut |cut| {
        pieces.push(match cut {
            Cut::Chunk(bytes) => Piece::Chunk {
                id: chunking.ids.chunk_id(ChunkKind::Data, bytes),
                len: bytes.len() as u32,
            },
            Cut::Zeros(len) => Piece::Zero { len },
        });
    });
    pieces
}

/// A content whose zeros may be holes.
struct Memory<'c> {
    content: &'c [u8],
    holes: bool,
}

impl ContentAt for Memory<'_> {
    type Error = std::convert::Infallible;

    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8], Self::Error> {
        let at = (at as usize).min(self.content.len());
        Ok(&self.content[at..(at + len).min(self.content.len())])
    }

    fn zeros(&self, at: u64) -> u64 {
        let page = PAGE_BYTES as u64;
        if !self.holes || !at.is_multiple_of(page) {
            return 0;
        }
        let pages = self.content[at as usize..].chunks_exact(PAGE_BYTES);
        pages
            .take_while(|page| page.iter().all(|byte| *byte == 0))
            .count() as u64
            * page
    }
}

/// Cuts a content that is known as `old` in parts, and joins them. Returns also how many bytes were
/// new.
fn cut_again(
    chunking: &Chunking,
    old: &[Piece],
    content: &[u8],
    part_bytes: u64,
    holes: bool,
) -> (Vec<Piece>, u64) {
    let mut known = KnownPieces::default();
    for piece in old {
        known.push(piece);
    }
    let size = content.len() as u64;
    let starts = known.parts(part_bytes);
    let ends = starts.iter().copied().skip(1).chain([size]);
    let (mut pieces, mut new) = (Vec::new(), 0);
    let mut joining = Joining::default();
    for (from, until) in starts.iter().copied().zip(ends) {
        let mut memory = Memory { content, holes };
        let mut cut = |from| {
            let cut = cut_part(chunking, &known, &mut memory, size, from, until);
            cut.expect("it is read").expect("it is so long")
        };
        let mut take = |piece: Piece, bytes: Option<&[u8]>| {
            if let (Piece::Chunk { id, .. }, Some(bytes)) = (&piece, bytes) {
                assert_eq!(chunking.ids.chunk_id(ChunkKind::Data, bytes), *id);
                new += bytes.len() as u64;
            }
            pieces.push(piece);
        };
        let part = cut(from);
        if !joining.take(&part, &mut take) {
            let part = cut(joining.at);
            assert!(joining.take(&part, &mut take));
        }
    }
    (pieces, new)
}

fn chunking(sizes: ChunkSizes) -> Chunking {
    Chunking {
        chunker: Chunker::new(&KEY, sizes),
        ids: ChunkIdKey::new(&KEY),
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Write(usize, Vec<u8>),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Truncate(usize),
    Extend(Vec<u8>),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let bytes = || {
        prop_oneof![
            2 => (1..20_000usize, any::<u8>())
                .prop_map(|(len, n)| noise(&format!("edit {n}"), len)),
            2 => (1..300_000usize).prop_map(|len| vec![0; len]),
            2 => (1..80usize).prop_map(|pages| vec![0; pages * PAGE_BYTES]),
            1 => vec(any::<u8>(), 1..10),
        ]
    };
    let place = || prop_oneof![any::<usize>(), any::<usize>().prop_map(|at| at & !4095)];
    let edit = prop_oneof![
        6 => (place(), bytes()).prop_map(|(at, bytes)| Edit::Write(at, bytes)),
        1 => (place(), bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        1 => (place(), 1..100_000usize).prop_map(|(at, len)| Edit::Remove(at, len)),
        1 => place().prop_map(Edit::Truncate),
        1 => bytes().prop_map(Edit::Extend),
    ];
    vec(edit, 0..6)
}

fn edited(mut content: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let place = |at: &usize| match content.len() {
            0 => 0,
            len => at % len,
        };
        match edit {
            Edit::Write(at, bytes) => {
                let at = place(at);
                let len = bytes.len().min(content.len() - at);
                content[at..at + len].copy_from_slice(&bytes[..len]);
            }
            Edit::Insert(at, bytes) => {
                let at = place(at);
                drop(content.splice(at..at, bytes.iter().copied()));
            }
            Edit::Remove(at, len) => {
                let at = place(at);
                let end = (at + len).min(content.len());
                content.drain(at..end);
            }
            Edit::Truncate(at) => content.truncate(place(at)),
            Edit::Extend(bytes) => content.extend(bytes),
        }
    }
    content
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(192)
    })]

    #[test]
    fn what_is_known_changes_no_cut(
        parts in parts(),
        edits in edits(),
        part_bytes in prop_oneof![Just(1u64), 1..400_000u64],
        holes in any::<bool>(),
    ) {
        let old: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let content = edited(old.clone(), &edits);
        for sizes in [SMALL, ChunkSizes::DEFAULT] {
            let chunking = chunking(sizes);
            let known = pieces_of(&chunking, &old);
            let expected = pieces_of(&chunking, &content);
            let (pieces, new) = cut_again(&chunking, &known, &content, part_bytes, holes);
            prop_assert_eq!(&pieces, &expected);
            if edits.is_empty() {
                let zeros = old.iter().all(|byte| *byte == 0);
                // A piece of zeros is not told from the beginning of a run.
                let in_zeros = old.windows(PAGE_BYTES).any(|page| page.iter().all(|b| *b == 0));
                prop_assert!(new == 0 || zeros || in_zeros, "{new} new bytes");
            }
        }
    }
}

#[test]
fn a_page_that_changed_costs_the_chunks_around_it() {
    let chunking = chunking(ChunkSizes::DEFAULT);
    let old = noise("database", 32 << 20);
    let known = pieces_of(&chunking, &old);
    let mut content = old;
    let pages = 40;
    for page in 0..pages {
        let at = page * (700 << 10) + 12_345;
        content[at..at + 8192].copy_from_slice(&noise(&format!("page {page}"), 8192));
    }
    let expected = pieces_of(&chunking, &content);
    for part_bytes in [1 << 20, 8 << 20, 1 << 30] {
        let (pieces, new) = cut_again(&chunking, &known, &content, part_bytes, false);
        assert!(pieces == expected, "in parts of {part_bytes}");
        let most = pages as u64 * 3 * u64::from(ChunkSizes::DEFAULT.max);
        assert!(new > 0 && new < most, "{new} bytes are new");
    }
}
