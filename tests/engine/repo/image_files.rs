//! Looking into images: what `ls` and `dump` make of layers that lie over each other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use podkeep_engine::monitor::Collect;
use podkeep_engine::operations::{
    ImageEntry, ImageNode, ItemPath, OperationResult, Selector, SnapSpec, SnapWhich, dump, ls,
};
use podkeep_engine::repo::Repository;
use podkeep_format::id::{ChunkId, ChunkKind};
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::recipe::{Recipe, RunsEncoder, Stream};
use podkeep_format::tree::{Content, Piece};

use super::noise;
use super::tars::{self, Part, Session, Storing, file, layer_file, prepared};
use crate::fake_store::{Ending, LongName, Tar};

fn image() -> Item {
    Item::new(ItemKind::Image, *b"localhost/web:1")
}

fn at(path: &str) -> ItemPath {
    ItemPath {
        selector: Selector {
            item: image(),
            glob: false,
        },
        path: path.as_bytes().to_vec(),
    }
}

fn latest() -> SnapSpec {
    SnapSpec {
        which: SnapWhich::Latest(0),
        host: None,
    }
}

/// As a backup stores it: contents apart from headers.
fn parts(tar: &Tar) -> tars::Tar {
    let mut parts = Vec::new();
    let mut end = 0;
    for content in tar.contents() {
        parts.push(Part::Literal(tar.bytes[end..content.start].to_vec()));
        parts.push(Part::Payload(tar.bytes[content.clone()].to_vec()));
        end = content.end;
    }
    parts.push(Part::Literal(tar.bytes[end..].to_vec()));
    tars::Tar(parts)
}

fn save(repo: &Repository, tars: &[tars::Tar]) {
    let mut session = Session::open(repo).unwrap();
    let mut files = Vec::new();
    for (number, tar) in tars.iter().enumerate() {
        let (layer, _) = session.store(tar, tar.diff_id()).unwrap();
        let path = format!("layers/{number:04}-{}.tar", tar.diff_id());
        files.push((path, layer_file(layer)));
    }
    let files: Vec<_> = files.iter().map(|(p, n)| (p.as_str(), n.clone())).collect();
    session.publish(&image(), &files).unwrap();
}

fn listed(repo: &Repository, path: &str) -> OperationResult<Vec<ImageEntry>> {
    let mut entries = Vec::new();
    let mut visit = |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    };
    ls::ls_image(repo, &latest(), &at(path), &mut visit, &Collect::default())?;
    Ok(entries)
}

fn dumped(repo: &Repository, path: &str) -> OperationResult<Vec<u8>> {
    let mut out = Vec::new();
    let monitor = Collect::default();
    let len = dump::dump_image_file(repo, &latest(), &at(path), &mut out, &monitor)?;
    assert_eq!(len, out.len() as u64);
    Ok(out)
}

/// Paths with what is there: a file's content, `/` for a directory, `-> target`, or a word.
fn seen(tars: &[Tar]) -> BTreeMap<String, String> {
    let (_, repo) = prepared();
    save(&repo, &tars.iter().map(parts).collect::<Vec<_>>());
    let mut seen = BTreeMap::new();
    for entry in listed(&repo, "").unwrap() {
        let path = String::from_utf8(entry.path).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let what = match entry.node {
            ImageNode::File { size } => {
                let content = dumped(&repo, &path).unwrap();
                assert_eq!(content.len() as u64, size);
                text(content)
            }
            ImageNode::Directory => "/".to_owned(),
            ImageNode::Symlink { target } => format!("-> {}", text(target)),
            other => other.word().to_owned(),
        };
        assert_eq!(seen.insert(path, what), None);
    }
    assert_eq!(seen.remove("").as_deref(), Some("/"));
    seen
}

#[track_caller]
fn shows(tars: &[Tar], expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> = expected
        .iter()
        .map(|(path, what)| ((*path).to_owned(), (*what).to_owned()))
        .collect();
    assert_eq!(seen(tars), expected);
}

