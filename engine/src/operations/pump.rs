//! Taking the chunks of a tree while it is scanned, batch by batch.

use super::{OperationError, OperationResult};
use crate::fs::{FoundChunk, ScanOutcome, TreeScan};
use crate::host::HostError;
use crate::monitor::{Monitor, Progress};

/// Where the chunks of a scan go.
pub trait Sink {
    /// Whether it needs the bytes of this chunk.
    fn wants(&mut self, chunk: &FoundChunk) -> bool;

    /// Gets the bytes of a chunk that it wants, once it was asked for all of the batch.
    fn take(&mut self, chunk: &FoundChunk, bytes: &[u8]) -> OperationResult<()>;
}

/// Scans a tree to its end. Returns what it amounts to, and how many bytes were read from files.
pub fn pump(
    mut tree: Box<dyn TreeScan>,
    sink: &mut impl Sink,
    monitor: &dyn Monitor,
) -> OperationResult<(ScanOutcome, u64)> {
    let mut bytes_read = 0;
    let mut wanted = Vec::new();
    while let Some(batch) = tree.next().map_err(HostError::from)? {
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        wanted.clear();
        for (index, chunk) in batch.chunks.iter().enumerate() {
            if sink.wants(chunk) {
                wanted.push(index as u32);
            }
        }
        if !wanted.is_empty() {
            let bytes = tree.fetch(&wanted).map_err(HostError::from)?;
            for (index, range) in wanted.iter().zip(bytes.ranges) {
                sink.take(&batch.chunks[*index as usize], &bytes.buffer[range])?;
            }
        }
        bytes_read += batch.bytes_read;
        for finding in batch.findings {
            monitor.finding(finding);
        }
        monitor.progress(Progress::Advance {
            files: batch.files,
            bytes: batch.bytes_logical,
        });
    }
    let outcome = tree.finish().map_err(HostError::from)?;
    Ok((outcome, bytes_read))
}
