//! Index segments on this side: fetched once, kept as verified plaintext files in the cache, and
//! mapped into memory.
//!
//! A cache file is the segment's body and a keyed hash of it. The hash is checked whenever the
//! file is opened, so that a damaged or foreign file costs a download, never a wrong answer.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use podkeep_format::id::{AuthorId, LeaseId, SegmentId};
use podkeep_format::names;
use podkeep_format::segment::{SEGMENT_BYTES_MAX, Segment, open_segment, seal_segment};

use super::{RepoError, RepoResult, Traffic, Vault, name, random};
use crate::store::ObjectStore;

/// A segment's body, wherever it lies.
pub enum Body {
    Memory(Vec<u8>),
    /// Without the trailer.
    Mapped(Mmap),
}

const TRAILER_BYTES: usize = 32 + 32;

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => &map[..map.len() - TRAILER_BYTES],
        }
    }
}

/// A segment that is ready for look-ups.
pub struct LoadedSegment {
    pub id: SegmentId,
    pub author: AuthorId,
    pub segment: Segment<Body>,
}

/// Opens a segment from the cache, or fetches, verifies and caches it.
///
/// An unwritable cache is no error: the body then stays in memory.
pub fn load(
    store: &dyn ObjectStore,
    vault: &Vault,
    cache: Option<&Path>,
    id: SegmentId,
) -> RepoResult<LoadedSegment> {
    let path = cache.map(|folder| folder.join(id.to_hex()));
    if let Some(path) = &path
        && let Some(loaded) = open_cached(path, vault, id)
    {
        return Ok(loaded);
    }
    let object = name(names::segment(id))?;
    let bytes = store.get(&object, SEGMENT_BYTES_MAX)?;
    if blake3::hash(&bytes) != blake3::Hash::from_bytes(id.0) {
        return Err(RepoError::Damaged {
            object: object.to_string(),
            cause: "its bytes do not hash to its name".into(),
        });
    }
    let (author, body) = open_segment(vault.repository, &vault.index, bytes)
        .map_err(|e| RepoError::damaged(&object, e))?;
    adopt(vault, cache, id, author, body)
}

/// Seals a body of this author's, stores it and makes it ready for look-ups. `lease`: as for
/// [`Traffic::put`].
pub fn store(
    store: &dyn ObjectStore,
    lease: Option<LeaseId>,
    traffic: &Traffic,
    vault: &Vault,
    cache: Option<&Path>,
    body: Vec<u8>,
) -> RepoResult<LoadedSegment> {
    let bytes = seal_segment(
        vault.repository,
        &vault.index,
        &vault.author,
        &random()?,
        body.clone(),
    )
    .map_err(|e| RepoError::damaged("an index segment", e))?;
    let id = SegmentId(*blake3::hash(&bytes).as_bytes());
    traffic.put(store, lease, &names::segment(id), &bytes)?;
    adopt(vault, cache, id, vault.author.id(), body)
}

/// Makes a verified body ready for look-ups, through the cache where there is one.
fn adopt(
    vault: &Vault,
    cache: Option<&Path>,
    id: SegmentId,
    author: AuthorId,
    body: Vec<u8>,
) -> RepoResult<LoadedSegment> {
    let damaged = |e| RepoError::damaged(names::segment(id), e);
    let segment = Segment::parse(Body::Memory(body)).map_err(damaged)?;
    if let Some(folder) = cache {
        let path = folder.join(id.to_hex());
        if write_cached(&path, vault, author, segment.body().as_ref()).is_ok()
            && let Some(loaded) = open_cached(&path, vault, id)
        {
            return Ok(loaded);
        }
    }
    Ok(LoadedSegment {
        id,
        author,
        segment,
    })
}

fn seal_hash(vault: &Vault, author: &[u8], body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&vault.cache_key);
    hasher.update(body).update(author);
    hasher.finalize()
}

fn write_cached(path: &Path, vault: &Vault, author: AuthorId, body: &[u8]) -> std::io::Result<()> {
    // Not synced: a file that a crash leaves torn fails its hash and is fetched again.
    let temp: PathBuf = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || {
        let mut file = private_file(&temp)?;
        file.write_all(body)?;
        file.write_all(&author.0)?;
        file.write_all(seal_hash(vault, &author.0, body).as_bytes())?;
        fs::rename(&temp, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temp);
    })
}

fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn open_cached(path: &Path, vault: &Vault, id: SegmentId) -> Option<LoadedSegment> {
    let file = File::open(path).ok()?;
    let map = map(&file)?;
    if map.len() < TRAILER_BYTES {
        return None;
    }
    let (body, trailer) = map.split_at(map.len() - TRAILER_BYTES);
    let (author, hash) = trailer.split_at(32);
    if seal_hash(vault, author, body).as_bytes()[..] != *hash {
        return None;
    }
    let mut author_id = [0; 32];
    author_id.copy_from_slice(author);
    let segment = Segment::parse_checked(Body::Mapped(map)).ok()?;
    Some(LoadedSegment {
        id,
        author: AuthorId(author_id),
        segment,
    })
}

/// The engine's only mapping of a file.
#[expect(unsafe_code, reason = "memory mapping has no safe form")]
fn map(file: &File) -> Option<Mmap> {
    // SAFETY: the file lies in the private cache folder (0700), is written under another name
    // and renamed into place, and is never truncated or written to afterwards by podkeep. Should
    // somebody else truncate it, the process gets SIGBUS and the run ends as from any crash.
    unsafe { Mmap::map(file) }.ok()
}
