//! Tars that are rebuilt from their recipes, also from recipes that lie.

use std::collections::BTreeSet;

use podkeep_engine::repo::recipes::{PartSource, SliceOf};
use podkeep_format::id::{ChunkId, ChunkKind, DiffId, ListId};
use podkeep_format::recipe::Recipe;
use podkeep_format::tree::{Content, ListNode, Piece};

use super::noise;
use super::tars::{Part, Session, Storing, Tar, prepared, reader, rebuilt};

#[test]
fn a_tar_is_rebuilt_from_its_recipe() {
    let (_, repo) = prepared();
    let mut session = Session::open(&repo).unwrap();
    let empty = Tar(Vec::new());
    let tiny = Tar(vec![Part::Literal(b"one".to_vec())]);
    let payload_first = Tar(vec![
        Part::Payload(noise(1, 1000)),
        Part::Literal(vec![0; 9]),
    ]);
    for tar in [
        Tar::sample(1),
        Tar::of_many_files(),
        empty,
        tiny,
        payload_first,
    ] {
        let layer = session.keep(&tar).unwrap();
        let reader = reader(&repo);
        let recipe = reader.recipe_of_file(layer.recipe, layer.size).unwrap();
        let bytes = tar.bytes();
        assert!(rebuilt(&reader, &recipe).unwrap() == bytes);
        // The parts, taken by themselves, lie without a gap and say where their bytes are.
        let mut end = 0;
        for part in reader.recipe_parts(&recipe) {
            let part = part.unwrap();
            assert_eq!(part.offset, end);
            assert!(part.len > 0);
            end += part.len;
            let expected = &bytes[part.offset as usize..end as usize];
            match part.source {
                PartSource::Zeros => assert!(expected.iter().all(|byte| *byte == 0)),
                PartSource::Inline(found) => assert!(found == expected),
                PartSource::Chunk(SliceOf {
                    id,
                    skip,
                    chunk_len,
                }) => {
                    let chunk = reader.chunk(ChunkKind::Data, id).unwrap();
                    assert_eq!(chunk.len, chunk_len as usize);
                    let start = skip as usize;
                    assert!(chunk.as_ref()[start..start + expected.len()] == *expected);
                }
            }
        }
        assert_eq!(end, layer.size);
        assert!(reader.recipe_of_file(layer.recipe, layer.size + 1).is_err());
    }
}

type Lie<'l> = &'l dyn Fn(&mut Recipe);

/// Whoever holds a write key can store any recipe: what is wrong with one is an error that says
/// so, whatever is asked of it.
#[test]
fn a_recipe_that_lies_is_refused() {
    let (_, repo) = prepared();
    let tar = Tar::of_many_files();
    let mut session = Session::open(&repo).unwrap();
    let layer = session.keep(&tar).unwrap();
    let good = reader(&repo).recipe(layer.recipe).unwrap();
    assert!(matches!(good.payloads.content, Content::List { .. }));
    assert!(matches!(good.runs.content, Content::Pieces(_)));
    let mut storing = Storing {
        session: &mut session,
        chunks: BTreeSet::new(),
    };
    let short_list = ListNode::Pieces(vec![Piece::Zero { len: 5 }]).encode();
    let short_list = ListId(storing.add(ChunkKind::List, &short_list).unwrap().0);
    let other_runs = storing
        .stream(&[noise(5, good.runs.size as usize)])
        .unwrap();
    session.commit().unwrap();
    let reader = reader(&repo);
    let lies: [(&str, Lie<'_>, &str); 8] = [
        (
            "another DiffID",
            &|r| r.diff_id = DiffId([7; 32]),
            "is rebuilt as sha256",
        ),
        (
            "a stream that ends early",
            &|r| {
                r.payloads.content = Content::List {
                    id: short_list,
                    level: 0,
                };
            },
            "ends too early",
        ),
        (
            "a node in the wrong place",
            &|r| {
                r.payloads.content = Content::List {
                    id: short_list,
                    level: 3,
                };
            },
            "wrong place",
        ),
        (
            "a stream that goes on",
            &|r| {
                r.payloads.size -= 10;
                r.size -= 10;
            },
            "over its bound",
        ),
        (
            "bytes that are no runs",
            &|r| r.runs = other_runs.clone(),
            "layer runs",
        ),
        (
            "runs of nothing but zeros",
            &|r| {
                r.runs.content = Content::Pieces(vec![Piece::Zero { len: r.runs.size }]);
            },
            "layer runs",
        ),
        (
            "runs that are cut",
            &|r| r.runs.size -= 2,
            "longer than it says",
        ),
        (
            "a chunk that is not there",
            &|r| {
                r.literals.content = Content::Pieces(vec![Piece::Chunk {
                    id: ChunkId([1; 32]),
                    len: r.literals.size as u32,
                }]);
            },
            "missing",
        ),
    ];
    for (what, lie, cause) in lies {
        let mut recipe = good.clone();
        lie(&mut recipe);
        let refused = rebuilt(&reader, &recipe).expect_err(what).to_string();
        assert!(refused.contains(cause), "{what}: {refused}");
    }
    // A chunk that is shorter than its place in the stream.
    let mut recipe = good;
    if let Content::Pieces(pieces) = &mut recipe.runs.content
        && let Some(Piece::Chunk { len, .. }) = pieces.last_mut()
    {
        *len += 1;
        recipe.runs.size += 1;
    }
    let refused = rebuilt(&reader, &recipe).unwrap_err().to_string();
    assert!(refused.contains("another length"), "{refused}");
}
