//! The records of PAX headers, and the maps of sparse files.

use std::collections::BTreeSet;
use std::io::Read;

use podkeep_format::tree::Time;

use super::header::{number, size};
use super::{BLOCK_BYTES, Layout, META_BYTES_MAX, TarEntry, TarError, TarKind};

/// Parts of one sparse file that are stored.
pub const SPARSE_EXTENTS_MAX: usize = 1 << 20;
/// Digits of a number in a map.
const DIGITS_MAX: usize = 20;
/// A time with more digits than this says nothing more.
const FRACTION_DIGITS: usize = 9;

/// A stored part of a sparse file: offset in the file, length, both in bytes.
pub type Extent = (u64, u64);

/// Keys with values, in their order.
#[derive(Default)]
pub(super) struct Records {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: u64,
}

impl Records {
    /// `LENGTH KEY=VALUE\n`, again and again; the length counts all of it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, TarError> {
        let broken = || TarError::new("a PAX header is broken");
        let mut records = Self {
            records: Vec::new(),
            bytes: bytes.len() as u64,
        };
        while !bytes.is_empty() {
            let space = bytes.iter().take(DIGITS_MAX).position(|byte| *byte == b' ');
            let space = space.ok_or_else(broken)?;
            let len = decimal(&bytes[..space]).ok_or_else(broken)?;
            let len = usize::try_from(len).map_err(|_| broken())?;
            if len > bytes.len() || len < space + 3 {
                return Err(broken());
            }
            let (record, rest) = bytes.split_at(len);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let equals = equals.filter(|at| *at > 0).ok_or_else(broken)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let is_text = matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name");
            if key.contains(&0) || (is_text && value.contains(&0)) {
                return Err(broken());
            }
            records.records.push((key.to_vec(), value.to_vec()));
            bytes = rest;
        }
        Ok(records)
    }

    /// Adds what a further global header says; the last one counts.
    pub fn extend(&mut self, later: Self) -> Result<(), TarError> {
        self.bytes += later.bytes;
        if self.bytes > META_BYTES_MAX {
            return Err(TarError::new("its global headers are too long"));
        }
        self.records.extend(later.records);
        Ok(())
    }

    /// Refuses what [`TarHeaders::of_layer`](super::TarHeaders::of_layer) does.
    pub fn check_of_layer(&self) -> Result<(), TarError> {
        for (key, value) in &self.records {
            if key.starts_with(b"GNU.sparse.") {
                return Err(sparse_in_layer());
            }
            let is_number = matches!(key.as_slice(), b"size" | b"uid" | b"gid");
            if is_number && !value.iter().all(u8::is_ascii_digit) {
                return Err(TarError::new("a number of a PAX header is none"));
            }
        }
        Ok(())
    }

    /// Puts what the records say on an entry; each must be sound, and of several with one key the
    /// last one counts. Those of a global header say nothing of names, sizes and where content is.
    pub fn apply(&self, entry: &mut TarEntry, global: bool) -> Result<(), TarError> {
        self.apply_xattrs(entry);
        let mut told = Told::default();
        for (key, value) in &self.records {
            // An empty value takes a record back; that of an attribute is one.
            let value = Some(value.as_slice()).filter(|value| !value.is_empty());
            let number = |name| value.map(|value| signed(value, name)).transpose();
            match key.as_slice() {
                b"path" | b"linkpath" | b"size" if global => {}
                b"path" => told.path = value,
                b"linkpath" => told.target = value,
                b"size" => told.size = number("size")?.map(size).transpose()?,
                b"uid" => told.uid = number("owner")?,
                b"gid" => told.gid = number("group")?,
                b"mtime" => told.mtime = value.map(time).transpose()?,
                b"SCHILY.acl.access" => told.access_acl = value,
                b"SCHILY.acl.default" => told.default_acl = value,
                _ => {}
            }
        }
        told.put_on(entry);
        Ok(())
    }

    /// A header holds tens of thousands of them: none is compared with all others.
    fn apply_xattrs(&self, entry: &mut TarEntry) {
        let ours = self.records.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(b"SCHILY.xattr.")?;
            Some((name.to_vec(), value.clone()))
        });
        let before = entry.xattrs.len();
        entry.xattrs.extend(ours);
        if entry.xattrs.len() == before {
            return;
        }
        let mut seen = BTreeSet::new();
        let last = std::mem::take(&mut entry.xattrs).into_iter().rev();
        entry.xattrs = last.filter(|(name, _)| seen.insert(name.clone())).collect();
        entry.xattrs.reverse();
    }

    /// The value of the last record with this key.
    pub fn last(&self, key: &[u8]) -> Option<&[u8]> {
        let mut records = self.records.iter().rev();
        let (_, value) = records.find(|(other, _)| other == key)?;
        Some(value)
    }

    /// The three forms of GNU tar for sparse files in PAX headers.
    pub fn apply_sparse(&self, entry: &mut TarEntry) -> Result<(), TarError> {
        debug_assert_eq!(entry.kind, TarKind::File);
        let number = |key: &[u8]| {
            self.last(key)
                .map(|value| signed(value, "size"))
                .transpose()
        };
        let is_first = self
            .last(b"GNU.sparse.major")
            .is_none_or(|major| major == b"0");
        let parts = match (is_first, self.last(b"GNU.sparse.map")) {
            (false, _) => None,
            (true, Some(map)) => Some(numbers(map.split(|byte| *byte == b','))?),
            (true, None) if self.last(b"GNU.sparse.size").is_some() => {
                let keys = [b"GNU.sparse.offset".as_slice(), b"GNU.sparse.numbytes"];
                let records = self.records.iter();
                let values = records.filter(|(key, _)| keys.contains(&key.as_slice()));
                Some(numbers(values.map(|(_, value)| value.as_slice()))?)
            }
            (true, None) => return Ok(()),
        };
        if let Some(name) = self.last(b"GNU.sparse.name") {
            entry.path = name.to_vec();
        }
        let key: &[u8] = match is_first {
            true => b"GNU.sparse.size",
            false => b"GNU.sparse.realsize",
        };
        let Some(told) = number(key)? else {
            return Err(TarError::new("a sparse file has no size"));
        };
        entry.size = size(told)?;
        entry.layout = match parts {
            Some(parts) => {
                check_parts(&parts, entry.size, entry.stored_bytes)?;
                Layout::Parts(parts)
            }
            None => Layout::Listed,
        };
        Ok(())
    }
}