fn tar() -> Tar {
    Tar::default()
}

#[test]
fn whiteouts_hide_what_lower_layers_have_wherever_they_stand() {
    let lower = tar()
        .file("d/old", b"old")
        .file("d/kept", b"kept")
        .file("gone/a/b", b"b")
        .file("o/x", b"x")
        .file("o/sub/y", b"y");
    let upper = tar()
        .file("o/new", b"new")
        .file("o/sub/new", b"new")
        .opaque("o")
        .whiteout("d/old")
        .whiteout("d/none")
        .file("d/again", b"again")
        .whiteout("d/again")
        .whiteout("gone");
    shows(
        &[lower, upper],
        &[
            ("d", "/"),
            ("d/again", "again"),
            ("d/kept", "kept"),
            ("o", "/"),
            ("o/new", "new"),
            ("o/sub", "/"),
            ("o/sub/new", "new"),
        ],
    );
}

#[test]
fn a_whiteout_of_a_directory_leaves_what_its_own_layer_has_there() {
    let lower = tar().file("d/old", b"old").file("d/s/old", b"old");
    let upper = tar().file("d/s/new", b"new").whiteout("d");
    let expected = [("d", "/"), ("d/s", "/"), ("d/s/new", "new")];
    shows(&[lower, upper], &expected);
}

#[test]
fn a_later_member_takes_the_place_of_an_earlier_one() {
    let lower = tar()
        .file("file-to-dir", b"x")
        .file("dir-to-file/a", b"a")
        .file("dir-to-link/a", b"a")
        .directory("dir")
        .file("dir/a", b"a")
        .file("twice", b"1")
        .file("twice", b"2");
    let upper = tar()
        .file("file-to-dir/in", b"in")
        .file("dir-to-file", b"file")
        .symlink("dir-to-link", b"dir")
        .directory("./dir/")
        .fifo("/dir/../fifo");
    shows(
        &[lower, upper],
        &[
            ("dir", "/"),
            ("dir-to-file", "file"),
            ("dir-to-link", "-> dir"),
            ("dir/a", "a"),
            ("fifo", "fifo"),
            ("file-to-dir", "/"),
            ("file-to-dir/in", "in"),
            ("twice", "2"),
        ],
    );
}

#[test]
fn hard_links_keep_what_they_were_linked_to() {
    let lower = tar()
        .file("t1", b"old")
        .hard_link("t2", b"./t1")
        .hard_link("t3", b"/t2");
    let over = tar().file("t1", b"new").whiteout("t2");
    let linked = tar().file("target", b"linked").hard_link("t3", b"target");
    shows(
        &[lower.clone(), over.clone()],
        &[("t1", "new"), ("t3", "old")],
    );
    shows(
        &[lower, over, linked],
        &[("t1", "new"), ("t3", "linked"), ("target", "linked")],
    );
}

