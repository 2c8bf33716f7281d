//! How people name items, paths in them, and snapshots.
//!
//! Arguments are raw bytes in which `\xNN` and `\\` stand for bytes, as listings write them. The
//! structure (the kind, the `:/` before a path, glob characters) is found before that, so that an
//! escaped character never is structure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use podkeep_engine::operations::{ItemPath, Selection, Selector, SnapSpec, SnapWhich};
use podkeep_format::item::{Escaped, Item, ItemKind, unescape};

use crate::failure::Failure;
use podkeep_engine::operations::near::near_names;

/// Bytes of a path in an item. Linux has no such limit for a path that is walked step by step.
const PATH_BYTES_MAX: usize = 1 << 20;
const GLOB_CHARACTERS: &[u8] = b"*?";

/// `KIND:NAME`, without a path in it.
pub fn parse_selector(argument: &OsStr) -> Result<Selector, Failure> {
    let item = parse_item(argument)?;
    if !item.path.is_empty() {
        return Err(Failure::usage(
            format!("{} names a path in an item", Escaped(argument.as_bytes())),
            "whole items are meant here: KIND:NAME",
        ));
    }
    Ok(item.selector)
}

/// What `backup` takes.
pub fn parse_selection(selectors: &[impl AsRef<OsStr>], all: bool) -> Result<Selection, Failure> {
    let mut parsed: Vec<Selector> = Vec::new();
    for argument in selectors {
        let selector = parse_selector(argument.as_ref())?;
        if !parsed.contains(&selector) {
            parsed.push(selector);
        }
    }
    Ok(Selection {
        all,
        selectors: parsed,
    })
}

/// `KIND:NAME` or `KIND:NAME:/PATH`. A `path:` item has no `:/`: it simply goes on.
pub fn parse_item(argument: &OsStr) -> Result<ItemPath, Failure> {
    let bytes = argument.as_bytes();
    let shown = Escaped(bytes);
    let kinds = || {
        let words: Vec<&str> = ItemKind::ALL.iter().map(|kind| kind.word()).collect();
        words.join(", ")
    };
    let Some(colon) = bytes.iter().position(|b| *b == b':') else {
        let hint = if bytes.first() == Some(&b'/') {
            format!("for a path of the host: path:{shown}")
        } else {
            format!(
                "write KIND:NAME, such as volume:{shown}; kinds are {}",
                kinds()
            )
        };
        return Err(Failure::usage(format!("{shown} names no kind"), hint));
    };
    let (word, rest) = (&bytes[..colon], &bytes[colon + 1..]);
    let Some(kind) = str::from_utf8(word).ok().and_then(ItemKind::from_word) else {
        let word = String::from_utf8_lossy(word);
        let near = near_names(&word, ItemKind::ALL.iter().map(|kind| kind.word()));
        let hint = match near.first() {
            Some(near) => format!("did you mean {near}? Kinds are {}", kinds()),
            None => format!("kinds are {}", kinds()),
        };
        return Err(Failure::usage(format!("{shown} is of no known kind"), hint));
    };
    if kind == ItemKind::Path {
        return Ok(ItemPath {
            selector: Selector {
                item: Item::new(kind, absolute(&decode(rest, argument)?, argument)?),
                glob: false,
            },
            path: Vec::new(),
        });
    }
    let (name, path) = match rest.windows(2).position(|pair| pair == b":/") {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let glob = name.iter().any(|b| GLOB_CHARACTERS.contains(b));
    let name = if glob {
        decode_pattern(name, argument)?
    } else {
        decode(name, argument)?
    };
    if name.is_empty() {
        return Err(Failure::usage(
            format!("{shown} has no name behind its kind"),
            format!("all of them: '{}:*'", kind.word()),
        ));
    }
    let path = match path {
        Some(path) => below(&decode(path, argument)?, argument)?,
        None => Vec::new(),
    };
    Ok(ItemPath {
        selector: Selector {
            item: Item::new(kind, name),
            glob,
        },
        path,
    })
}

/// Whether a file of an image is meant (`image:NAME:/PATH`), and not what a snapshot stores of it.
pub fn is_in_image(argument: &OsStr) -> bool {
    let bytes = argument.as_bytes();
    let name = bytes.strip_prefix(b"image:");
    name.is_some_and(|name| name.windows(2).any(|pair| pair == b":/"))
}

/// `ID`, `latest`, `latest~N`, each optionally `@HOST`.
pub fn parse_snapshot(argument: &OsStr) -> Result<SnapSpec, Failure> {
    let hint = "a snapshot is an id (4 or more hex digits), latest, or latest~N, each optionally \
                followed by @HOST; `podkeep snapshots` lists them";
    let wrong = || {
        Failure::usage(
            format!("{} names no snapshot", Escaped(argument.as_bytes())),
            hint,
        )
    };
    let text = argument.to_str().ok_or_else(wrong)?;
    let (which, host) = match text.split_once('@') {
        Some((_, "")) => return Err(wrong()),
        Some((which, host)) => (which, Some(host.to_owned())),
        None => (text, None),
    };
    let which = match which.strip_prefix("latest") {
        Some("") => SnapWhich::Latest(0),
        Some(back) => {
            let digits = back.strip_prefix('~').ok_or_else(wrong)?;
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            SnapWhich::Latest(digits.parse().map_err(|_| wrong())?)
        }
        None => {
            let hex = which.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex || !(4..=32).contains(&which.len()) {
                return Err(wrong());
            }
            SnapWhich::Prefix(which.to_ascii_lowercase())
        }
    };
    Ok(SnapSpec { which, host })
}

/// An argument's bytes, with `\xNN` and `\\` read.
pub fn decode(bytes: &[u8], argument: &OsStr) -> Result<Vec<u8>, Failure> {
    let decoded = unescape(bytes).ok_or_else(|| {
        Failure::usage(
            format!(
                "{} has a backslash that begins neither \\xNN nor \\\\",
                String::from_utf8_lossy(argument.as_bytes())
            ),
            "write a backslash as \\\\, in quotes",
        )
    })?;
    if decoded.contains(&0) {
        return Err(Failure::usage(
            format!("{} has a NUL byte", Escaped(argument.as_bytes())),
            "no name has one",
        ));
    }
    Ok(decoded)
}

/// As [`decode`], for a glob: what was escaped is meant literally, so a glob character or a
/// backslash that comes out of an escape has a backslash in front.
pub fn decode_pattern(bytes: &[u8], argument: &OsStr) -> Result<Vec<u8>, Failure> {
    let mut pattern = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        if byte != b'\\' {
            pattern.push(byte);
            rest = &rest[1..];
            continue;
        }
        let len = if rest.get(1) == Some(&b'x') { 4 } else { 2 };
        let (escape, tail) = rest.split_at(len.min(rest.len()));
        let decoded = decode(escape, argument)?;
        match decoded[0] {
            literal if literal == b'\\' || GLOB_CHARACTERS.contains(&literal) => {
                pattern.extend_from_slice(&[b'\\', literal]);
            }
            literal => pattern.push(literal),
        }
        rest = tail;
    }
    Ok(pattern)
}

