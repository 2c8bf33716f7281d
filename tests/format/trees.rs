//! Splitting directories and contents: the same nodes whatever the order of arrival, small
//! changes to few nodes, and bounds that hold.

use std::collections::{BTreeMap, BTreeSet};

use podkeep_format::codec::Encoder;
use podkeep_format::id::{ChunkId, ChunkIdKey, ChunkKind, TreeId};
use podkeep_format::tree::{
    Content, ContentBuilder, Entry, LIST_PIECES_MAX, LIST_PIECES_MIN, ListNode, NODE_BYTES_MAX,
    NODE_BYTES_MIN, Node, PIECES_INLINE_MAX, Piece, TreeNode, build_directory,
};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::samples::{bytes32, entry, ids};

type Nodes = BTreeMap<ChunkId, Vec<u8>>;

fn directory(key: &ChunkIdKey, entries: &[Entry]) -> (TreeId, Nodes) {
    let encoded: Vec<(Vec<u8>, Vec<u8>)> = entries
        .iter()
        .map(|entry| {
            let mut out = Encoder::new();
            entry.encode(&mut out);
            (entry.name.clone(), out.finish())
        })
        .collect();
    let mut nodes = Nodes::new();
    let bodies = encoded
        .iter()
        .map(|(name, body)| (name.as_slice(), body.as_slice()));
    let root = build_directory(key, bodies, &mut |id, bytes| {
        assert_eq!(id, key.chunk_id(ChunkKind::Tree, &bytes));
        nodes.insert(id, bytes);
    });
    (root, nodes)
}

/// All entries below a node in order; checks that levels descend and that first names are true.
fn read_directory(nodes: &Nodes, root: TreeId) -> Vec<Entry> {
    fn walk(nodes: &Nodes, id: TreeId, level: Option<u8>, entries: &mut Vec<Entry>) -> u8 {
        let node = TreeNode::decode(&nodes[&ChunkId::from(id)]).expect("sound");
        match node {
            TreeNode::Leaf(found) => {
                assert!(level.is_none_or(|level| level == 0));
                entries.extend(found);
                0
            }
            TreeNode::Branch {
                level: own,
                children,
            } => {
                assert!(level.is_none_or(|level| level == own));
                for (first, child) in children {
                    let start = entries.len();
                    walk(nodes, child, Some(own - 1), entries);
                    assert_eq!(entries[start].name, first);
                }
                own
            }
            TreeNode::Root(_) => panic!("a root inside a directory"),
        }
    }
    let mut entries = Vec::new();
    walk(nodes, root, None, &mut entries);
    entries
}

fn files(names: impl Iterator<Item = String>) -> Vec<Entry> {
    let names: BTreeSet<String> = names.collect();
    names
        .into_iter()
        .map(|name| entry(&name, Node::Fifo))
        .collect()
}

#[test]
fn directories_of_every_size_come_back() {
    for count in [0usize, 1, 2, 300, 2000, 30_000] {
        let entries = files((0..count).map(|n| format!("{}", n * 7919)));
        let (root, nodes) = directory(&ids(), &entries);
        assert_eq!(read_directory(&nodes, root), entries);
        if count == 0 {
            assert_eq!(nodes.len(), 1);
        }
    }
}

#[test]
fn nodes_keep_their_bounds() {
    let entries = files((0..60_000).map(|n| format!("{:0200}", n * 7919)));
    let (root, nodes) = directory(&ids(), &entries);
    let mut small = 0;
    for (id, bytes) in &nodes {
        assert!(bytes.len() <= NODE_BYTES_MAX + 16, "{} bytes", bytes.len());
        if bytes.len() < NODE_BYTES_MIN {
            small += 1;
        }
        let level = match TreeNode::decode(bytes).expect("sound") {
            TreeNode::Branch { level, .. } => level,
            _ => 0,
        };
        assert!(level <= 3, "60000 names need no level {level}");
        assert!(level > 0 || *id != ChunkId::from(root));
    }
    // Only the last node of a level ends where nothing cut it.
    assert!(small <= 4, "{small} nodes are under the lower bound");
}

