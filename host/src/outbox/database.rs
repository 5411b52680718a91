//! The database of an outbox, whichever it is. A relay needs no more of it than this: a look at its first rows and its position
//! in one moment, and one transaction that deletes rows and moves the position.

use super::error::Error;
use super::marker::RowRef;
use super::postgres::{self, PostgresLog, PostgresTable, SlotLimit};
use super::row::OutboxRow;
use super::sqlite::thread::SqliteThread;
use super::sqlite::{self, Table};
use super::table::{Backlog, TableMoment, TablePosition};
use crate::plan::{Outbox, OutboxDatabase, OutboxSource};

pub enum Database {
    Sqlite(SqliteThread),
    Postgres(Box<PostgresTable>),
    Log(Box<PostgresLog>),
}

/// The SQL that makes the tables of an outbox.
pub fn sql(outbox: &Outbox) -> String {
    match &outbox.database {
        OutboxDatabase::Sqlite(_) => sqlite::sql(&outbox.table),
        OutboxDatabase::Postgres(address) => match outbox.source {
            OutboxSource::Table => postgres::sql(&outbox.table),
            OutboxSource::Log { .. } => postgres::log_sql(outbox, address).concat(),
        },
    }
}

/// The limit of what a database may keep of its log for an outbox, if there is one.
pub fn limit(outbox: &Outbox) -> Result<Option<SlotLimit>, Error> {
    match (&outbox.database, outbox.source) {
        (OutboxDatabase::Postgres(address), OutboxSource::Log { wal_max: Some(most) }) => {
            SlotLimit::new(outbox, address, most).map(Some)
        }
        _ => Ok(None),
    }
}

impl Database {
    pub fn open(outbox: &Outbox) -> Result<Database, Error> {
        Ok(match &outbox.database {
            OutboxDatabase::Sqlite(file) => Database::Sqlite(SqliteThread::open(outbox, file)?),
            OutboxDatabase::Postgres(address) => match outbox.source {
                OutboxSource::Table => Database::Postgres(Box::new(PostgresTable::new(outbox, address)?)),
                OutboxSource::Log { .. } => Database::Log(Box::new(PostgresLog::new(outbox, address)?)),
            },
        })
    }

    /// Makes the tables, and a file of SQLite if it is not there.
    pub async fn init(&self) -> Result<(), Error> {
        match self {
            Database::Sqlite(thread) => thread.ask(Table::init).await,
            Database::Postgres(table) => table.init().await,
            Database::Log(log) => log.init().await,
        }
    }

    /// Where the database stands, and its first rows: at most this number, and after the first one no more than fit into this
    /// number of bytes. It is one moment of the database.
    pub async fn look(&self, rows_max: usize, bytes_max: usize) -> Result<TableMoment, Error> {
        match self {
            Database::Sqlite(thread) => thread.ask(move |table| table.look(rows_max, bytes_max)).await,
            Database::Postgres(table) => table.look(rows_max, bytes_max).await,
            Database::Log(log) => log.look(rows_max, bytes_max).await,
        }
    }

    pub async fn position(&self) -> Result<TablePosition, Error> {
        match self {
            Database::Log(log) => log.position().await,
            Database::Sqlite(_) | Database::Postgres(_) => Ok(self.look(0, 0).await?.position),
        }
    }

    /// Whether it has what an outbox needs.
    pub async fn fits(&self) -> Result<(), Error> {
        match self {
            Database::Sqlite(thread) => thread.ask(Table::fits).await,
            Database::Postgres(table) => table.fits().await,
            Database::Log(log) => log.fits().await,
        }
    }

    /// The row, if it is there and no other one has its id.
    pub async fn find(&self, at: RowRef) -> Result<Option<OutboxRow>, Error> {
        match self {
            Database::Log(log) => log.find(at).await,
            Database::Sqlite(_) | Database::Postgres(_) => Ok(self.of_id(at.0).await?.filter(|row| row.at == at)),
        }
    }

    /// The row of an id, whichever it is. A log is not searched.
    pub async fn of_id(&self, id: i64) -> Result<Option<OutboxRow>, Error> {
        match self {
            Database::Sqlite(thread) => thread.ask(move |table| table.of_id(id)).await,
            Database::Postgres(table) => table.of_id(id).await,
            Database::Log(_) => Ok(None),
        }
    }

    pub async fn backlog(&self) -> Result<Backlog, Error> {
        match self {
            Database::Sqlite(thread) => thread.ask(Table::backlog).await,
            Database::Postgres(table) => table.backlog().await,
            Database::Log(log) => log.backlog().await,
        }
    }

    /// Deletes rows that are settled, and moves the position, both or neither. `false`: it does not stand where it should, and
    /// nothing is changed.
    pub async fn confirm(&self, from: &TablePosition, to: &TablePosition, rows: Vec<RowRef>) -> Result<bool, Error> {
        match self {
            Database::Sqlite(thread) => {
                let (from, to) = (from.clone(), to.clone());
                thread.ask(move |table| table.confirm(&from, &to, &rows)).await
            }
            Database::Postgres(table) => table.confirm(from, to, &rows).await,
            Database::Log(log) => log.confirm(from, to, &rows).await,
        }
    }

    /// Of rows whose events are in the stream, those that are not there. A log takes the others for settled.
    pub async fn missing(&self, rows: Vec<RowRef>) -> Result<Vec<RowRef>, Error> {
        match self {
            Database::Sqlite(thread) => thread.ask(move |table| table.missing(&rows)).await,
            Database::Postgres(table) => table.missing(&rows).await,
            Database::Log(log) => log.missing(rows).await,
        }
    }

    /// Completes when a service may have committed since the last time.
    pub async fn changed(&self) {
        match self {
            Database::Sqlite(thread) => thread.changed().await,
            Database::Postgres(table) => table.changed().await,
            Database::Log(log) => log.changed().await,
        }
    }
}