/// A glob over paths of any item, which the engine takes as text.
pub fn parse_glob(argument: &OsStr) -> Result<String, Failure> {
    let glob = decode_pattern(argument.as_bytes(), argument)?;
    String::from_utf8(glob).map_err(|_| {
        Failure::usage(
            format!("{} is not UTF-8", Escaped(argument.as_bytes())),
            "write ? for bytes that are not",
        )
    })
}

/// The path that a `path:` item names.
pub fn to_path(name: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name))
}

/// The name of a `path:` item: absolute, no `.`, no doubled or trailing slashes. A relative path
/// starts at the working directory; `..` is refused, because what it means depends on links.
fn absolute(path: &[u8], argument: &OsStr) -> Result<Vec<u8>, Failure> {
    if path.is_empty() {
        return Err(Failure::usage(
            format!("{} has no path", Escaped(argument.as_bytes())),
            "write path:/srv/data",
        ));
    }
    let mut whole = Vec::new();
    if path[0] != b'/' {
        let here = std::env::current_dir().map_err(|error| {
            Failure::usage(
                format!(
                    "{} is relative, and the working directory is not known: {error}",
                    Escaped(argument.as_bytes())
                ),
                "write it as an absolute path",
            )
        })?;
        whole.extend_from_slice(here.as_os_str().as_bytes());
        whole.push(b'/');
    }
    whole.extend_from_slice(path);
    let mut name = below(&whole, argument)?;
    name.insert(0, b'/');
    Ok(name)
}

