use std::sync::Arc;

use podkeep_format::id::TreeId;
use podkeep_format::tree::{Content, Entry, Node, Time, Xattr, XattrValue};

use super::{DirectoryNumber, Shape, WriteStep};

fn entry(name: &str, node: Node) -> Entry {
    Entry {
        name: name.into(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node,
    }
}

fn folder(number: DirectoryNumber, parent: DirectoryNumber, name: &str) -> WriteStep {
    let tree = TreeId([0; 32]);
    WriteStep::Directory {
        number,
        parent,
        entry: Box::new(entry(name, Node::Directory { tree })),
    }
}

fn file(parent: DirectoryNumber, entry: Entry) -> WriteStep {
    WriteStep::File {
        number: 0,
        parent,
        entry: Arc::new(entry),
        parts: Vec::new(),
        last: true,
    }
}

fn plain(name: &str) -> Entry {
    let node = Node::File {
        size: 0,
        content: Content::Inline(Vec::new()),
        holes: Vec::new(),
        unstable: false,
    };
    entry(name, node)
}

/// Loading and adopting go by paths in the tree, as root: what a hostile snapshot has besides
/// an image's files would lead them elsewhere.
#[test]
fn a_tree_of_another_shape_is_refused() {
    let layer = format!("0000-{}.tar", "cd".repeat(32));
    let names = |name: &str| [name.to_owned()];
    let mut shape = Shape::default()
        .folder("big-data", names("manifest"))
        .folder("layers", names(&layer));
    for step in [
        folder(0, 0, ""),
        folder(1, 0, "big-data"),
        folder(2, 0, "layers"),
        file(1, plain("manifest")),
        file(2, plain(&layer)),
        WriteStep::DirectoryEnd { number: 2 },
    ] {
        assert!(shape.allows(&step), "{step:?}");
    }
    let link = Node::Symlink {
        target: b"/etc/shadow".to_vec(),
    };
    let mut immutable = plain("manifest");
    immutable.inode_flags = 0x10;
    let mut labelled = plain("manifest");
    labelled.xattrs.push(Xattr {
        name: b"user.x".to_vec(),
        value: XattrValue::Inline(Vec::new()),
    });
    for step in [
        folder(3, 0, "layout"),
        folder(3, 1, "big-data"),
        file(0, plain("policy.json")),
        file(1, plain("policy.json")),
        file(1, plain(&layer)),
        file(2, plain("manifest")),
        file(7, plain("manifest")),
        file(1, immutable),
        file(1, labelled),
        WriteStep::Node {
            parent: 1,
            entry: Box::new(entry("manifest", link)),
        },
        WriteStep::Node {
            parent: 1,
            entry: Box::new(entry("manifest", Node::Fifo)),
        },
        WriteStep::Link {
            parent: 1,
            entry: Box::new(plain("manifest")),
        },
    ] {
        assert!(!shape.allows(&step), "{step:?}");
    }
}
