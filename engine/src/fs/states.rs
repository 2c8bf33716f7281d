//! File states: what the last run learnt of each directory, so that the next one reads only what
//! changed.
//!
//! They are never the truth. An entry is reused only if the item's last recorded snapshot is the
//! one that the caller trusts, if the inode's fingerprint is the same, and if mtime and ctime
//! were [`SETTLED_SECS`] old when it was read (a store into a page that is dirty already moves
//! neither before writeback). A foreign, stale, damaged or missing database only makes a run
//! slower; a damaged one is made anew.
//!
//! A scan writes the rows of changed directories into a file of its own beside the database,
//! which gets its name only when the scan ends. [`published`] moves them into the database in one
//! transaction, together with the snapshot that they belong to, so that a run that is killed at
//! any point leaves the states of the snapshot before. There is no fsync: after a power cut a
//! row fails its checksum, or the snapshot does not match, or an older row stands there whose
//! fingerprints tell whether it still holds.

mod earlier;
mod row;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podkeep_format::id::{ChunkIdKey, SnapshotId, hex};
use podkeep_format::tree::Time;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

pub(crate) use row::{RecordKind, Row, RowBuilder, RowKey, child_key, root_key};

use earlier::Earlier;

use super::{FsError, FsErrorKind};

/// A state is reused only if its times were older than this when it was read.
pub const SETTLED_SECS: i64 = 60;

const DATABASE: &str = "states.sqlite";
const APPLICATION_ID: i64 = 0x706b_7374;
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, snapshot BLOB NOT NULL);
    CREATE TABLE directory (
        item INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (item, key));
";
/// How long one run waits for another that is publishing.
const BUSY: Duration = Duration::from_secs(30);

const PENDING_MAGIC: &[u8; 8] = b"pkstate1";
const TAG_END: u8 = 0;
const TAG_ROW: u8 = 1;
const TAG_GONE: u8 = 2;

/// Whether a file with these times may be taken as unchanged by a later run, when it is read
/// `now`.
///
/// A time in the future that somebody set does no harm as long as ctime, which nobody can set,
/// is old; else such a file would be read anew for ever.
pub(crate) fn is_settled(mtime: Time, ctime: Time, now_secs: i64) -> bool {
    let recent = now_secs - SETTLED_SECS..=now_secs + SETTLED_SECS;
    ctime.secs < now_secs - SETTLED_SECS && !recent.contains(&mtime.secs)
}

/// The states of one item during one scan.
pub(crate) struct States {
    directory: PathBuf,
    /// The item's number in the database; `None`: nothing is trusted, all is recorded anew.
    base: Option<i64>,
    /// What the first of two readings recorded, which stands before the base.
    earlier: Option<Arc<Earlier>>,
    pending: Mutex<Option<Pending>>,
    ids: ChunkIdKey,
}

/// The file of rows that are not published.
struct Pending {
    path: PathBuf,
    file: BufWriter<File>,
    hash: blake3::Hasher,
}

impl States {
    /// Fails only if nothing can be recorded at `directory`.
    pub fn open(
        directory: &Path,
        item: &str,
        trusted: Option<SnapshotId>,
        ids: &ChunkIdKey,
    ) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let base = base_of(directory, item, trusted);
        let path = pending_path(directory, item);
        // What a run recorded that was never published belongs to no snapshot.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut pending = Pending {
            file: BufWriter::with_capacity(256 << 10, create(&path.with_extension("new"))?),
            path,
            hash: blake3::Hasher::new(),
        };
        pending.write(PENDING_MAGIC)?;
        let base_snapshot = base.and(trusted).map_or([0; 32], |snapshot| snapshot.0);
        pending.write(&base_snapshot)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            base,
            earlier: None,
            pending: Mutex::new(Some(pending)),
            ids: ids.clone(),
        })
    }

    /// For the second reading of an item by one run: also what the first recorded is reused, and what
    /// this one records is added to it. `trusted` is the same as it was for the first.
    pub fn go_on(
        directory: &Path,
        item: &str,
        trusted: Option<SnapshotId>,
        ids: &ChunkIdKey,
    ) -> io::Result<Self> {
        let path = pending_path(directory, item);
        let open = path.with_extension("new");
        let earlier = fs::rename(&path, &open).and_then(|()| Earlier::open(&open));
        let Ok((earlier, file, hash)) = earlier else {
            // It recorded nothing, or nothing whole.
            return Self::open(directory, item, trusted, ids);
        };
        let pending = Pending {
            file: BufWriter::with_capacity(256 << 10, file),
            path,
            hash,
        };
        Ok(Self {
            directory: directory.to_path_buf(),
            base: base_of(directory, item, trusted),
            earlier: Some(Arc::new(earlier)),
            pending: Mutex::new(Some(pending)),
            ids: ids.clone(),
        })
    }

    /// For one thread. `None`: there is nothing to read.
    pub fn reader(&self) -> Option<StatesReader> {
        let base = self
            .base
            .and_then(|item| Some((open_database(&self.directory).ok()?, item)));
        let earlier = self.earlier.clone();
        (base.is_some() || earlier.is_some()).then(|| StatesReader {
            base,
            earlier,
            ids: self.ids.clone(),
        })
    }

    /// Whether rows of before are reused, and those of removed directories have to go.
    pub fn has_base(&self) -> bool {
        self.base.is_some() || self.earlier.is_some()
    }

    /// Records a directory that is not as its row says.
    pub fn record(&self, key: &RowKey, row: RowBuilder) {
        let Some(row) = row.finish(&self.ids, key) else {
            return;
        };
        self.append(|pending| {
            pending.write(&[TAG_ROW])?;
            pending.write(key)?;
            pending.write(&(row.len() as u32).to_le_bytes())?;
            pending.write(&row)
        });
    }

    /// Records that a directory and all below it are not there any more.
    pub fn gone(&self, key: &RowKey) {
        self.append(|pending| {
            pending.write(&[TAG_GONE])?;
            pending.write(key)
        });
    }

    fn append(&self, write: impl FnOnce(&mut Pending) -> io::Result<()>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be recorded (a full disk) makes the next run slower, not this one fail.
        if let Some(open) = pending.as_mut()
            && write(open).is_err()
        {
            *pending = None;
        }
    }

    /// The scan has seen all; what was recorded waits for [`published`].
    pub fn finish(&self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut open) = pending.take() {
            let _ = open.finish();
        }
    }
}

