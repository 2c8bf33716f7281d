//! POSIX ACLs: from the text that tars have to the extended attribute that Linux has.
//!
//! Source: `linux/posix_acl_xattr.h`; acl(5) of the text; star(5), whose entries end in the number
//! of the user or group.

/// `struct posix_acl_xattr_header`.
const VERSION: u32 = 2;
/// An entry for the owner, the group or the mask names nobody.
const NOBODY: u32 = u32::MAX;
/// Entries of one ACL; more do not fit into an attribute of 64 KiB.
const ENTRIES_MAX: usize = 8191;

/// Numbers of users and groups by their names, for entries that have no number.
pub trait AclNames {
    fn user(&self, name: &str) -> Option<u32>;
    fn group(&self, name: &str) -> Option<u32>;
}

/// The value of `system.posix_acl_access` or `system.posix_acl_default`. Errors say what is wrong
/// with the text, in words.
pub fn acl_attribute(text: &[u8], names: &dyn AclNames) -> Result<Vec<u8>, String> {
    let text = str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
    let mut entries = Vec::new();
    for line in text.split(['\n', ',']) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if entries.len() == ENTRIES_MAX {
            return Err(format!("it has more than {ENTRIES_MAX} entries"));
        }
        entries.push(entry(line, names)?);
    }
    // The kernel wants them by tag, and by number.
    entries.sort_unstable_by_key(|(tag, _, id)| (*tag, *id));
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(value)
}

/// Tag, permissions, number.
fn entry(line: &str, names: &dyn AclNames) -> Result<(u16, u16, u32), String> {
    let unclear = || format!("{line:?} is no entry of an ACL");
    let mut words = line.split(':');
    let kind = words.next().unwrap_or_default();
    let second = words.next().ok_or_else(unclear)?;
    let (name, permissions) = match (kind, words.next()) {
        // `mask:rwx` and `other:r-x` leave the empty name out.
        ("mask" | "m" | "other" | "o", None) => ("", second),
        (_, Some(permissions)) => (second, permissions),
        (_, None) => return Err(unclear()),
    };
    let told = words.next().map(str::parse::<u32>);
    let id = |resolve: &dyn Fn(&str) -> Option<u32>| match (told, name.parse()) {
        (Some(Ok(id)), _) | (None, Ok(id)) => Ok(id),
        (None, Err(_)) => {
            resolve(name).ok_or_else(|| format!("{name:?} in it is nobody that is known here"))
        }
        (Some(Err(_)), _) => Err(unclear()),
    };
    let (tag, id) = match (kind, name) {
        ("user" | "u", "") => (0x01, NOBODY),
        ("user" | "u", _) => (0x02, id(&|name| names.user(name))?),
        ("group" | "g", "") => (0x04, NOBODY),
        ("group" | "g", _) => (0x08, id(&|name| names.group(name))?),
        ("mask" | "m", "") => (0x10, NOBODY),
        ("other" | "o", "") => (0x20, NOBODY),
        _ => return Err(unclear()),
    };
    let mut bits = 0;
    for letter in permissions.trim().chars() {
        bits |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return Err(unclear()),
        };
    }
    Ok((tag, bits, id))
}
