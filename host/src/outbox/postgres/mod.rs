//! An outbox's table in a PostgreSQL. A look is one statement, so it is one moment of the database; so is what deletes rows and
//! moves the position. No row is locked: of two relays that have seen the same rows, the stream refuses one.

mod fit;
mod log;
mod log_buffer;
mod log_row;
mod pgoutput;
mod replication;
mod session;
mod slot;
mod tls;
mod value;
mod wire;

use std::sync::Arc;

use tokio::sync::{Mutex, Notify};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::error::Error;
use super::marker::RowRef;
use super::row::OutboxRow;
use super::table::{Backlog, COUNT_MAX, TableMoment, TablePosition, fitting, number};
use crate::plan::{Outbox, Postgres};
use session::{Failed, Session, Sessions};

pub use log::{PostgresLog, sql as log_sql};
pub use slot::SlotLimit;

/// The table of an outbox. Its connection is made when it is needed, and again when it has failed.
pub struct PostgresTable {
    table: String,
    sessions: Sessions,
    opened: Mutex<Option<Session>>,
    changed: Arc<Notify>,
}

/// What makes the tables.
pub fn sql(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subject text NOT NULL,
  headers jsonb,
  payload bytea NOT NULL DEFAULT '',
  uid     bigint NOT NULL DEFAULT (('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint & 9223372036854775807),
  time_ms bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
{position}{name}CREATE OR REPLACE FUNCTION {table}_notify() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_notify('{channel}', ''); RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER {table}_notify AFTER INSERT ON {table}
  FOR EACH STATEMENT EXECUTE FUNCTION {table}_notify();
",
        channel = channel(table),
        position = position_table(table),
        name = position_row(table)
    )
}

/// What makes the table of the position.
fn position_table(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table}_position (
  one      integer PRIMARY KEY CHECK (one = 1),
  database text NOT NULL,
  batch    bigint NOT NULL,
  sequence bigint NOT NULL,
  created  text NOT NULL
);
"
    )
}

/// What gives the database its name.
fn position_row(table: &str) -> String {
    format!(
        "INSERT INTO {table}_position
  VALUES (1, left(replace(gen_random_uuid()::text, '-', ''), 16), 0, 0, '') ON CONFLICT DO NOTHING;
"
    )
}

/// On which the database says that rows were written.
fn channel(table: &str) -> String {
    format!("jetmesh_{table}")
}

/// The columns of a row. A service may have made the table with other types of numbers and texts.
const COLUMNS: &str = "id::bigint, uid::bigint, time_ms::bigint, subject::text, headers, payload";

impl PostgresTable {
    pub fn new(outbox: &Outbox, address: &Postgres) -> Result<PostgresTable, Error> {
        let changed = Arc::new(Notify::new());
        Ok(PostgresTable {
            table: outbox.table.clone(),
            sessions: Sessions::new(outbox, address, Some(channel(&outbox.table)), Arc::clone(&changed))?,
            opened: Mutex::new(None),
            changed,
        })
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub async fn init(&self) -> Result<(), Error> {
        self.run(async |session| session.script(&sql(&self.table)).await).await
    }

    pub async fn look(&self, rows_max: usize, bytes_max: usize) -> Result<TableMoment, Error> {
        // What a row takes up in the database bounds what is sent; compressed, it is less than the row.
        let sql = format!(
            "SELECT p.database, p.batch, p.sequence, p.created, r.* FROM {table}_position p LEFT JOIN (
               SELECT {COLUMNS} FROM (
                 SELECT sized.*, sum(size) OVER (ORDER BY id) - size AS above
                 FROM (SELECT *, coalesce(pg_column_size(payload), 0) AS size FROM {table} ORDER BY id LIMIT $1) sized) summed
               WHERE above = 0 OR above < $2) r ON true
             WHERE p.one = 1 ORDER BY r.id",
            table = self.table
        );
        let (rows_max, bytes) = (number(rows_max as u64), number(bytes_max as u64));
        let values: [(&(dyn ToSql + Sync), Type); 2] = [(&rows_max, Type::INT8), (&bytes, Type::INT8)];
        self.run(async |session| {
            let found = session.query(&sql, &values).await?;
            let first = found.first().ok_or(Failed::NoPosition)?;
            let position = position(first)?;
            let mut rows = Vec::with_capacity(found.len());
            for values in &found {
                if values.try_get::<_, Option<i64>>(4)?.is_some() {
                    rows.push(row(values, 4)?);
                }
            }
            let rows = fitting(rows, bytes_max);
            Ok(TableMoment {
                position,
                rows,
                whole: true,
                point: None,
            })
        })
        .await
    }

    /// Whether the tables are there, with the columns and the rights that publishing needs.
    pub async fn fits(&self) -> Result<(), Error> {
        self.look(1, 0).await?;
        let rights = [
            (self.table.clone(), "DELETE"),
            (format!("{}_position", self.table), "UPDATE"),
        ];
        let lacking = self.run(async |session| fit::lacking(session, &rights).await).await?;
        fit::without_rights(&self.sessions, &lacking)?;
        let odd = self
            .run(async |session| fit::odd_columns(session, &self.table).await)
            .await?;
        match odd.is_empty() {
            true => Ok(()),
            false => Err(Error::Person(format!("table {}: {}", self.table, odd.join(", ")))),
        }
    }

