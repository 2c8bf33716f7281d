//! What an upper directory of an overlay mount says besides its entries.

use podkeep_format::tree::{Entry, Node, XattrValue};

const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Whether an entry only says that there is none of its name.
pub(super) fn is_whiteout(entry: &Entry) -> bool {
    matches!(entry.node, Node::CharDevice { major: 0, minor: 0 })
}

/// Whether a directory hides all of the one below it.
pub(super) fn is_opaque(entry: &Entry) -> bool {
    let yes = XattrValue::Inline(b"y".to_vec());
    let mut xattrs = entry.xattrs.iter();
    xattrs.any(|xattr| xattr.name == OPAQUE && xattr.value == yes)
}

/// The mark is of the mount; the directory itself has none.
pub(super) fn without_mark(entry: &mut Entry) {
    entry.xattrs.retain(|xattr| xattr.name != OPAQUE);
}
