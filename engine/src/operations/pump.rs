//! Taking the chunks of a tree while it is scanned, batch by batch.

use super::{OperationError, OperationResult};
use crate::fs::{FoundChunk, ScanOutcome, TreeScan, Writers};
use crate::host::HostError;
use crate::monitor::{Monitor, Progress};

/// Where the chunks of a scan go.
pub trait Sink {
    /// Whether it needs the bytes of this chunk.
    fn wants(&mut self, chunk: &FoundChunk) -> bool;

    /// Gets the bytes of a chunk that it wants, once it was asked for all of the batch.
    fn take(&mut self, chunk: &FoundChunk, bytes: &[u8]) -> OperationResult<()>;
}

/// A scan that is taken in one go, or in parts.
pub struct Pump {
    tree: Box<dyn TreeScan>,
    wanted: Vec<u32>,
    files: u64,
    bytes_read: u64,
}

/// Scans a tree to its end. Returns what it amounts to, and how many bytes were read from files.
pub fn pump(
    tree: Box<dyn TreeScan>,
    sink: &mut impl Sink,
    monitor: &dyn Monitor,
) -> OperationResult<(ScanOutcome, u64)> {
    let mut pump = Pump::new(tree);
    pump.take_all(sink, monitor)?;
    pump.finish()
}

impl Pump {
    pub fn new(tree: Box<dyn TreeScan>) -> Self {
        Self {
            tree,
            wanted: Vec::new(),
            files: 0,
            bytes_read: 0,
        }
    }

    /// Takes all that the scan has.
    pub fn take_all(&mut self, sink: &mut impl Sink, monitor: &dyn Monitor) -> OperationResult<()> {
        while self.batch(sink, monitor)?.is_some() {}
        Ok(())
    }

    /// Takes what the scan has until it needs the tree itself no more, if only because it is at its
    /// end.
    pub fn until_captured(
        &mut self,
        sink: &mut impl Sink,
        monitor: &dyn Monitor,
    ) -> OperationResult<()> {
        while self.batch(sink, monitor)? == Some(false) {}
        Ok(())
    }

    /// As [`TreeScan::before_again`].
    pub fn before_again(&mut self) -> u64 {
        self.tree.before_again()
    }

    /// As [`TreeScan::before_rest`].
    pub fn before_rest(&mut self) {
        self.tree.before_rest();
    }

    /// Begins anew ([`TreeScan::again`]); what was read stays read.
    pub fn again(&mut self, writers: Writers) -> OperationResult<()> {
        Ok(self.tree.again(writers).map_err(HostError::from)?)
    }

    /// What was read so far, in all readings: entries that are no directories, and bytes of files.
    pub fn taken(&self) -> (u64, u64) {
        (self.files, self.bytes_read)
    }

    /// Once all was taken.
    pub fn finish(self) -> OperationResult<(ScanOutcome, u64)> {
        let outcome = self.tree.finish().map_err(HostError::from)?;
        Ok((outcome, self.bytes_read))
    }

    /// `None`: there is no batch left. Else whether all is captured.
    fn batch(
        &mut self,
        sink: &mut impl Sink,
        monitor: &dyn Monitor,
    ) -> OperationResult<Option<bool>> {
        let Some(batch) = self.tree.next().map_err(HostError::from)? else {
            return Ok(None);
        };
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        self.wanted.clear();
        for (index, chunk) in batch.chunks.iter().enumerate() {
            if sink.wants(chunk) {
                self.wanted.push(index as u32);
            }
        }
        if !self.wanted.is_empty() {
            let bytes = self.tree.fetch(&self.wanted).map_err(HostError::from)?;
            for (index, range) in self.wanted.iter().zip(bytes.ranges) {
                sink.take(&batch.chunks[*index as usize], &bytes.buffer[range])?;
            }
        }
        self.files += batch.files;
        self.bytes_read += batch.bytes_read;
        for finding in batch.findings {
            monitor.finding(finding);
        }
        monitor.progress(Progress::Advance {
            files: batch.files,
            bytes: batch.bytes_logical,
        });
        Ok(Some(batch.captured))
    }
}
