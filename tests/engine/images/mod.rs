//! Images and layers of a store that is made by hand.

mod artifacts;
mod backup;
mod care;
mod damage;
pub mod foreign;
mod hostile;
mod listing;
mod mend;
mod own_tar;
mod rebuild;
pub mod smoke;

use podkeep_engine::podman::{
    LAYER_EVENT_BYTES_MAX, LayerEnd, LayerError, LayerEvent, LayerId, LayerReader, Storage,
    StorageDriver, StoreListing,
};

use crate::fake_store::{Ending, LongName, Tar};

const DRIVERS: [StorageDriver; 2] = [StorageDriver::Overlay, StorageDriver::Vfs];

/// Bytes that look random, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// What a reader gave, put together.
#[derive(Debug)]
struct Whole {
    tar: Vec<u8>,
    /// Paths and sizes of what had content.
    payloads: Vec<(Vec<u8>, u64)>,
    end: LayerEnd,
}

/// Reads a layer to its end, and holds the reader to what it promises of its events.
fn rebuild(storage: &Storage, listing: &StoreListing, layer: LayerId) -> Result<Whole, LayerError> {
    let mut reader = LayerReader::open(storage, listing, &listing.layers[&layer])?;
    let mut tar = Vec::new();
    let mut payloads = Vec::new();
    let mut left = 0;
    loop {
        match reader.next_event()? {
            LayerEvent::Literal(bytes) => {
                assert_eq!(left, 0, "a literal before the end of a file");
                assert!((1..=LAYER_EVENT_BYTES_MAX).contains(&bytes.len()));
                tar.extend_from_slice(bytes);
            }
            LayerEvent::Payload { path, size } => {
                assert_eq!(left, 0, "a file before the end of a file");
                assert_ne!(size, 0);
                left = size;
                payloads.push((path.to_vec(), size));
            }
            LayerEvent::Bytes(bytes) => {
                assert!((1..=LAYER_EVENT_BYTES_MAX).contains(&bytes.len()));
                left = left
                    .checked_sub(bytes.len() as u64)
                    .expect("too many bytes");
                tar.extend_from_slice(bytes);
            }
            LayerEvent::End(end) => {
                assert_eq!(left, 0, "the end before the end of a file");
                return Ok(Whole { tar, payloads, end });
            }
        }
    }
}

/// A bottom layer with one of everything.
pub fn odd_tar() -> Tar {
    let long: String = "directory-with-a-long-name/".repeat(9);
    let same = noise(1, 3000);
    Tar::default()
        .directory("usr")
        .directory("usr/lib")
        .file("usr/lib/c.so", &noise(2, 5000))
        .symlink("lib", b"/usr/lib")
        .file("./dotted//name", b"cleaned")
        .file("empty", b"")
        .file("block", &noise(3, 512))
        .file("large", &noise(4, (2 << 20) + 77))
        .file("same-1", &same)
        .file("same-2", &same)
        .file("zeros", &[0; 70_000])
        .file(b"\xff\xfe name", b"no UTF-8")
        .file("<html> & \"quotes\" \u{2028}\n", b"escaped in JSON")
        .file_with(
            "attributes",
            b"content",
            &[
                ("SCHILY.xattr.user.x", &b"\x00\xff value"[..]),
                ("SCHILY.xattr.security.capability", &b"\x01\x00\x00\x02"[..]),
                ("mtime", &b"-1.5"[..]),
                ("uid", &b"4294967294"[..]),
            ],
            LongName::Pax,
        )
        .file(format!("{long}pax"), b"behind a PAX name")
        .file_with(
            format!("{long}gnu"),
            b"behind a GNU name",
            &[],
            LongName::Gnu,
        )
        .hard_link("link", b"block")
        .fifo("fifo")
}

/// A layer for the top of [`odd_tar`].
pub fn upper_tar() -> Tar {
    Tar::default()
        .file("lib/c.so", &noise(5, 4000))
        .whiteout("same-1")
        .file("same-2", b"other")
        .opaque("usr")
        .file("usr/new", b"after it")
        .end(Ending::Blocks(2))
}
