//! Foreign bytes for the decoder of tars, and what must hold whatever they are: for the smoke test
//! here and the fuzz target.

use podkeep_engine::fs::tar::{
    AclNames, BLOCK_BYTES, Layout, TarHeaders, TarKind, TarStep, acl_attribute, read_sparse_map,
};

struct Nobody;

impl AclNames for Nobody {
    fn user(&self, _: &str) -> Option<u32> {
        None
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }
}

/// Walks through a tar, and holds each entry to what is promised of it.
pub fn read_tar(mut bytes: &[u8]) {
    let mut headers = TarHeaders::new();
    while let Some((block, rest)) = bytes.split_first_chunk::<BLOCK_BYTES>() {
        bytes = rest;
        let entry = match headers.block(block) {
            Ok(TarStep::More) => continue,
            Ok(TarStep::Entry(entry)) => entry,
            Ok(TarStep::End) | Err(_) => {
                // Nothing comes after it.
                assert_eq!(headers.block(block), Ok(TarStep::End));
                return;
            }
        };
        assert!(headers.is_between());
        assert!(entry.mtime.nanos < 1_000_000_000);
        let has_content = matches!(entry.kind, TarKind::File | TarKind::Other(_));
        assert!(has_content || entry.stored_bytes == 0);
        assert!(entry.padding() < BLOCK_BYTES);
        let stored = usize::try_from(entry.stored_bytes).unwrap_or(usize::MAX);
        let mut content = &bytes[..stored.min(bytes.len())];
        let next = stored.saturating_add(entry.padding());
        let parts = match entry.layout {
            Layout::Whole => vec![(0, entry.stored_bytes)],
            Layout::Parts(parts) => parts,
            Layout::Listed => match read_sparse_map(&mut content, entry.size, entry.stored_bytes) {
                Ok((parts, _)) => parts,
                Err(_) => Vec::new(),
            },
        };
        let mut end = 0;
        for (offset, len) in parts {
            assert!(offset >= end);
            end = offset + len;
        }
        assert!(end <= entry.size || !has_content);
        for text in [&entry.access_acl, &entry.default_acl]
            .into_iter()
            .flatten()
        {
            if let Ok(value) = acl_attribute(text, &Nobody) {
                assert_eq!(value.len() % 8, 4);
            }
        }
        bytes = &bytes[next.min(bytes.len())..];
    }
}
