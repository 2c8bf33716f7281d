//! Foreign bytes for the decoder of tars, and what must hold whatever they are: for the smoke test
//! here and the fuzz target.

use podkeep_engine::fs::tar::{
    AclNames, BLOCK_BYTES, Layout, MemberError, MemberKind, MemberReader, PATH_BYTES_MAX,
    TarHeaders, TarKind, TarSource, TarStep, acl_attribute, read_sparse_map,
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

/// As an archive, and as a layer.
pub fn read_tar(bytes: &[u8]) {
    read_entries(bytes);
    read_members(bytes);
}

/// Walks through a tar, and holds each entry to what is promised of it.
fn read_entries(mut bytes: &[u8]) {
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

/// A tar in memory.
pub struct InMemory<'b>(pub &'b [u8]);

impl TarSource for InMemory<'_> {
    type Error = MemberError;

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, MemberError> {
        let len = buffer.len().min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        buffer[..len].copy_from_slice(taken);
        self.0 = rest;
        Ok(len)
    }

    fn skip(&mut self, bytes: u64) -> Result<u64, MemberError> {
        let len = (self.0.len() as u64).min(bytes);
        self.0 = &self.0[len as usize..];
        Ok(len)
    }
}

/// Members lie behind each other, and contents between them, inside of the tar.
fn read_members(bytes: &[u8]) {
    let mut tar = MemberReader::new(InMemory(bytes));
    let mut content_end = 0;
    while let Ok(Some(member)) = tar.next_member() {
        assert!(content_end <= member.offset && member.offset < bytes.len() as u64);
        assert!(member.path.len() <= PATH_BYTES_MAX && !member.path.contains(&0));
        assert!(member.mode <= 0o7777);
        if let MemberKind::File { content, size } = member.kind {
            assert!(content > member.offset && content <= bytes.len() as u64);
            // What is longer than the tar is found out by the next step.
            content_end = content.saturating_add(size).min(bytes.len() as u64);
        }
    }
}
