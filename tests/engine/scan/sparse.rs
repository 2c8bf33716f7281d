//! Holes, large files, and what content becomes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use podkeep_format::tree::{Content, Node, Piece};

use super::support::{Place, Tree, noise, read};

fn sparse(place: &Place, name: &str, size: u64, data: &[(u64, &[u8])]) {
    let file = File::create(place.at(name)).expect("create");
    file.set_len(size).expect("set the length");
    for (offset, bytes) in data {
        file.write_all_at(bytes, *offset).expect("write");
    }
}

fn file<'t>(tree: &'t Tree, name: &str) -> (u64, &'t Content, &'t [(u64, u64)]) {
    match &tree.entry(name).node {
        Node::File {
            size,
            content,
            holes,
            ..
        } => (*size, content, holes),
        other => panic!("no file but {other:?}"),
    }
}

#[test]
fn f_08_huge_holes() {
    const TIB: u64 = 1 << 40;
    let place = Place::new();
    let page = noise(1, 4096);
    sparse(
        &place,
        "middle",
        TIB,
        &[(0, &page), (TIB / 2, &page), (TIB - 4096, &page)],
    );
    sparse(&place, "trailing", TIB + 77, &[(0, &page)]);
    sparse(&place, "all", TIB + 1, &[]);
    let tree = read(&place.path);
    tree.assert_clean();
    assert!(tree.data_bytes < 64 << 10);
    assert!(tree.bytes_read < 1 << 20);
    assert_eq!(tree.outcome.bytes_allocated, 4 * 4096);
    let (size, _, holes) = file(&tree, "middle");
    assert_eq!(size, TIB);
    let half = TIB / 2;
    assert_eq!(holes, [(4096, half - 4096), (half + 4096, half - 8192)]);
    assert_eq!(file(&tree, "trailing").2, [(4096, TIB + 77 - 4096)]);
    let (size, content, holes) = file(&tree, "all");
    assert_eq!(size, TIB + 1);
    assert_eq!(
        *content,
        Content::Pieces(vec![Piece::Zero { len: TIB + 1 }])
    );
    assert_eq!(holes, [(0, TIB + 1)]);
}

#[test]
fn f_08_content_does_not_depend_on_allocation() {
    let place = Place::new();
    let mut bytes = noise(2, 3 << 20);
    bytes[1 << 20..2 << 20].fill(0);
    place.write("full", &bytes);
    sparse(
        &place,
        "holes",
        3 << 20,
        &[(0, &bytes[..1 << 20]), (2 << 20, &bytes[2 << 20..])],
    );
    let tree = read(&place.path);
    tree.assert_clean();
    assert_eq!(file(&tree, "full").1, file(&tree, "holes").1);
    assert_eq!(file(&tree, "full").2, []);
    assert_eq!(file(&tree, "holes").2, [(1 << 20, 1 << 20)]);
    assert_eq!(tree.content("holes"), bytes);
}

#[test]
fn f_08_small_sparse_files() {
    let place = Place::new();
    sparse(&place, "hole", 10_000, &[]);
    sparse(&place, "tiny", 100, &[]);
    sparse(&place, "tail", 20_000, &[(0, &noise(3, 5000))]);
    let tree = read(&place.path);
    tree.assert_clean();
    assert_eq!(file(&tree, "hole").2, [(0, 10_000)]);
    assert_eq!(
        *file(&tree, "tiny").1,
        Content::Pieces(vec![Piece::Zero { len: 100 }])
    );
    assert_eq!(file(&tree, "tail").2, [(8192, 20_000 - 8192)]);
    assert_eq!(tree.content("tail")[5000..], vec![0; 15_000]);
}

#[test]
fn f_38_offsets_beyond_4_gib() {
    const GIB4: u64 = 1 << 32;
    let size = GIB4 + (64 << 10);
    let place = Place::new();
    let parts: [(u64, &[u8]); 4] = [
        ((1 << 31) - 1, b"two"),
        (GIB4 - 1, b"f"),
        (GIB4, b"our"),
        (size - 3, b"end"),
    ];
    sparse(&place, "large", size, &parts);
    let tree = read(&place.path);
    tree.assert_clean();
    assert_eq!(file(&tree, "large").0, size);
    let mut at = 0u64;
    let mut seen = 0;
    for piece in tree.pieces("large") {
        if let Piece::Chunk { id, .. } = piece {
            for (offset, expected) in parts {
                if (at..at + piece.bytes()).contains(&offset) {
                    let start = (offset - at) as usize;
                    assert_eq!(tree.chunks[&id][start..start + expected.len()], *expected);
                    seen += 1;
                }
            }
        }
        at += piece.bytes();
    }
    assert_eq!((at, seen), (size, 4));
}

#[test]
fn contents_of_every_size_come_out_as_they_are() {
    let place = Place::new();
    let sizes = [
        0,
        1,
        255,
        256,
        257,
        4095,
        8192,
        131_071,
        131_072,
        131_073,
        (1 << 20) - 1,
        1 << 20,
        (4 << 20) + 5,
        20 << 20,
    ];
    for size in sizes {
        place.write(format!("{size}"), &noise(size as u64, size));
    }
    let tree = read(&place.path);
    tree.assert_clean();
    for size in sizes {
        let name = format!("{size}");
        assert_eq!(file(&tree, &name).0, size as u64);
        assert!(
            tree.content(&name) == noise(size as u64, size),
            "{size} bytes differ"
        );
    }
    assert!(matches!(file(&tree, "256").1, Content::Inline(_)));
    assert!(matches!(file(&tree, "257").1, Content::Pieces(_)));
    assert!(matches!(file(&tree, "20971520").1, Content::List { .. }));
    let logical: usize = sizes.iter().sum();
    assert_eq!(tree.outcome.bytes_logical, logical as u64);
}

#[test]
fn reading_leaves_the_access_time_alone() {
    let place = Place::new();
    let path = place.write("a", b"content");
    let before = fs::metadata(&path)
        .and_then(|m| m.accessed())
        .expect("a time");
    // relatime moves it when it is not younger than mtime.
    let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    let times = fs::FileTimes::new()
        .set_accessed(std::time::SystemTime::UNIX_EPOCH)
        .set_modified(later);
    File::options()
        .write(true)
        .open(&path)
        .and_then(|f| f.set_times(times))
        .expect("set");
    assert_eq!(read(&place.path).content("a"), b"content");
    let after = fs::metadata(&path)
        .and_then(|m| m.accessed())
        .expect("a time");
    assert_eq!(after, std::time::SystemTime::UNIX_EPOCH);
    assert_ne!(before, after);
}