    pub async fn of_id(&self, id: i64) -> Result<Option<OutboxRow>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM {} WHERE id = $1", self.table);
        self.run(async |session| {
            let found = session.query(&sql, &[(&id, Type::INT8)]).await?;
            found.first().map(|values| row(values, 0)).transpose()
        })
        .await
    }

    pub async fn backlog(&self) -> Result<Backlog, Error> {
        let table = &self.table;
        let sql = format!(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {}) AS counted),
                    (SELECT time_ms::bigint FROM {table} ORDER BY id LIMIT 1)",
            COUNT_MAX + 1
        );
        self.run(async |session| {
            let found = session.query(&sql, &[]).await?;
            let values = found.first().ok_or(Failed::NoPosition)?;
            Ok(Backlog {
                rows: Some(values.try_get::<_, i64>(0)?.unsigned_abs()),
                oldest_ms: values.try_get::<_, Option<i64>>(1)?.map(i64::unsigned_abs),
                log: None,
            })
        })
        .await
    }

    pub async fn confirm(&self, from: &TablePosition, to: &TablePosition, rows: &[RowRef]) -> Result<bool, Error> {
        let sql = format!(
            "WITH moved AS (
               UPDATE {table}_position SET batch = $1, sequence = $2, created = $3
               WHERE one = 1 AND database = $4 AND batch = $5 AND sequence = $6 RETURNING 1),
             gone AS (
               DELETE FROM {table} USING unnest($7, $8) AS settled(id, uid), moved
               WHERE {table}.id = settled.id AND {table}.uid = settled.uid)
             SELECT 1 FROM moved",
            table = self.table
        );
        let (batch, sequence) = (number(to.batch), number(to.sequence));
        let (batch_before, before) = (number(from.batch), number(from.sequence));
        let (ids, uids) = columns(rows);
        let values: [(&(dyn ToSql + Sync), Type); 8] = [
            (&batch, Type::INT8),
            (&sequence, Type::INT8),
            (&to.created, Type::TEXT),
            (&from.database, Type::TEXT),
            (&batch_before, Type::INT8),
            (&before, Type::INT8),
            (&ids, Type::INT8_ARRAY),
            (&uids, Type::INT8_ARRAY),
        ];
        self.run(async |session| Ok(session.query(&sql, &values).await?.len() == 1))
            .await
    }

    pub async fn missing(&self, rows: &[RowRef]) -> Result<Vec<RowRef>, Error> {
        let sql = format!(
            "SELECT named.id, named.uid FROM unnest($1, $2) AS named(id, uid)
             WHERE NOT EXISTS (SELECT FROM {table} WHERE {table}.id = named.id AND {table}.uid = named.uid)
             ORDER BY 1, 2",
            table = self.table
        );
        let (ids, uids) = columns(rows);
        let values: [(&(dyn ToSql + Sync), Type); 2] = [(&ids, Type::INT8_ARRAY), (&uids, Type::INT8_ARRAY)];
        self.run(async |session| {
            let found = session.query(&sql, &values).await?;
            let row = |values: &Row| Ok(RowRef(values.try_get(0)?, values.try_get(1)?));
            found.iter().map(row).collect()
        })
        .await
    }

    /// A step on the connection. It is a statement, so it is done or not.
    async fn run<T>(&self, step: impl AsyncFnOnce(&Session) -> Result<T, Failed>) -> Result<T, Error> {
        self.sessions.run(&self.opened, step).await
    }
}

fn position(values: &Row) -> Result<TablePosition, Failed> {
    let number = |at| values.try_get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(TablePosition {
        database: values.try_get(0)?,
        batch: number(1)?,
        sequence: number(2)?,
        created: values.try_get(3)?,
    })
}

/// A row whose columns begin at this one.
fn row(values: &Row, first: usize) -> Result<OutboxRow, Failed> {
    let mut odd = None;
    let mut bytes = |at: usize, name: &str| -> Result<Option<Vec<u8>>, Failed> {
        let value: Option<value::StoredValue> = values.try_get(first + at)?;
        match value.map(|value| value.bytes) {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(kind)) => {
                odd = Some(format!(
                    "column {name} is of type {kind}, not bytea, text, json or jsonb"
                ));
                Ok(None)
            }
        }
    };
    let (headers, payload) = (bytes(4, "headers")?, bytes(5, "payload")?);
    let headers = headers.map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok(OutboxRow {
        at: RowRef(values.try_get(first)?, values.try_get(first + 1)?),
        placed: false,
        time_ms: values
            .try_get::<_, Option<i64>>(first + 2)?
            .map_or(0, i64::unsigned_abs),
        subject: values.try_get::<_, Option<String>>(first + 3)?.unwrap_or_default(),
        headers,
        payload: payload.unwrap_or_default().into(),
        odd,
    })
}

fn columns(rows: &[RowRef]) -> (Vec<i64>, Vec<i64>) {
    rows.iter().map(|row| (row.0, row.1)).unzip()
}