/// What the records of one header say of an entry in the end.
#[derive(Default)]
struct Told<'r> {
    path: Option<&'r [u8]>,
    target: Option<&'r [u8]>,
    size: Option<u64>,
    uid: Option<i64>,
    gid: Option<i64>,
    mtime: Option<Time>,
    access_acl: Option<&'r [u8]>,
    default_acl: Option<&'r [u8]>,
}

impl Told<'_> {
    fn put_on(self, entry: &mut TarEntry) {
        if let Some(path) = self.path {
            entry.path = path.to_vec();
        }
        if let Some(target) = self.target {
            entry.target = target.to_vec();
        }
        entry.stored_bytes = self.size.unwrap_or(entry.stored_bytes);
        entry.uid = self.uid.unwrap_or(entry.uid);
        entry.gid = self.gid.unwrap_or(entry.gid);
        entry.mtime = self.mtime.unwrap_or(entry.mtime);
        if let Some(text) = self.access_acl {
            entry.access_acl = Some(text.to_vec());
        }
        if let Some(text) = self.default_acl {
            entry.default_acl = Some(text.to_vec());
        }
    }
}

/// Pairs of offset and length.
fn numbers<'v>(values: impl Iterator<Item = &'v [u8]>) -> Result<Vec<Extent>, TarError> {
    let mut parts = Vec::new();
    let mut offset = None;
    for value in values.filter(|value| !value.is_empty()) {
        let value = decimal(value).ok_or_else(broken_map)?;
        match offset.take() {
            None => offset = Some(value),
            Some(_) if parts.len() == SPARSE_EXTENTS_MAX => return Err(too_many()),
            Some(offset) => parts.push((offset, value)),
        }
    }
    match offset {
        None => Ok(parts),
        Some(_) => Err(broken_map()),
    }
}

