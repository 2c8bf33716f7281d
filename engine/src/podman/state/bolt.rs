//! Reading a bbolt file: pages of one size, of which a B+ tree for each bucket is made.
//!
//! Two meta pages name the root of the newest trees; the one with the higher transaction that
//! holds its checksum counts. A leaf element is a key with a value or with a bucket; a small
//! bucket is a page inside its value. Pure: works on the bytes of a whole file, and whatever these
//! hold, no page of a walk is visited twice, and no range leaves its page.
//!
//! Source: go.etcd.io/bbolt `internal/common` (page.go, meta.go, inode.go, bucket.go), versions 1.3
//! to 1.4. Numbers are in the byte order of the machine that wrote it: here little endian.

use std::collections::HashSet;
use std::ops::Range;

/// Bytes of a file that is read.
pub const FILE_BYTES_MAX: usize = 1 << 30;
/// Keys of one bucket.
pub const KEYS_MAX: usize = 1 << 20;
/// Levels of one tree: with two keys a branch, more than any file has pages for.
const LEVELS_MAX: usize = 32;

const PAGE_SIZES: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
const PAGE_HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const BUCKET_HEADER_BYTES: usize = 16;
const META_BYTES: usize = 64;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const IS_BRANCH: u16 = 0x01;
const IS_LEAF: u16 = 0x02;
const IS_BUCKET: u32 = 0x01;

/// Why a file is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoltError {
    #[error("it has no intact meta page")]
    NoMeta,
    #[error("page {page} {defect}")]
    Page { page: u64, defect: &'static str },
    #[error("a bucket has more than {KEYS_MAX} keys")]
    TooManyKeys,
}

/// The trees of the newest transaction.
pub struct Bolt<'b> {
    bytes: &'b [u8],
    page_size: usize,
    root: u64,
}

/// A set of keys.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'b>(Place<'b>);

#[derive(Clone, Copy, Debug)]
enum Place<'b> {
    /// The root page of a tree.
    Tree(u64),
    /// A leaf page within the value of the bucket above.
    Inline(&'b [u8]),
}

#[derive(Clone, Copy, Debug)]
pub enum Element<'b> {
    Value(&'b [u8]),
    Bucket(Bucket<'b>),
}

/// A page with its overflow, and where its elements are.
struct Page<'b> {
    number: u64,
    flags: u16,
    count: usize,
    bytes: &'b [u8],
}

impl<'b> Bolt<'b> {
    pub fn open(bytes: &'b [u8]) -> Result<Self, BoltError> {
        let first = meta(bytes, 0);
        let newest = match first {
            Some(first) => [Some(first), meta(bytes, first.page_size)]
                .into_iter()
                .flatten()
                .filter(|other| other.page_size == first.page_size)
                .max_by_key(|meta| meta.transaction),
            // The first page is torn; how long pages are shows where the second one is found.
            None => PAGE_SIZES
                .iter()
                .filter_map(|size| meta(bytes, *size).filter(|meta| meta.page_size == *size))
                .next(),
        };
        let Meta {
            page_size, root, ..
        } = newest.ok_or(BoltError::NoMeta)?;
        Ok(Self {
            bytes,
            page_size,
            root,
        })
    }

    pub fn root(&self) -> Bucket<'b> {
        Bucket(Place::Tree(self.root))
    }

    /// The keys of a bucket, ascending as they stand.
    pub fn elements(&self, bucket: Bucket<'b>) -> Result<Vec<(&'b [u8], Element<'b>)>, BoltError> {
        let mut found = Vec::new();
        let root = match bucket.0 {
            Place::Tree(root) => root,
            Place::Inline(bytes) => {
                let page = inline_page(bytes)?;
                leaf(&page, &mut found)?;
                return Ok(found);
            }
        };
        let mut visited = HashSet::new();
        let mut open = vec![(root, 0)];
        while let Some((number, level)) = open.pop() {
            let page = self.page(number)?;
            let defect = |defect| BoltError::Page {
                page: number,
                defect,
            };
            if !visited.insert(number) {
                return Err(defect("is met twice"));
            }
            if level == LEVELS_MAX {
                return Err(defect("lies too deep"));
            }
            match page.flags {
                IS_LEAF => leaf(&page, &mut found)?,
                IS_BRANCH => {
                    for index in (0..page.count).rev() {
                        let element = page.element(index)?;
                        open.push((u64_at(element, 8), level + 1));
                    }
                }
                _ => return Err(defect("is neither branch nor leaf")),
            }
        }
        Ok(found)
    }

    fn page(&self, number: u64) -> Result<Page<'b>, BoltError> {
        let defect = |defect| BoltError::Page {
            page: number,
            defect,
        };
        let page = |pages: u64| -> Option<Range<usize>> {
            let start = usize::try_from(number).ok()?.checked_mul(self.page_size)?;
            let len = usize::try_from(pages).ok()?.checked_mul(self.page_size)?;
            Some(start..start.checked_add(len)?)
        };
        let bytes = page(1).and_then(|range| self.bytes.get(range));
        let header = bytes.ok_or_else(|| defect("is not in the file"))?;
        if u64_at(header, 0) != number {
            return Err(defect("holds another page"));
        }
        let overflow = u64::from(u32_at(header, 12));
        let bytes = page(1 + overflow).and_then(|range| self.bytes.get(range));
        Ok(Page {
            number,
            flags: u16_at(header, 8),
            count: usize::from(u16_at(header, 10)),
            bytes: bytes.ok_or_else(|| defect("goes on behind the file"))?,
        })
    }
}

