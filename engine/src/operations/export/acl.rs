//! POSIX ACLs as tars have them: in words, where the kernel has them in an extended attribute.

/// Version of the attribute's form.
const VERSION: [u8; 4] = [2, 0, 0, 0];
const ENTRY_BYTES: usize = 8;

/// The PAX key of an ACL that is kept in the extended attribute `name`.
pub fn key(name: &[u8]) -> Option<&'static [u8]> {
    match name {
        b"system.posix_acl_access" => Some(b"SCHILY.acl.access"),
        b"system.posix_acl_default" => Some(b"SCHILY.acl.default"),
        _ => None,
    }
}

/// An ACL in its long text form, with numbers for names. `None`: the value is no ACL.
pub fn text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&VERSION)?;
    if !entries.len().is_multiple_of(ENTRY_BYTES) {
        return None;
    }
    let mut text = Vec::new();
    for entry in entries.chunks_exact(ENTRY_BYTES) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let letters: String = [(4, 'r'), (2, 'w'), (1, 'x')]
            .map(|(bit, letter)| if permissions & bit != 0 { letter } else { '-' })
            .iter()
            .collect();
        text.push(format!("{who}:{letters}"));
    }
    Some(text.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_in_words() {
        let entry = |tag: u16, permissions: u16, id: u32| {
            let (tag, permissions) = (tag.to_le_bytes(), permissions.to_le_bytes());
            [&tag[..], &permissions, &id.to_le_bytes()].concat()
        };
        let value = [
            VERSION.to_vec(),
            entry(1, 6, u32::MAX),
            entry(2, 4, 1000),
            entry(4, 4, u32::MAX),
            entry(8, 7, 33),
            entry(16, 7, u32::MAX),
            entry(32, 0, u32::MAX),
        ]
        .concat();
        assert_eq!(
            text(&value).as_deref(),
            Some("user::rw-,user:1000:r--,group::r--,group:33:rwx,mask::rwx,other::---")
        );
        assert_eq!(text(&value[..value.len() - 1]), None);
        assert_eq!(text(b"\x01\0\0\0"), None);
        assert_eq!(text(&[VERSION.to_vec(), entry(3, 0, 0)].concat()), None);
    }
}
