//! Strategies: arbitrary values that the format allows.

use podkeep_format::id::{ChunkId, LinkGroup, ListId, TreeId};
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::recipe::LAYER_BYTES_MAX;
use podkeep_format::snapshot::IdRange;
use podkeep_format::tree::{
    Content, Entry, HOLE_GRAIN, INLINE_BYTES_MAX, ListNode, Node, PIECE_BYTES_MAX, Piece, Time,
    TreeNode, Xattr, XattrValue,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};
use proptest::sample::select;

pub fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time { secs, nanos })
}

pub fn text(max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=max / 4).prop_map(|chars| chars.into_iter().collect())
}

pub fn item() -> BoxedStrategy<Item> {
    let named = (select(&ItemKind::ALL[..8]), vec(1..=255u8, 1..80))
        .prop_map(|(kind, name)| Item::new(kind, name));
    let part = vec(1..=255u8, 1..20).prop_filter("plain", |part| {
        !part.contains(&b'/') && part != b"." && part != b".."
    });
    let path = vec(part, 0..5).prop_map(|parts| {
        let mut path = vec![b'/'];
        path.extend_from_slice(&parts.join(&b'/'));
        Item::new(ItemKind::Path, path)
    });
    prop_oneof![named, path].boxed()
}

pub fn id_map() -> impl Strategy<Value = Vec<IdRange>> {
    vec((0..1000u32, any::<u32>(), 1..1_000_000u32), 0..8).prop_map(|parts| {
        let mut inside = 0;
        let mut map = Vec::new();
        for (gap, outside, len) in parts {
            inside += gap;
            map.push(IdRange {
                inside,
                outside: outside.min(u32::MAX - len),
                len,
            });
            inside += len;
        }
        map
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(1..=255u8, 1..40).prop_filter("a name", |name| {
        !name.contains(&b'/') && name != b"." && name != b".."
    })
}

fn pieces(max: usize) -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        (any::<[u8; 32]>(), 1..=PIECE_BYTES_MAX).prop_map(|(id, len)| Piece::Chunk {
            id: ChunkId(id),
            len
        }),
        (1..1u64 << 40).prop_map(|len| Piece::Zero { len }),
    ];
    vec(piece, 1..max).prop_map(|pieces| {
        let mut joined: Vec<Piece> = Vec::new();
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (Some(Piece::Zero { len }), Piece::Zero { len: more }) => *len += more,
                (_, piece) => joined.push(piece),
            }
        }
        joined
    })
}

/// A content as a stream of a recipe may have it, and its size.
pub fn content() -> impl Strategy<Value = (u64, Content)> {
    prop_oneof![
        vec(any::<u8>(), 0..=INLINE_BYTES_MAX)
            .prop_map(|bytes| (bytes.len() as u64, Content::Inline(bytes))),
        pieces(20).prop_map(|pieces| {
            let size = pieces.iter().map(Piece::bytes).sum();
            (size, Content::Pieces(pieces))
        }),
        (any::<[u8; 32]>(), 0..=12u8, 1..=i64::MAX as u64).prop_map(|(id, level, size)| (
            size,
            Content::List {
                id: ListId(id),
                level
            }
        )),
    ]
}

fn file() -> BoxedStrategy<Node> {
    let layer = (any::<[u8; 32]>(), 0..=LAYER_BYTES_MAX).prop_map(|(id, size)| Node::File {
        size,
        content: Content::Recipe { id: ChunkId(id) },
        holes: Vec::new(),
        unstable: false,
    });
    prop_oneof![4 => plain_file(), 1 => layer].boxed()
}

fn plain_file() -> impl Strategy<Value = Node> {
    (content(), vec((1..9u64, 1..9u64), 0..5), any::<bool>()).prop_map(
        |((size, content), gaps, unstable)| {
            let mut holes = Vec::new();
            let mut end = 0;
            for (gap, len) in gaps {
                let offset = end + gap * HOLE_GRAIN;
                if offset >= size {
                    break;
                }
                end = (offset + len * HOLE_GRAIN).min(size);
                holes.push((offset, end - offset));
            }
            Node::File {
                size,
                content,
                holes,
                unstable,
            }
        },
    )
}

fn node() -> BoxedStrategy<Node> {
    prop_oneof![
        4 => file(),
        1 => any::<[u8; 32]>().prop_map(|id| Node::Directory { tree: TreeId(id) }),
        1 => vec(1..=255u8, 1..300).prop_map(|target| Node::Symlink { target }),
        1 => (any::<u32>(), any::<u32>())
            .prop_map(|(major, minor)| Node::CharDevice { major, minor }),
        1 => (any::<u32>(), any::<u32>())
            .prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
        1 => Just(Node::Fifo),
        1 => Just(Node::Socket),
    ]
    .boxed()
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let value = prop_oneof![
        vec(any::<u8>(), 0..=512).prop_map(XattrValue::Inline),
        (any::<[u8; 32]>(), 513..=65_536u32).prop_map(|(id, len)| XattrValue::Chunk {
            id: ChunkId(id),
            len
        }),
    ];
    btree_map(vec(1..=255u8, 1..30), value, 0..4).prop_map(|map| {
        map.into_iter()
            .map(|(name, value)| Xattr { name, value })
            .collect()
    })
}

pub fn entry() -> BoxedStrategy<Entry> {
    (
        (name(), 0..=0o7777u16, any::<u32>(), any::<u32>(), time()),
        (any::<u32>(), any::<u32>(), xattrs()),
        (option::of(any::<[u8; 16]>()), node()),
    )
        .prop_map(
            |((name, mode, uid, gid, mtime), (inode_flags, project, xattrs), (link, node))| {
                let link = match node {
                    Node::Directory { .. } => None,
                    _ => link.map(LinkGroup),
                };
                Entry {
                    name,
                    mode,
                    uid,
                    gid,
                    mtime,
                    inode_flags,
                    project,
                    xattrs,
                    link,
                    node,
                }
            },
        )
        .boxed()
}

pub fn tree_node() -> BoxedStrategy<TreeNode> {
    prop_oneof![
        entry().prop_map(|entry| TreeNode::Root(Box::new(Entry {
            name: Vec::new(),
            ..entry
        }))),
        vec(entry(), 0..12).prop_map(|mut entries| {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            TreeNode::Leaf(entries)
        }),
        (1..=12u8, btree_map(name(), any::<[u8; 32]>(), 1..12)).prop_map(|(level, children)| {
            TreeNode::Branch {
                level,
                children: children
                    .into_iter()
                    .map(|(name, id)| (name, TreeId(id)))
                    .collect(),
            }
        }),
    ]
    .boxed()
}

pub fn list_node() -> BoxedStrategy<ListNode> {
    prop_oneof![
        pieces(300).prop_map(ListNode::Pieces),
        (1..=12u8, vec((any::<[u8; 32]>(), 1..1u64 << 50), 1..100)).prop_map(
            |(level, children)| ListNode::Lists {
                level,
                children: children
                    .into_iter()
                    .map(|(id, bytes)| (ListId(id), bytes))
                    .collect(),
            }
        ),
    ]
    .boxed()
}