#[test]
fn one_huge_entry_is_a_node_of_its_own() {
    let mut entries = files((0..400).map(|n| format!("{n}")));
    let mut out = Encoder::new();
    entries[200].node = Node::Symlink {
        target: vec![b'x'; 4000],
    };
    entries[200].xattrs = (0..600)
        .map(|n| podkeep_format::tree::Xattr {
            name: format!("user.{n:05}").into_bytes(),
            value: podkeep_format::tree::XattrValue::Inline(vec![1; 512]),
        })
        .collect();
    entries[200].encode(&mut out);
    assert!(out.len() > NODE_BYTES_MAX);
    let (root, nodes) = directory(&ids(), &entries);
    assert_eq!(read_directory(&nodes, root), entries);
    let over = nodes.values().filter(|bytes| bytes.len() > NODE_BYTES_MAX);
    assert_eq!(over.count(), 1);
}

/// What a night's backup of a mail folder adds must not be the whole folder.
#[test]
fn one_new_name_changes_few_nodes() {
    let key = ids();
    let entries = files((0..50_000).map(|n| format!("{}", n * 7919)));
    let (_, before) = directory(&key, &entries);
    let mut worst = 0;
    for new in ["0", "123456", "1999", "9zzz", "5", "55555555"] {
        let mut more = entries.clone();
        let at = more
            .binary_search_by(|entry| entry.name.as_slice().cmp(new.as_bytes()))
            .unwrap_or_else(|at| at);
        more.insert(at, entry(new, Node::Fifo));
        let (_, after) = directory(&key, &more);
        let added: usize = after
            .iter()
            .filter(|(id, _)| !before.contains_key(id))
            .map(|(_, bytes)| bytes.len())
            .sum();
        worst = worst.max(added);
    }
    let whole: usize = before.values().map(Vec::len).sum();
    assert!(worst * 10 < whole, "{worst} of {whole} bytes are new");
}

#[test]
fn where_a_directory_is_split_depends_on_the_key() {
    let entries = files((0..20_000).map(|n| format!("{n}")));
    let (_, mine) = directory(&ids(), &entries);
    let (_, other) = directory(&ChunkIdKey::new(&bytes32("other")), &entries);
    let lengths = |nodes: &Nodes| {
        let mut lengths: Vec<usize> = nodes.values().map(Vec::len).collect();
        lengths.sort_unstable();
        lengths
    };
    assert_ne!(lengths(&mine), lengths(&other));
}

fn content(key: &ChunkIdKey, pieces: &[Piece]) -> (Content, Nodes) {
    let mut nodes = Nodes::new();
    let mut emit = |id, bytes: Vec<u8>| {
        assert_eq!(id, key.chunk_id(ChunkKind::List, &bytes));
        nodes.insert(id, bytes);
    };
    let mut content = ContentBuilder::new();
    for piece in pieces {
        content.push(key, *piece, &mut emit);
    }
    assert_eq!(content.size(), pieces.iter().map(Piece::bytes).sum::<u64>());
    (content.finish(key, &mut emit), nodes)
}

/// The pieces of a content; checks levels, sizes and bounds of its nodes.
fn read_content(nodes: &Nodes, content: &Content) -> Vec<Piece> {
    fn walk(nodes: &Nodes, id: ChunkId, level: u8, pieces: &mut Vec<Piece>) -> u64 {
        match ListNode::decode(&nodes[&id]).expect("sound") {
            ListNode::Pieces(found) => {
                assert_eq!(level, 0);
                assert!(found.len() <= LIST_PIECES_MAX);
                let bytes = found.iter().map(Piece::bytes).sum();
                pieces.extend(found);
                bytes
            }
            ListNode::Lists {
                level: own,
                children,
            } => {
                assert_eq!(level, own);
                assert!(children.len() <= LIST_PIECES_MAX);
                let mut sum = 0;
                for (child, bytes) in children {
                    assert_eq!(walk(nodes, child.into(), own - 1, pieces), bytes);
                    sum += bytes;
                }
                sum
            }
        }
    }
    match content {
        Content::Inline(bytes) => {
            assert!(bytes.is_empty());
            Vec::new()
        }
        Content::Pieces(pieces) => pieces.clone(),
        Content::List { id, level } => {
            let mut pieces = Vec::new();
            walk(nodes, ChunkId::from(*id), *level, &mut pieces);
            pieces
        }
        Content::Recipe { .. } => panic!("a recipe is built of contents"),
    }
}