/// As the overlay driver shows it, which unpacks each layer by itself.
#[test]
fn links_of_the_same_layer_are_followed_and_those_of_lower_ones_give_way() {
    let same = tar()
        .directory("usr/lib")
        .symlink("lib", b"/usr/lib")
        .symlink("up", b"../../usr")
        .file("lib/a", b"a")
        .file("up/b", b"b")
        .hard_link("lib/c", b"up/lib/a");
    let expected = [
        ("lib", "-> /usr/lib"),
        ("up", "-> ../../usr"),
        ("usr", "/"),
        ("usr/b", "b"),
        ("usr/lib", "/"),
        ("usr/lib/a", "a"),
        ("usr/lib/c", "a"),
    ];
    shows(std::slice::from_ref(&same), &expected);
    let upper = tar().file("lib/d", b"d");
    let mut expected: BTreeMap<&str, &str> = expected.into();
    expected.extend([("lib", "/"), ("lib/d", "d")]);
    shows(&[same, upper], &expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn names_of_every_form_and_attributes_are_read() {
    let long = format!("long/{}/{}", "n".repeat(200), "m".repeat(150));
    let layer = tar()
        .file_with(
            "attributes",
            b"content",
            &[
                ("SCHILY.xattr.user.x", &b"\x00\xff value"[..]),
                ("mtime", &b"-1.5"[..]),
                ("uid", &b"4294967294"[..]),
            ],
            LongName::Pax,
        )
        .file_with(format!("{long}-gnu"), b"gnu", &[], LongName::Gnu)
        .file(format!("{long}-pax"), b"pax")
        .end(Ending::Junk(77));
    let (_, repo) = prepared();
    save(&repo, &[parts(&layer)]);
    let entries = listed(&repo, "attributes").unwrap();
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(
        (entry.mode, entry.uid, entry.gid),
        (0o644, u32::MAX - 1, 1000)
    );
    assert_eq!((entry.mtime.secs, entry.mtime.nanos), (-2, 500_000_000));
    for kind in ["gnu", "pax"] {
        let content = dumped(&repo, &format!("{long}-{kind}")).unwrap();
        assert_eq!(content, kind.as_bytes());
    }
    let below: Vec<Vec<u8>> = listed(&repo, "long")
        .unwrap()
        .into_iter()
        .map(|entry| entry.path)
        .collect();
    assert_eq!(below.len(), 4, "only what is below");
}

#[test]
fn contents_of_any_size_are_dumped_from_the_middle_of_a_layer() {
    let large = noise(1, 3_000_000);
    let mut mixed = vec![0; 400_000];
    mixed.extend_from_slice(&noise(2, 70_001));
    let layer = tar()
        .file("small", b"s")
        .file("large", &large)
        .file("mixed", &mixed)
        .file("last", &noise(3, 513));
    let (_, repo) = prepared();
    // However the streams are parted.
    let whole = tars::Tar(vec![Part::Literal(layer.bytes.clone())]);
    let reversed = tars::Tar(vec![Part::Payload(layer.bytes.clone())]);
    for stored in [parts(&layer), whole, reversed] {
        save(&repo, &[stored]);
        assert!(dumped(&repo, "large").unwrap() == large);
        assert!(dumped(&repo, "mixed").unwrap() == mixed);
        assert!(dumped(&repo, "last").unwrap() == noise(3, 513));
    }
}

/// The contents are not even in the repository.
#[test]
fn a_listing_reads_headers_only() {
    let (_, repo) = prepared();
    let content = noise(1, 100_000);
    let layer = tar().file("large", &content).file("small", b"s");
    let content = layer.contents().next().unwrap();
    let (front, back) = (&layer.bytes[..content.start], &layer.bytes[content.end..]);
    let mut session = Session::open(&repo).unwrap();
    let mut storing = Storing {
        session: &mut session,
        chunks: Default::default(),
    };
    let (mut encoder, mut runs) = (RunsEncoder::new(), Vec::new());
    encoder.literals(front.len() as u64, &mut runs);
    encoder.payloads(content.len() as u64);
    encoder.literals(back.len() as u64, &mut runs);
    encoder.finish(&mut runs);
    let missing = Piece::Chunk {
        id: ChunkId([9; 32]),
        len: content.len() as u32,
    };
    let recipe = Recipe {
        diff_id: layer.diff_id(),
        size: layer.bytes.len() as u64,
        literals: storing.stream(&[[front, back].concat()]).unwrap(),
        payloads: Stream {
            size: content.len() as u64,
            content: Content::Pieces(vec![missing]),
        },
        runs: storing.stream(&[runs]).unwrap(),
    };
    let id = storing.add(ChunkKind::Recipe, &recipe.encode()).unwrap();
    let node = file(recipe.size, Content::Recipe { id });
    let path = format!("layers/0000-{}.tar", layer.diff_id());
    session.publish(&image(), &[(&path, node)]).unwrap();
    drop(session);
    assert_eq!(listed(&repo, "").unwrap().len(), 3);
    assert_eq!(dumped(&repo, "small").unwrap(), b"s");
    assert!(dumped(&repo, "large").is_err());
}

/// The error of a listing of two layers, of which the upper one is `upper`.
fn refusal(upper: tars::Tar) -> String {
    let (_, repo) = prepared();
    let lower = tar().directory("d").file("d/file", b"x");
    save(&repo, &[parts(&lower), upper]);
    listed(&repo, "").unwrap_err().to_string()
}

#[test]
fn tars_that_cannot_be_laid_over_each_other_name_layer_and_place() {
    let long = "n".repeat(256);
    for (upper, why) in [
        (tar().file("../out", b""), "leads out of the layer"),
        (tar().file("a/../../out", b""), "leads out of the layer"),
        (tar().hard_link("link", b"none"), "names what is not there"),
        (tar().hard_link("link", b"d"), "names a directory"),
        (tar().hard_link("link", b"../d/file"), "leads out"),
        (
            tar().file("f", b"").file("f/below", b""),
            "below what is no directory",
        ),
        (
            tar().symlink("a", b"b").symlink("b", b"a").file("a/x", b""),
            "too many links",
        ),
        (tar().file(&long, b""), "over 255 bytes"),
        (tar().file("x/".repeat(2100), b""), "over 4096 bytes"),
        (tar().file(".", b""), "no directory"),
        (
            tar().file_with("s", b"", &[("GNU.sparse.major", b"1")], LongName::Pax),
            "sparse files",
        ),
    ] {
        let offset = upper.bytes.len();
        let error = refusal(parts(&upper));
        assert!(error.contains(why), "{error}");
        assert!(error.contains("layer 1 (sha256:"), "{error}");
        assert!(error.contains(" at byte ") && offset > 0, "{error}");
    }
}

#[test]
fn a_tar_that_is_cut_or_changed_is_refused() {
    let whole = tar().file("a", &[7; 700]).file("b", b"x");
    let cut = |len: usize| tars::Tar(vec![Part::Literal(whole.bytes[..len].to_vec())]);
    for (len, why) in [
        (100, "inside of a header"),
        (512 + 699, "inside of a content"),
        (512 + 1024 + 300, "inside of a header"),
    ] {
        let error = refusal(cut(len));
        assert!(error.contains(why), "{error}");
    }
    let mut changed = whole.bytes.clone();
    changed[512 + 1024 + 3] = b'c';
    let error = refusal(tars::Tar(vec![Part::Literal(changed)]));
    assert!(
        error.contains("at byte 1536 of its tar: the checksum"),
        "{error}"
    );
    // A tar may end without its blocks of zeros, and without what fills the last block.
    let (_, repo) = prepared();
    for len in [512 + 700, 512 + 1024] {
        save(&repo, &[cut(len)]);
        assert_eq!(dumped(&repo, "a").unwrap(), [7; 700]);
    }
}

#[test]
fn what_is_not_there_is_told_from_stored_parts() {
    let (_, repo) = prepared();
    let layer = tar().file("etc/passwd", b"root").symlink("l", b"etc");
    save(&repo, &[parts(&layer)]);
    let error = dumped(&repo, "etc/paswd").unwrap_err();
    assert!(format!("{error:?}").contains("\"passwd\""), "{error:?}");
    let path = format!("layers/0000-{}.tar", layer.diff_id());
    let error = dumped(&repo, &path).unwrap_err().to_string();
    assert!(error.contains("a stored part of it"), "{error}");
    let error = dumped(&repo, "etc").unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    assert!(dumped(&repo, "l/passwd").is_err(), "links are not followed");
    assert_eq!(dumped(&repo, "/etc//passwd").unwrap(), b"root");
}
