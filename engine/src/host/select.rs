//! Which items a selector means: kind and name, with globs over names.

use podkeep_format::item::{Item, ItemKind};

use super::Inventory;

/// Every item of a host that `--all` covers, sorted.
pub fn everything(inventory: &Inventory) -> Vec<Item> {
    let mut items: Vec<Item> = inventory
        .volumes
        .iter()
        .map(|volume| Item::new(ItemKind::Volume, volume.name.as_bytes()))
        .collect();
    items.sort();
    items
}

/// The items of a host that a selector means, sorted. A `path:` is taken as it is: whether it
/// exists shows when it is read.
pub fn matching(inventory: &Inventory, wanted: &Item, glob: bool) -> Vec<Item> {
    if wanted.kind == ItemKind::Path {
        return vec![wanted.clone()];
    }
    let mut items = everything(inventory);
    items.retain(|item| matches(wanted, glob, item));
    items
}

/// Whether `item` is what `wanted` means.
pub fn matches(wanted: &Item, glob: bool, item: &Item) -> bool {
    wanted.kind == item.kind
        && match glob && wanted.kind != ItemKind::Path {
            true => glob_matches(&wanted.name, &item.name),
            false => wanted.name == item.name,
        }
}

/// `*` stands for any bytes, `?` for one byte, and a backslash takes the next byte literally.
/// Linear in time for any pattern: on a mismatch only the last `*` takes one byte more.
pub fn glob_matches(pattern: &[u8], name: &[u8]) -> bool {
    // The byte after a backslash, or the byte itself, and how long that is in the pattern.
    let literal = |p: usize| match pattern[p..] {
        [b'\\', escaped, ..] => (escaped, 2),
        [byte, ..] => (byte, 1),
        [] => (0, 0),
    };
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                n += 1;
            }
            Some(_) if literal(p).0 == name[n] => {
                p += literal(p).1;
                n += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, n) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("db*", "db", true),
            ("*db", "webdb", true),
            ("*a*b*", "xxaxxbxx", true),
            ("w?b", "web", true),
            ("web", "web1", false),
            ("a*b", "acbd", false),
            ("", "x", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*\\\\", "a\\", true),
            ("*\\?x", "a??x", true),
        ] {
            assert_eq!(
                glob_matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }
}