/// A path's components without `.` and doubled slashes, joined; empty for the root.
fn below(path: &[u8], argument: &OsStr) -> Result<Vec<u8>, Failure> {
    let parts: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(Failure::usage(
            format!("{} has a `..` component", Escaped(argument.as_bytes())),
            "write the path without it",
        ));
    }
    let joined = parts.join(&b'/');
    if joined.len() > PATH_BYTES_MAX {
        return Err(Failure::usage(
            "a path is longer than 1 MiB".to_owned(),
            "select a directory above it",
        ));
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn item(text: &[u8]) -> Result<(ItemKind, Vec<u8>, bool, Vec<u8>), String> {
        parse_item(&OsString::from_vec(text.to_vec()))
            .map(|i| {
                (
                    i.selector.item.kind,
                    i.selector.item.name,
                    i.selector.glob,
                    i.path,
                )
            })
            .map_err(|failure| failure.message)
    }

    #[test]
    fn an_item_splits_at_the_first_colon_slash() {
        let volume = ItemKind::Volume;
        assert_eq!(
            item(b"volume:web"),
            Ok((volume, b"web".to_vec(), false, vec![]))
        );
        assert_eq!(
            item(b"volume:web:/a:/b/"),
            Ok((volume, b"web".to_vec(), false, b"a:/b".to_vec()))
        );
        assert_eq!(
            item(b"volume:web:/"),
            Ok((volume, b"web".to_vec(), false, vec![]))
        );
        assert_eq!(
            item(b"image:localhost:5000/shop:7"),
            Ok((
                ItemKind::Image,
                b"localhost:5000/shop:7".to_vec(),
                false,
                vec![]
            ))
        );
        assert!(item(b"volume:").is_err());
        assert!(item(b"web").is_err());
        assert!(item(b"volum:web").is_err());
    }

    #[test]
    fn a_path_item_goes_on() {
        for text in ["path:/v/a:/b", "path:/v//a:/./b/", "path:/./v/a:/b/."] {
            assert_eq!(
                item(text.as_bytes()),
                Ok((ItemKind::Path, b"/v/a:/b".to_vec(), false, vec![])),
                "{text}"
            );
        }
        assert_eq!(
            item(b"path:/"),
            Ok((ItemKind::Path, b"/".to_vec(), false, vec![]))
        );
        assert!(item(b"path:/a/../b").is_err());
        assert!(item(b"path:").is_err());
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            item(b"path:x").unwrap().1,
            here.join("x").into_os_string().into_vec()
        );
    }

    #[test]
    fn names_of_any_bytes_come_back_from_their_listed_form() {
        for name in [
            b"caf\xe9".as_slice(),
            b"\xff\xfe",
            b"a\nb",
            b"a\\nb",
            b"\x1b[2Jx",
            b" -rf",
        ] {
            let mut path = b"/v/".to_vec();
            path.extend_from_slice(name);
            let shown = Item::new(ItemKind::Path, path.clone()).to_string();
            assert_eq!(item(shown.as_bytes()).unwrap().1, path);
            let shown = format!("volume:web:/{}", Escaped(name));
            assert_eq!(item(shown.as_bytes()).unwrap().3, name);
        }
        assert!(item(b"volume:a\\n").is_err());
        assert!(item(b"volume:a\\x00").is_err());
    }

    #[test]
    fn globs_are_only_in_names() {
        assert!(item(b"volume:db*").unwrap().2);
        assert!(!item(b"volume:db:/[abc].txt").unwrap().2);
        assert!(!item(b"path:/v/*").unwrap().2);
        let (_, pattern, glob, _) = item(b"volume:a*\\x2a\\\\").unwrap();
        assert!(glob);
        assert_eq!(pattern, b"a*\\*\\\\");
    }

    #[test]
    fn a_path_in_an_image_is_told_from_the_image() {
        for (text, inside) in [
            ("image:localhost:5000/shop:7", false),
            ("image:localhost:5000/shop:7:/", true),
            ("image:shop:/etc/passwd", true),
            ("volume:web:/a", false),
            ("path:/image:/a", false),
        ] {
            assert_eq!(is_in_image(OsStr::new(text)), inside, "{text}");
        }
    }

    #[test]
    fn snapshots_by_id_and_by_age() {
        let parse = |text: &str| parse_snapshot(OsStr::new(text)).ok();
        let spec = |which, host: Option<&str>| {
            Some(SnapSpec {
                which,
                host: host.map(str::to_owned),
            })
        };
        assert_eq!(parse("latest"), spec(SnapWhich::Latest(0), None));
        assert_eq!(
            parse("latest~2@alice@web1"),
            spec(SnapWhich::Latest(2), Some("alice@web1"))
        );
        assert_eq!(
            parse("5D0A@web1"),
            spec(SnapWhich::Prefix("5d0a".into()), Some("web1"))
        );
        for wrong in [
            "",
            "abc",
            "latest~",
            "latest~x",
            "latest~+1",
            "lates",
            "5d0a@",
            "@web1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