impl Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.write(&[TAG_END])?;
        let sum = self.hash.finalize();
        self.file.write_all(sum.as_bytes())?;
        self.file.flush()?;
        fs::rename(self.path.with_extension("new"), &self.path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Gone already when it was finished.
        let _ = fs::remove_file(self.path.with_extension("new"));
    }
}

/// Reads the rows of one item.
pub(crate) struct StatesReader {
    base: Option<(Connection, i64)>,
    earlier: Option<Arc<Earlier>>,
    ids: ChunkIdKey,
}

impl StatesReader {
    /// `None`: the directory is to be read as if it were new.
    pub fn row(&self, key: &RowKey) -> Option<Row> {
        let earlier = self.earlier.as_ref().and_then(|earlier| earlier.row(key));
        let value = match (earlier, &self.base) {
            (Some(value), _) => value?,
            (None, Some((database, item))) => value_of(database, *item, key).ok()??,
            (None, None) => return None,
        };
        Row::open(value, &self.ids, key)
    }
}

/// The snapshot of an item is published: what its last scan recorded becomes the item's states,
/// for scans that trust this snapshot. Without a finished scan nothing changes.
pub fn published(directory: &Path, item: &str, snapshot: SnapshotId) -> Result<(), FsError> {
    let path = pending_path(directory, item);
    let failed = |error: &dyn std::fmt::Display| {
        let object = path.as_os_str().as_encoded_bytes();
        FsError::new("merge the file states", object, FsErrorKind::Other, error)
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&error)),
    };
    if !is_whole(&file).map_err(|error| failed(&error))? {
        return fs::remove_file(&path).map_err(|error| failed(&error));
    }
    let merged = open_database(directory)
        .and_then(|mut database| merge(&mut database, &file, item, snapshot))
        .or_else(|error| match &error {
            // Somebody else is at work for very long: the next run is slower, no more.
            MergeError::Database(error) if is_busy(error) => Ok(()),
            MergeError::Database(_) => {
                remove_database(directory)?;
                let mut database = open_database(directory)?;
                merge(&mut database, &file, item, snapshot)
            }
            MergeError::Io(_) => Err(error),
        });
    merged.map_err(|error| failed(&error))?;
    fs::remove_file(&path).map_err(|error| failed(&error))
}

#[derive(Debug, thiserror::Error)]
enum MergeError {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn base_of(directory: &Path, item: &str, trusted: Option<SnapshotId>) -> Option<i64> {
    let trusted = trusted?;
    let database = open_database(directory).ok()?;
    find_item(&database, item, trusted).ok()?
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    )
}

