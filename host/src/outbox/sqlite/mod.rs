//! An outbox's table in a file of SQLite. All of it blocks, and runs on a thread of its own (`thread`).

pub mod thread;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{
    Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params,
};

use super::error::Error;
use super::marker::RowRef;
use super::row::OutboxRow;
use super::table::{Backlog, COUNT_MAX, TableMoment, TablePosition, number};
use crate::plan::Outbox;

/// How long a statement waits for a transaction of the service.
const BUSY: Duration = Duration::from_secs(5);
/// What mends a file that cannot be written.
const WRITABLE: &str = "the host deletes rows that are published: let its user write the file and its folder";

/// The table of an outbox. The file is opened when it is needed, and again when another one has taken its place.
pub struct Table {
    outbox: String,
    file: PathBuf,
    table: String,
    opened: Option<Opened>,
}

struct Opened {
    connection: Connection,
    /// Which file it is: device and number.
    file: (u64, u64),
    /// What SQLite counts up when another connection commits.
    version: i64,
}

/// What makes the tables.
pub fn sql(table: &str) -> String {
    format!(
        "PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS {table} (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  subject TEXT NOT NULL,
  headers TEXT,
  payload BLOB NOT NULL DEFAULT '',
  uid     INTEGER NOT NULL DEFAULT (random() & 9223372036854775807),
  time_ms INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
);
CREATE TABLE IF NOT EXISTS {table}_position (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  database TEXT NOT NULL,
  batch    INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  created  TEXT NOT NULL
);
INSERT OR IGNORE INTO {table}_position VALUES (1, lower(hex(randomblob(8))), 0, 0, '');
"
    )
}

impl Table {
    pub fn new(outbox: &Outbox, file: &Path) -> Table {
        Table {
            outbox: outbox.name.clone(),
            file: file.to_owned(),
            table: outbox.table.clone(),
            opened: None,
        }
    }

    /// Makes the tables, and the file if it is not there.
    pub fn init(&mut self) -> Result<(), Error> {
        let made = Connection::open(&self.file).and_then(|connection| {
            connection.busy_timeout(BUSY)?;
            connection.execute_batch(&sql(&self.table))
        });
        made.map_err(|error| self.error(&error))
    }

    /// Where the database stands, and its first rows: at most this number, and after the first one no more than fit into this
    /// number of bytes. It is one moment of the database.
    pub fn look(&mut self, rows_max: usize, bytes_max: usize) -> Result<TableMoment, Error> {
        let sql = format!("{} ORDER BY id LIMIT ?1", self.select());
        self.run(|moment, table| {
            let position = position(moment, table)?;
            let mut statement = moment.prepare_cached(&sql)?;
            let mut found = statement.query([i64::try_from(rows_max).unwrap_or(i64::MAX)])?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while let Some(values) = found.next()? {
                let row = row(values)?;
                bytes += row.bytes();
                if bytes > bytes_max && !rows.is_empty() {
                    break;
                }
                rows.push(row);
            }
            Ok(TableMoment {
                position,
                rows,
                whole: true,
                point: None,
            })
        })
    }

    /// Whether it can be read, and the file can be written.
    pub fn fits(&mut self) -> Result<(), Error> {
        self.look(1, 0)?;
        let fixed = self.open().and_then(|connection| connection.is_readonly(MAIN_DB));
        match fixed.map_err(|error| self.error(&error))? {
            false => Ok(()),
            true => Err(Error::Person(format!(
                "database {}: it cannot be written: {WRITABLE}",
                self.file.display()
            ))),
        }
    }

    /// The row of an id, whichever it is.
    pub fn of_id(&mut self, id: i64) -> Result<Option<OutboxRow>, Error> {
        let sql = format!("{} WHERE id = ?1", self.select());
        self.run(|moment, _| moment.prepare_cached(&sql)?.query_row([id], row).optional())
    }

