//! The local catalog (SQLite): copies of small immutable objects, so that a listing reads from
//! the store only what is new.
//!
//! Never the truth (I-3): what comes out of it is verified like what comes out of the store, and
//! a catalog that is missing, damaged or of something else costs reads, nothing more.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension, params};

/// Bytes of an object that is kept.
const OBJECT_BYTES_MAX: usize = 1 << 20;
const SCHEMA: i32 = 1;

/// Every method succeeds or does nothing.
pub struct Catalog(Option<Mutex<Connection>>);

impl Catalog {
    /// Opens or makes the catalog in `folder`; one that cannot be used is made anew.
    pub fn open(folder: Option<&Path>) -> Self {
        let Some(path) = folder.map(|folder| folder.join("catalog.sqlite")) else {
            return Self(None);
        };
        let connection = connect(&path).or_else(|_| {
            for suffix in ["", "-wal", "-shm", "-journal"] {
                let mut file = path.clone().into_os_string();
                file.push(suffix);
                let _ = std::fs::remove_file(file);
            }
            connect(&path)
        });
        Self(connection.ok().map(Mutex::new))
    }

    fn connection(&self) -> Option<MutexGuard<'_, Connection>> {
        let mutex = self.0.as_ref()?;
        Some(mutex.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// The kept copy of an object.
    pub fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.connection()?
            .query_row("SELECT bytes FROM objects WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional()
            .ok()?
    }

    pub fn keep(&self, name: &str, bytes: &[u8]) {
        if bytes.len() > OBJECT_BYTES_MAX {
            return;
        }
        if let Some(connection) = self.connection() {
            // A full disk or a locked file: the next listing reads from the store again.
            let _ = connection.execute(
                "INSERT OR REPLACE INTO objects (name, bytes) VALUES (?1, ?2)",
                params![name, bytes],
            );
        }
    }

    /// Drops what begins with `folder/` and is not listed any more.
    pub fn retain(&self, folder: &str, listed: &dyn Fn(&str) -> bool) {
        let Some(connection) = self.connection() else {
            return;
        };
        let names = || -> rusqlite::Result<Vec<String>> {
            connection
                .prepare("SELECT name FROM objects WHERE name > ?1 AND name < ?2")?
                .query_map([format!("{folder}/"), format!("{folder}0")], |row| {
                    row.get(0)
                })?
                .collect()
        };
        for name in names().unwrap_or_default() {
            if !listed(&name) {
                let _ = connection.execute("DELETE FROM objects WHERE name = ?1", [&name]);
            }
        }
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // 0600 from the start: SQLite gives its side files the mode of the database.
    use std::os::unix::fs::OpenOptionsExt;
    let _ = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != SCHEMA {
        connection.execute_batch(
            "DROP TABLE IF EXISTS objects;
             CREATE TABLE objects (name TEXT PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID;",
        )?;
        connection.pragma_update(None, "user_version", SCHEMA)?;
    }
    connection.query_row("SELECT count(*) FROM objects", [], |_| Ok(()))?;
    Ok(connection)
}
