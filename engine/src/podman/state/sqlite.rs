//! `db.sql`, read in one transaction through a connection that cannot write.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Map, Value};

use super::{
    ConfigSource, OBJECTS_MAX, StoredContainer, StoredPod, StoredState, apply_state, check_object,
    object,
};

/// Podman holds its lock for the time of one change.
const BUSY_TIME_MAX: Duration = Duration::from_secs(30);
/// The one that Podman has had since it began to use SQLite.
const SCHEMA_VERSION: i64 = 1;
/// Of the file: how it is journaled (2: by a write-ahead log).
const WRITE_VERSION_AT: usize = 18;
const HEADER_BYTES: usize = 100;

pub fn read(path: &Path, graph_root: &Path) -> Result<StoredState, String> {
    let header = read_header(path).map_err(|error| error.to_string())?;
    if header[WRITE_VERSION_AT..WRITE_VERSION_AT + 2] != [1, 1] {
        // Reading it would make files beside it.
        return Err("it is journaled in another way than Podman does it".into());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(in_words)?;
    connection.busy_timeout(BUSY_TIME_MAX).map_err(in_words)?;
    let transaction = connection.transaction().map_err(in_words)?;
    let (version, root): (i64, String) = transaction
        .query_row("SELECT SchemaVersion, GraphRoot FROM DBConfig", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(in_words)?;
    if version != SCHEMA_VERSION {
        return Err(format!("its schema {version} is not known"));
    }
    if Path::new(&root) != graph_root {
        return Err(format!("it is of another store, {root}"));
    }
    let mut containers = Vec::new();
    rows(
        &transaction,
        "SELECT c.ID, c.Name, c.JSON, s.JSON FROM ContainerConfig c \
         JOIN ContainerState s ON s.ID = c.ID",
        |row| {
            let (id, name) = (text(row, 0)?, text(row, 1)?);
            check_object("container", &id, &name)?;
            let mut container = StoredContainer {
                config: json(row, 2, "a container's configuration")?,
                id,
                name,
                ..StoredContainer::default()
            };
            let state = json(row, 3, "a container's state")?;
            apply_state(&mut container, &state);
            containers.push(container);
            Ok(())
        },
    )?;
    let mut pods = Vec::new();
    rows(
        &transaction,
        "SELECT p.ID, p.Name, p.JSON, s.JSON FROM PodConfig p JOIN PodState s ON s.ID = p.ID",
        |row| {
            let (id, name) = (text(row, 0)?, text(row, 1)?);
            check_object("pod", &id, &name)?;
            let state = json(row, 3, "a pod's state")?;
            pods.push(StoredPod {
                config: json(row, 2, "a pod's configuration")?,
                infra_id: super::infra_id(&state),
                id,
                name,
            });
            Ok(())
        },
    )?;
    Ok(StoredState {
        source: ConfigSource::Sqlite,
        containers,
        pods,
        lossy: None,
    })
}

fn read_header(path: &Path) -> std::io::Result<[u8; HEADER_BYTES]> {
    use std::io::Read;
    let mut header = [0; HEADER_BYTES];
    std::fs::File::open(path)?.read_exact(&mut header)?;
    Ok(header)
}

fn rows(
    connection: &Connection,
    query: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut statement = connection.prepare(query).map_err(in_words)?;
    let mut rows = statement.query([]).map_err(in_words)?;
    let mut count = 0;
    while let Some(row) = rows.next().map_err(in_words)? {
        count += 1;
        if count > OBJECTS_MAX {
            return Err(format!("it has more than {OBJECTS_MAX} containers or pods"));
        }
        take(row)?;
    }
    Ok(())
}

fn text(row: &Row<'_>, column: usize) -> Result<String, String> {
    row.get(column).map_err(in_words)
}

/// JSON of a column. Podman hands it to SQLite as bytes, so that it is a blob in a column of texts.
fn json(row: &Row<'_>, column: usize, what: &str) -> Result<Map<String, Value>, String> {
    match row.get_ref(column).map_err(in_words)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => object(what, bytes),
        _ => Err(format!("{what} is no JSON")),
    }
}

fn in_words(error: rusqlite::Error) -> String {
    error.to_string()
}
