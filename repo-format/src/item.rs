//! Items: what a snapshot is of, and how people write it (`volume:web`, `path:/srv/data`).

use std::fmt;

use crate::codec::{DecodeError, Decoder, Defect, Encoder};

/// Bytes of an item's name. Longer than PATH_MAX, because a `path:` item may be.
pub const ITEM_NAME_BYTES_MAX: usize = 65_536;

/// What sort of thing an item is. The number is what the format stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ItemKind {
    Volume = 1,
    Image = 2,
    Container = 3,
    Pod = 4,
    Network = 5,
    Secret = 6,
    Unit = 7,
    Config = 8,
    Path = 9,
    Artifact = 10,
}

impl ItemKind {
    pub const ALL: [Self; 10] = [
        Self::Volume,
        Self::Image,
        Self::Artifact,
        Self::Container,
        Self::Pod,
        Self::Network,
        Self::Secret,
        Self::Unit,
        Self::Config,
        Self::Path,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Image => "image",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Unit => "unit",
            Self::Config => "config",
            Self::Path => "path",
            Self::Artifact => "artifact",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == value)
    }
}

/// One thing that is backed up and restored as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    pub kind: ItemKind,
    /// Raw bytes, 1 to [`ITEM_NAME_BYTES_MAX`], no NUL. Of a path: absolute, without `.`, `..`,
    /// doubled or trailing slashes.
    pub name: Vec<u8>,
}

impl Item {
    pub fn new(kind: ItemKind, name: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }

    /// How people name what lies at `path` below the item: `volume:web:/data/x`, but
    /// `path:/srv/data/x`. The item's own name for its root.
    pub fn at(&self, path: &[u8]) -> String {
        let shown = Escaped(path);
        match self.kind {
            _ if path.is_empty() => self.to_string(),
            ItemKind::Path if self.name == b"/" => format!("path:/{shown}"),
            ItemKind::Path => format!("{self}/{shown}"),
            _ => format!("{self}:/{shown}"),
        }
    }

    pub fn encode(&self, out: &mut Encoder) {
        out.u8(self.kind as u8).bytes(&self.name);
    }

    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let tag = input.u8()?;
        let Some(kind) = ItemKind::from_u8(tag) else {
            return input.fail(Defect::Tag("item kind", u64::from(tag)));
        };
        let name = input.bytes("item name", ITEM_NAME_BYTES_MAX)?.to_vec();
        if name.is_empty() || name.contains(&0) {
            return input.fail(Defect::NotCanonical("item name"));
        }
        if kind == ItemKind::Path && !is_plain_path(&name) {
            return input.fail(Defect::NotCanonical("item name"));
        }
        Ok(Self { kind, name })
    }
}

/// Whether a path is absolute, without `.`, `..`, doubled or trailing slashes.
fn is_plain_path(path: &[u8]) -> bool {
    match path.strip_prefix(b"/") {
        Some([]) => true,
        Some(rest) => rest
            .split(|byte| *byte == b'/')
            .all(|part| !matches!(part, b"" | b"." | b"..")),
        None => false,
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), Escaped(&self.name))
    }
}

/// Writes bytes for people: UTF-8 as it is; control characters and bytes that are not UTF-8 as
/// `\xNN`, a backslash as `\\`. [`unescape`] reads it back.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() => {
                        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c => write!(f, "{c}")?,
                }
            }
            for byte in part.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Reads what [`Escaped`] wrote. `None`: a backslash that begins neither `\\` nor `\xNN`.
pub fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest {
            [b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'x', high, low, tail @ ..] => {
                let digit = |d: u8| char::from(d).to_digit(16);
                bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(bytes)
}
