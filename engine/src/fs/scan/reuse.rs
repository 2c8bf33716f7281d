//! Taking over from the last run what has not changed, and recording what has.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use podkeep_format::codec::{Decoder, Encoder};
use podkeep_format::tree::Entry;
use rustix::fs::FileType;

use super::content::SMALL_FILE_BYTES_MAX;
use super::directory::{Body, Contents, Directory, PushBody};
use super::entry::EntryRead;
use super::links::Claim;
use super::stat::Stat;
use super::work::{Failure, Worker};
use crate::fs::attributes::FsTraits;
use crate::fs::bytes_outside_holes;
use crate::fs::states::{RecordKind, RowBuilder, child_key, is_settled};

/// Decoding an entry that is taken over costs more than to count the holes of smaller files.
const HOLES_COUNT_FROM: u64 = 64 << 10;

impl Worker<'_> {
    /// Looks up what the last run saw of a directory that was just opened.
    pub fn find_row(&self, directory: &Directory, traits: FsTraits) {
        if let Some(states) = &self.states
            && !traits.tmpfs
            && let Some(row) = states.row(&directory.key)
        {
            let _ = directory.row.set(row);
        }
    }

    /// Sets the directory's own attributes, from its row if they are unchanged.
    pub fn own_attributes(
        &mut self,
        directory: &Directory,
        fd: &OwnedFd,
        stat: &Stat,
        traits: FsTraits,
    ) -> Result<(), Failure> {
        let mut fingerprint = self.fingerprint_of(stat, traits, false);
        let recorded = directory
            .row
            .get()
            .and_then(|row| row.own(&fingerprint))
            .and_then(|own| Entry::decode(&mut Decoder::new("file state", own), true).ok());
        let own = match recorded {
            Some(own) => own,
            None => {
                directory.changed.store(true, Ordering::Relaxed);
                let only_leads = self.shared.view.only_passes(|| directory.path_of(b""));
                let own = self.read_directory(fd, stat, traits, only_leads)?;
                // Attributes have no times of their own: they must not have moved meanwhile.
                let after = Stat::of(fd).map_err(|e| Failure::Unreadable("stat", e))?;
                if !stat.same_state(&after) {
                    fingerprint.clear();
                }
                own
            }
        };
        let mut contents = directory.contents();
        contents.own = Some(own);
        contents.fingerprint = fingerprint;
        Ok(())
    }

    /// Takes an entry over if it is as the last run saw it.
    pub fn reuse(
        &mut self,
        directory: &Arc<Directory>,
        name: &[u8],
        stat: &Stat,
    ) -> Result<bool, Failure> {
        let Some(row) = directory.row.get() else {
            return Ok(false);
        };
        if self.shared.always_read.contains(&stat.ino) {
            return Ok(false);
        }
        let mut fingerprint = Encoder::new();
        stat.fingerprint(&mut fingerprint);
        let fingerprint = fingerprint.finish();
        let linked = stat.nlink > 1;
        let kind = if linked {
            RecordKind::Linked
        } else {
            RecordKind::Entry
        };
        let Some(entry) = row.entry(name, kind, &fingerprint) else {
            return Ok(false);
        };
        let size = if stat.kind == FileType::RegularFile {
            stat.size
        } else {
            0
        };
        let allocated = || {
            // That of an inode with several names has none.
            Entry::decode(&mut Decoder::new("file state", entry), linked)
                .map_or(size, |entry| bytes_outside_holes(&entry.node))
        };
        if !linked {
            self.count_name();
            self.count_entry(size, allocated);
            directory
                .contents()
                .push(name, &fingerprint, PushBody::Entry(entry));
            return Ok(true);
        }
        let group = match self.shared.links.claim(stat)? {
            Claim::Known(group) => group,
            Claim::Read(group) => {
                self.count_entry(size, allocated);
                self.shared.links.fill(group, entry.to_vec(), fingerprint);
                group
            }
        };
        self.count_name();
        self.join_group(directory, name, group, stat)?;
        Ok(true)
    }

    /// As for what was read anew, so that a sum does not depend on what was.
    pub fn count_entry(&mut self, size: u64, outside_holes: impl FnOnce() -> u64) {
        let outside_holes = match size {
            0..HOLES_COUNT_FROM => size,
            _ => outside_holes(),
        };
        self.count_bytes(size, outside_holes);
    }

    /// Whether the directory's row says of a name just what will be recorded of it.
    pub fn is_recorded(
        &self,
        directory: &Directory,
        name: &[u8],
        kind: RecordKind,
        stat: &Stat,
        fingerprint: &[u8],
    ) -> bool {
        let mut now = Encoder::new();
        stat.fingerprint(&mut now);
        now.as_slice() == fingerprint
            && directory
                .row
                .get()
                .is_some_and(|row| row.entry(name, kind, fingerprint).is_some())
    }

    /// What a later run compares the entry with; empty if it must not be reused. Called for what
    /// was read anew.
    pub fn fingerprint(&self, directory: &Directory, read: &EntryRead) -> Vec<u8> {
        directory.changed.store(true, Ordering::Relaxed);
        let fingerprint = match directory.opened.get() {
            Some(opened) => self.fingerprint_of(&read.stat, opened.traits, read.unstable),
            None => Vec::new(),
        };
        let stat = &read.stat;
        let always = fingerprint.is_empty() || self.shared.always_read.contains(&stat.ino);
        if always && stat.kind == FileType::RegularFile {
            let report = &self.shared.report;
            let bytes = match stat.size >= SMALL_FILE_BYTES_MAX {
                true => &report.bytes_unsettled_large,
                false => &report.bytes_unsettled_small,
            };
            bytes.fetch_add(stat.size, Ordering::Relaxed);
        }
        fingerprint
    }

    fn fingerprint_of(&self, stat: &Stat, traits: FsTraits, unstable: bool) -> Vec<u8> {
        // How old an inode was when it was read is a fact of the reading, not of the run.
        let now = crate::clock::now().secs;
        let reusable = self.shared.states.is_some()
            && !unstable
            && !traits.tmpfs
            && is_settled(stat.mtime, stat.ctime, now);
        if !reusable {
            return Vec::new();
        }
        let mut fingerprint = Encoder::new();
        stat.fingerprint(&mut fingerprint);
        fingerprint.finish()
    }

    /// Records a finished directory unless its row says the same; `contents` is in order.
    pub fn record(&self, directory: &Directory, contents: &Contents, own: &Entry) {
        let Some(states) = &self.shared.states else {
            return;
        };
        let Some(opened) = directory.opened.get() else {
            return;
        };
        if opened.traits.tmpfs {
            return;
        }
        let kind = |body: &Body| match body {
            Body::Entry(_) => RecordKind::Entry,
            Body::Directory(_) => RecordKind::Directory,
            Body::Linked(..) => RecordKind::Linked,
        };
        let names = || {
            let name = |slot: &super::directory::Slot| &contents.bytes[slot.name.clone()];
            contents
                .slots
                .iter()
                .map(move |slot| (kind(&slot.body), name(slot)))
        };
        if let Some(row) = directory.row.get() {
            let changed = directory.changed.load(Ordering::Relaxed);
            if !changed && row.len() == contents.slots.len() && row.names().eq(names()) {
                return;
            }
        }
        if states.has_base()
            && let Some(row) = directory.row.get()
        {
            let mut now = names().peekable();
            for (kind, name) in row.names() {
                while now.next_if(|(_, other)| *other < name).is_some() {}
                let stays = now.peek() == Some(&(RecordKind::Directory, name));
                if kind == RecordKind::Directory && !stays {
                    states.gone(&child_key(&directory.key, name));
                }
            }
        }
        let mut encoded = Encoder::new();
        let mut own = own.clone();
        own.name = Vec::new();
        own.encode(&mut encoded);
        let fingerprint = &contents.fingerprint;
        let mut row = RowBuilder::new(fingerprint, encoded.as_slice(), contents.slots.len());
        for slot in &contents.slots {
            let name = &contents.bytes[slot.name.clone()];
            let fingerprint = &contents.bytes[slot.fingerprint.clone()];
            match &slot.body {
                Body::Entry(entry) => {
                    let entry = &contents.bytes[entry.clone()];
                    row.push(RecordKind::Entry, name, fingerprint, entry);
                }
                Body::Directory(_) => row.push(RecordKind::Directory, name, &[], &[]),
                Body::Linked(group, _) => {
                    // A group whose inode was never read is not in the tree either.
                    let body = self.shared.links.body(*group).unwrap_or_default();
                    let fingerprint = if body.is_empty() { &[] } else { fingerprint };
                    row.push(RecordKind::Linked, name, fingerprint, &body);
                }
            }
        }
        states.record(&directory.key, row);
    }
}