pub(super) fn sparse_in_layer() -> TarError {
    TarError::new("sparse files in tars are not supported")
}

fn broken_map() -> TarError {
    TarError::new("the map of a sparse file is broken")
}

fn too_many() -> TarError {
    TarError::new(format!(
        "a sparse file has more than {SPARSE_EXTENTS_MAX} parts"
    ))
}

/// The parts must stand in their order, lie in the file, and be what is stored.
pub(super) fn check_parts(parts: &[Extent], size: u64, stored: u64) -> Result<(), TarError> {
    let (mut end, mut sum) = (0u64, 0u64);
    for (offset, len) in parts {
        if *offset < end || offset.checked_add(*len).is_none_or(|end| end > size) {
            return Err(broken_map());
        }
        end = offset + len;
        sum += len;
    }
    match sum == stored {
        true => Ok(()),
        false => Err(TarError::new(
            "the map of a sparse file does not fit what is stored of it",
        )),
    }
}

/// Parts in the binary form of old GNU tar: of 24 bytes each, until one is empty. Returns whether
/// a further block has more.
pub(super) fn old_sparse_parts(
    fields: &[u8],
    goes_on: u8,
    parts: &mut Vec<Extent>,
) -> Result<bool, TarError> {
    for field in fields.chunks_exact(24) {
        // Unused ones are zeros.
        if field[0] == 0 && field[12] == 0 {
            break;
        }
        if parts.len() == SPARSE_EXTENTS_MAX {
            return Err(too_many());
        }
        parts.push((
            size(number(&field[..12], "size")?)?,
            size(number(&field[12..], "size")?)?,
        ));
    }
    Ok(goes_on != 0)
}

/// Reads the map in front of the content of a [`Layout::Listed`] file of `size` bytes, of which
/// `stored` bytes follow, map included. Returns the parts, and how many bytes the map took.
pub fn read_sparse_map(
    content: &mut dyn Read,
    size: u64,
    stored: u64,
) -> Result<(Vec<Extent>, u64), TarError> {
    let mut block = [0; BLOCK_BYTES];
    let mut taken = 0u64;
    let mut value = Vec::new();
    let (mut count, mut values) = (None, Vec::new());
    while count.is_none_or(|count| values.len() < count) {
        if taken + BLOCK_BYTES as u64 > stored {
            return Err(broken_map());
        }
        let read = content.read_exact(&mut block);
        read.map_err(|error| TarError::new(error.to_string()))?;
        taken += BLOCK_BYTES as u64;
        for byte in &block {
            if *byte != b'\n' {
                value.push(*byte);
                if value.len() > DIGITS_MAX {
                    return Err(broken_map());
                }
                continue;
            }
            let number = decimal(&value).ok_or_else(broken_map)?;
            value.clear();
            match count {
                None if number > SPARSE_EXTENTS_MAX as u64 => return Err(too_many()),
                None => count = Some(number as usize * 2),
                Some(_) => values.push(number),
            }
            if count == Some(values.len()) {
                break;
            }
        }
    }
    let parts: Vec<Extent> = values
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect();
    check_parts(&parts, size, stored - taken)?;
    Ok((parts, taken))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(digits).ok().filter(|_| is_number)?;
    text.parse().ok().filter(|value| *value <= i64::MAX as u64)
}

fn signed(value: &[u8], name: &'static str) -> Result<i64, TarError> {
    let wrong = || TarError::new(format!("a {name} is no number"));
    str::from_utf8(value)
        .map_err(|_| wrong())?
        .parse()
        .map_err(|_| wrong())
}

/// Decimal seconds since 1970, perhaps negative, perhaps with a fraction.
pub(super) fn time(value: &[u8]) -> Result<Time, TarError> {
    let wrong = || TarError::new("a time is no number");
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    let (is_negative, digits) = match whole.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, whole),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let secs = decimal(digits).ok_or_else(wrong)? as i64;
    let mut nanos = 0;
    for at in 0..FRACTION_DIGITS {
        let digit = fraction.get(at).map_or(0, |digit| digit - b'0');
        nanos = nanos * 10 + u32::from(digit);
    }
    Ok(match (is_negative, nanos) {
        (false, nanos) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, nanos) => Time {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}