    pub fn backlog(&mut self) -> Result<Backlog, Error> {
        self.run(|moment, table| {
            let count = format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {})", COUNT_MAX + 1);
            let rows: i64 = moment.prepare_cached(&count)?.query_row([], |row| row.get(0))?;
            let oldest = format!("SELECT time_ms FROM {table} ORDER BY id LIMIT 1");
            let oldest = moment
                .prepare_cached(&oldest)?
                .query_row([], |row| time(row, 0))
                .optional()?;
            Ok(Backlog {
                rows: Some(rows.unsigned_abs()),
                oldest_ms: oldest,
                log: None,
            })
        })
    }

    /// Deletes rows that are settled, and moves the position, both or neither. `false`: it does not stand where it should, and
    /// nothing is changed.
    pub fn confirm(&mut self, from: &TablePosition, to: &TablePosition, rows: &[RowRef]) -> Result<bool, Error> {
        self.run(|moment, table| {
            let moved = format!(
                "UPDATE {table}_position SET batch = ?1, sequence = ?2, created = ?3
                 WHERE database = ?4 AND batch = ?5 AND sequence = ?6"
            );
            let (batch, sequence) = (number(to.batch), number(to.sequence));
            let (batch_before, before) = (number(from.batch), number(from.sequence));
            let values = params![batch, sequence, to.created, from.database, batch_before, before];
            if moment.prepare_cached(&moved)?.execute(values)? != 1 {
                return Ok(false);
            }
            delete(moment, table, rows)?;
            Ok(true)
        })
    }

    /// Of rows whose events are in the stream, those that are not there.
    pub fn missing(&mut self, rows: &[RowRef]) -> Result<Vec<RowRef>, Error> {
        self.run(|moment, table| {
            let sql = format!("SELECT 1 FROM {table} WHERE id = ?1 AND uid = ?2");
            let mut statement = moment.prepare_cached(&sql)?;
            let mut missing = Vec::new();
            for row in rows {
                if !statement.exists([row.0, row.1])? {
                    missing.push(*row);
                }
            }
            Ok(missing)
        })
    }

    /// Whether another connection has committed since this was asked last, or the file is another one.
    pub fn has_changed(&mut self) -> bool {
        let now = file(&self.file);
        let Some(opened) = &mut self.opened else { return false };
        let version = opened.connection.prepare_cached("PRAGMA data_version");
        let version = version.and_then(|mut version| version.query_row([], |row| row.get(0)));
        let changed = now != Some(opened.file) || version != Ok(opened.version);
        opened.version = version.unwrap_or(opened.version);
        changed
    }

    fn select(&self) -> String {
        format!("SELECT id, uid, time_ms, subject, headers, payload FROM {}", self.table)
    }

    /// One transaction. What only reads takes no lock that a service waits for.
    fn run<T>(&mut self, step: impl FnOnce(&Transaction<'_>, &str) -> rusqlite::Result<T>) -> Result<T, Error> {
        let table = self.table.clone();
        let done = self.open().and_then(|connection| {
            let moment = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let done = step(&moment, &table)?;
            moment.commit()?;
            Ok(done)
        });
        done.map_err(|error| {
            // It is opened again: what is wrong may be this connection.
            self.opened = None;
            self.error(&error)
        })
    }

    fn open(&mut self) -> rusqlite::Result<&mut Connection> {
        let now = file(&self.file);
        if self.opened.as_ref().is_some_and(|opened| now != Some(opened.file)) {
            self.opened = None;
        }
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => {
                // The file is the service's: it is not made here.
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&self.file, flags)?;
                connection.busy_timeout(BUSY)?;
                // A deletion that is lost with the machine's power is made again: the stream has the rows.
                connection.pragma_update(None, "synchronous", "NORMAL")?;
                let file = now.unwrap_or_default();
                Opened {
                    connection,
                    file,
                    version: 0,
                }
            }
        };
        Ok(&mut self.opened.insert(opened).connection)
    }

    fn error(&self, error: &rusqlite::Error) -> Error {
        let (file, name) = (self.file.display(), &self.outbox);
        let why = error.to_string();
        if why.contains("no such column") {
            return Error::Person(format!(
                "database {file}: table {}: {why}: add the column with `ALTER TABLE`, as `jetmesh outbox init {name}` prints it; the \
                 command does not change a table that is there",
                self.table
            ));
        }
        if why.contains("no such table") || *error == rusqlite::Error::QueryReturnedNoRows {
            return Error::Person(format!(
                "database {file} has no table {} of an outbox ({why}): `jetmesh outbox init {name} --yes` makes it",
                self.table
            ));
        }
        let person = |mend: &str| Error::Person(format!("database {file}: {why}: {mend}"));
        if let rusqlite::Error::InvalidColumnType(..) = error {
            return person(&format!("make the columns as `jetmesh outbox init {name}` prints them"));
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => person("outbox.url names another file"),
            Some(ErrorCode::DatabaseCorrupt) => person("restore it from a backup"),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => person(WRITABLE),
            Some(ErrorCode::CannotOpen) if !self.file.exists() => Error::Database {
                database: file.to_string(),
                why: "there is no such file".to_owned(),
            },
            _ => Error::Database {
                database: file.to_string(),
                why,
            },
        }
    }
}

fn position(moment: &Transaction<'_>, table: &str) -> rusqlite::Result<TablePosition> {
    let sql = format!("SELECT database, batch, sequence, created FROM {table}_position WHERE one = 1");
    moment.prepare_cached(&sql)?.query_row([], |row| {
        let number = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
        Ok(TablePosition {
            database: row.get(0)?,
            batch: number(1)?,
            sequence: number(2)?,
            created: row.get(3)?,
        })
    })
}

fn delete(moment: &Transaction<'_>, table: &str, rows: &[RowRef]) -> rusqlite::Result<()> {
    let sql = format!("DELETE FROM {table} WHERE id = ?1 AND uid = ?2");
    let mut statement = moment.prepare_cached(&sql)?;
    for row in rows {
        statement.execute([row.0, row.1])?;
    }
    Ok(())
}

fn row(values: &rusqlite::Row<'_>) -> rusqlite::Result<OutboxRow> {
    let mut odd = None;
    let mut text = |at: usize, name: &str| -> rusqlite::Result<Option<String>> {
        Ok(match values.get_ref(at)? {
            ValueRef::Null => None,
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Some(text.to_owned()),
                Err(_) => {
                    odd = Some(format!("its {name} is not UTF-8"));
                    None
                }
            },
            other => {
                let kind = match other {
                    ValueRef::Blob(_) => "a blob",
                    _ => "a number",
                };
                odd = Some(format!("column {name} holds {kind}, not a text"));
                None
            }
        })
    };
    let (subject, headers) = (text(3, "subject")?.unwrap_or_default(), text(4, "headers")?);
    let payload = match values.get_ref(5)? {
        ValueRef::Null => Vec::new(),
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
    };
    Ok(OutboxRow {
        at: RowRef(values.get(0)?, values.get(1)?),
        placed: false,
        time_ms: time(values, 2)?,
        subject,
        headers,
        payload: payload.into(),
        odd,
    })
}

/// A time in milliseconds; 0 if the column has something else.
fn time(values: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(match values.get_ref(at)? {
        ValueRef::Integer(ms) => u64::try_from(ms).unwrap_or(0),
        _ => 0,
    })
}

/// Which file lies at a path.
fn file(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