fn pending_path(directory: &Path, item: &str) -> PathBuf {
    directory.join(format!("{}.pending", hex(&root_key(item))))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Opens the database, makes it if it is not there, and makes it anew if it is no database of
/// ours.
fn open_database(directory: &Path) -> Result<Connection, MergeError> {
    match connect(directory) {
        Ok(database) => Ok(database),
        Err(error) if is_busy(&error) => Err(error.into()),
        Err(_) => {
            remove_database(directory)?;
            Ok(connect(directory)?)
        }
    }
}

fn connect(directory: &Path) -> rusqlite::Result<Connection> {
    let path = directory.join(DATABASE);
    // SQLite would make it readable for all, and gives its side files the same mode.
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    if made.is_err() {
        return Err(rusqlite::Error::InvalidPath(path));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = Connection::open_with_flags(&path, flags)?;
    database.busy_timeout(BUSY)?;
    database.pragma_update(None, "journal_mode", "wal")?;
    database.pragma_update(None, "synchronous", "off")?;
    let number = |database: &Connection, pragma: &str| {
        database.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
    };
    if number(&database, "schema_version")? == 0 {
        let transaction =
            database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if number(&transaction, "schema_version")? == 0 {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        transaction.commit()?;
    }
    let ours = number(&database, "application_id")? == APPLICATION_ID
        && number(&database, "user_version")? == SCHEMA_VERSION;
    if !ours {
        return Err(rusqlite::Error::InvalidQuery);
    }
    Ok(database)
}

fn remove_database(directory: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        match fs::remove_file(directory.join(format!("{DATABASE}{suffix}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn find_item(
    database: &Connection,
    item: &str,
    snapshot: SnapshotId,
) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT id FROM item WHERE name = ?1 AND snapshot = ?2";
    let mut statement = database.prepare(sql)?;
    statement
        .query_row(params![item, snapshot.0.as_slice()], |row| row.get(0))
        .optional()
}

fn value_of(database: &Connection, item: i64, key: &RowKey) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT value FROM directory WHERE item = ?1 AND key = ?2";
    let mut statement = database.prepare_cached(sql)?;
    statement
        .query_row(params![item, key.as_slice()], |row| row.get(0))
        .optional()
}

/// Whether a pending file was written to its end.
fn is_whole(mut file: &File) -> io::Result<bool> {
    let len = file.metadata()?.len();
    let Some(covered) = len.checked_sub(blake3::OUT_LEN as u64) else {
        return Ok(false);
    };
    let mut hash = blake3::Hasher::new();
    io::copy(&mut file.take(covered), &mut hash)?;
    let mut sum = [0; blake3::OUT_LEN];
    file.read_exact(&mut sum)?;
    Ok(hash.finalize() == sum)
}

fn merge(
    database: &mut Connection,
    file: &File,
    item: &str,
    snapshot: SnapshotId,
) -> Result<(), MergeError> {
    use std::io::Seek;
    let mut input = BufReader::with_capacity(256 << 10, file);
    input.rewind()?;
    let mut magic = [0; PENDING_MAGIC.len()];
    let mut base = [0; SnapshotId::LEN];
    input.read_exact(&mut magic)?;
    input.read_exact(&mut base)?;
    if magic != *PENDING_MAGIC {
        return Ok(());
    }
    let transaction =
        database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let on_base =
        base != [0; SnapshotId::LEN] && find_item(&transaction, item, SnapshotId(base))?.is_some();
    let name = "INSERT INTO item (name, snapshot) VALUES (?1, ?2)
        ON CONFLICT (name) DO UPDATE SET snapshot = excluded.snapshot RETURNING id";
    let number: i64 =
        transaction.query_row(name, params![item, snapshot.0.as_slice()], |row| row.get(0))?;
    if !on_base {
        transaction.execute("DELETE FROM directory WHERE item = ?1", params![number])?;
    }
    loop {
        let mut tag = [0];
        let mut key = RowKey::default();
        input.read_exact(&mut tag)?;
        match tag[0] {
            TAG_ROW => {
                let mut len = [0; 4];
                input.read_exact(&mut key)?;
                input.read_exact(&mut len)?;
                let len = u32::from_le_bytes(len) as usize;
                if len > row::ROW_BYTES_MAX {
                    break;
                }
                let mut value = vec![0; len];
                input.read_exact(&mut value)?;
                let sql = "INSERT OR REPLACE INTO directory (item, key, value) VALUES (?1, ?2, ?3)";
                transaction
                    .prepare_cached(sql)?
                    .execute(params![number, key.as_slice(), value])?;
            }
            TAG_GONE => {
                input.read_exact(&mut key)?;
                remove_below(&transaction, number, key)?;
            }
            _ => break,
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Deletes a directory's row and those of all directories below it.
fn remove_below(transaction: &Transaction<'_>, item: i64, key: RowKey) -> rusqlite::Result<()> {
    let mut keys = vec![key];
    while let Some(key) = keys.pop() {
        let Some(value) = value_of(transaction, item, &key)? else {
            continue;
        };
        let sql = "DELETE FROM directory WHERE item = ?1 AND key = ?2";
        transaction
            .prepare_cached(sql)?
            .execute(params![item, key.as_slice()])?;
        if let Ok(row) = Row::parse(value) {
            let below = row
                .names()
                .filter(|(kind, _)| *kind == RecordKind::Directory);
            keys.extend(below.map(|(_, name)| child_key(&key, name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_settled;
    use podkeep_format::tree::Time;

    #[test]
    fn f_37_only_times_older_than_a_minute_are_settled() {
        let at = |secs| Time { secs, nanos: 0 };
        assert!(is_settled(at(900), at(939), 1000));
        assert!(!is_settled(at(900), at(940), 1000));
        assert!(!is_settled(at(940), at(900), 1000));
        assert!(!is_settled(at(1060), at(900), 1000));
        // The clock was wrong when it was written.
        assert!(!is_settled(at(5000), at(5000), 1000));
    }

    #[test]
    fn f_23_a_far_mtime_that_was_set_is_settled() {
        let at = |secs| Time { secs, nanos: 0 };
        assert!(is_settled(at(1 << 40), at(900), 1000));
        assert!(is_settled(at(-1), at(900), 1000));
    }
}