impl<'b> Page<'b> {
    fn defect(&self, defect: &'static str) -> BoltError {
        BoltError::Page {
            page: self.number,
            defect,
        }
    }

    fn element(&self, index: usize) -> Result<&'b [u8], BoltError> {
        let start = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
        let element = self.bytes.get(start..start + ELEMENT_BYTES);
        element.ok_or_else(|| self.defect("has more elements than room"))
    }

    /// `len` bytes at `from`, counted from where the element `index` stands.
    fn part(&self, index: usize, from: usize, len: usize) -> Result<&'b [u8], BoltError> {
        let element = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
        let start = element.checked_add(from);
        let range = start.and_then(|start| Some(start..start.checked_add(len)?));
        let part = range.and_then(|range| self.bytes.get(range));
        part.ok_or_else(|| self.defect("has an element that leaves it"))
    }
}

fn inline_page(bytes: &[u8]) -> Result<Page<'_>, BoltError> {
    let page = Page {
        number: 0,
        flags: 0,
        count: 0,
        bytes,
    };
    if bytes.len() < PAGE_HEADER_BYTES {
        return Err(page.defect("is too short for an inner bucket"));
    }
    let page = Page {
        flags: u16_at(bytes, 8),
        count: usize::from(u16_at(bytes, 10)),
        ..page
    };
    match page.flags {
        IS_LEAF => Ok(page),
        _ => Err(page.defect("of an inner bucket is no leaf")),
    }
}

/// Adds the elements of a leaf.
fn leaf<'b>(page: &Page<'b>, found: &mut Vec<(&'b [u8], Element<'b>)>) -> Result<(), BoltError> {
    for index in 0..page.count {
        let element = page.element(index)?;
        let (position, key_len) = (u32_at(element, 4) as usize, u32_at(element, 8) as usize);
        let key = page.part(index, position, key_len)?;
        let value_start = position.saturating_add(key_len);
        let value = page.part(index, value_start, u32_at(element, 12) as usize)?;
        let element = match u32_at(element, 0) & IS_BUCKET {
            0 => Element::Value(value),
            _ if value.len() < BUCKET_HEADER_BYTES => {
                return Err(page.defect("has a bucket without a header"));
            }
            _ => Element::Bucket(Bucket(match u64_at(value, 0) {
                0 => Place::Inline(&value[BUCKET_HEADER_BYTES..]),
                root => Place::Tree(root),
            })),
        };
        if found.len() == KEYS_MAX {
            return Err(BoltError::TooManyKeys);
        }
        found.push((key, element));
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Meta {
    page_size: usize,
    root: u64,
    transaction: u64,
}

/// The meta page at `start`, if it is intact.
fn meta(bytes: &[u8], start: usize) -> Option<Meta> {
    let start = start.checked_add(PAGE_HEADER_BYTES)?;
    let meta = bytes.get(start..start.checked_add(META_BYTES)?)?;
    let page_size = u32_at(meta, 8) as usize;
    let intact = u32_at(meta, 0) == MAGIC
        && u32_at(meta, 4) == VERSION
        && PAGE_SIZES.contains(&page_size)
        && u64_at(meta, 56) == fnv_1a(&meta[..56]);
    intact.then(|| Meta {
        page_size,
        root: u64_at(meta, 16),
        transaction: u64_at(meta, 48),
    })
}

/// The 64-bit FNV-1a hash, with which bbolt sums its meta pages.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