fn chunk(n: u32) -> Piece {
    Piece::Chunk {
        id: ChunkId(bytes32(&format!("chunk {n}"))),
        len: n % 60_000 + 1,
    }
}

#[test]
fn contents_of_every_length_come_back() {
    for count in [
        0,
        1,
        PIECES_INLINE_MAX,
        PIECES_INLINE_MAX + 1,
        LIST_PIECES_MAX,
        LIST_PIECES_MAX + 1,
        50_000,
        300_000,
    ] {
        let pieces: Vec<Piece> = (0..count as u32).map(chunk).collect();
        let (content, nodes) = content(&ids(), &pieces);
        assert_eq!(read_content(&nodes, &content), pieces, "{count} pieces");
        match content {
            Content::Inline(_) => assert_eq!(count, 0),
            Content::Pieces(_) => assert!((1..=PIECES_INLINE_MAX).contains(&count)),
            Content::List { level, .. } => {
                assert!(count > PIECES_INLINE_MAX);
                assert!(level <= 3, "{count} pieces need no level {level}");
            }
            Content::Recipe { .. } => panic!("a recipe is built of contents"),
        }
    }
}

/// Disk images of nothing but one chunk and holes have ids that never say "cut here", or always.
#[test]
fn contents_without_good_places_to_cut_keep_their_bounds() {
    for id in [[0xff; 32], [0; 32]] {
        let pieces = vec![
            Piece::Chunk {
                id: ChunkId(id),
                len: 4096,
            };
            70_000
        ];
        let (content, nodes) = content(&ids(), &pieces);
        assert_eq!(read_content(&nodes, &content), pieces);
        for bytes in nodes.values() {
            if let ListNode::Pieces(found) = ListNode::decode(bytes).expect("sound") {
                let full = if id[31] == 0 {
                    LIST_PIECES_MIN
                } else {
                    LIST_PIECES_MAX
                };
                assert!(found.len() <= full);
            }
        }
    }
}

#[test]
fn one_changed_piece_changes_few_nodes() {
    let key = ids();
    let pieces: Vec<Piece> = (0..100_000).map(chunk).collect();
    let (_, before) = content(&key, &pieces);
    let mut changed = pieces.clone();
    changed.splice(50_000..50_001, [chunk(1_000_001), chunk(1_000_002)]);
    let (_, after) = content(&key, &changed);
    let new = after.keys().filter(|id| !before.contains_key(*id)).count();
    assert!(new <= 5, "{new} of {} nodes are new", after.len());
}

#[test]
fn runs_of_zeros_are_joined_wherever_they_meet() {
    let mut split = Vec::new();
    let mut joined = Vec::new();
    for n in 0..2000 {
        split.push(chunk(n));
        joined.push(chunk(n));
        for _ in 0..3 {
            split.push(Piece::Zero { len: 1 << 17 });
        }
        joined.push(Piece::Zero { len: 3 << 17 });
    }
    let (from_split, nodes) = content(&ids(), &split);
    let (from_joined, _) = content(&ids(), &joined);
    assert_eq!(from_split, from_joined);
    assert_eq!(read_content(&nodes, &from_split), joined);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(24)
    })]

    #[test]
    fn any_content_comes_back(kinds in vec(any::<u16>(), 0..3000)) {
        let mut pieces: Vec<Piece> = Vec::new();
        for kind in kinds {
            let zero = kind % 3 == 0 && !matches!(pieces.last(), Some(Piece::Zero { .. }));
            pieces.push(match zero {
                true => Piece::Zero { len: u64::from(kind) + 1 },
                false => chunk(u32::from(kind)),
            });
        }
        let (content, nodes) = content(&ids(), &pieces);
        prop_assert_eq!(read_content(&nodes, &content), pieces);
    }

    #[test]
    fn any_directory_comes_back(numbers in vec(any::<u32>(), 0..3000)) {
        let entries = files(numbers.into_iter().map(|n| format!("{n:x}")));
        let (root, nodes) = directory(&ids(), &entries);
        prop_assert_eq!(read_directory(&nodes, root), entries);
    }
}
