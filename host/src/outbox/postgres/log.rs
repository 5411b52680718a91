//! An outbox that is read from the log of a PostgreSQL (0022). The database has no table of rows, only the position, which travels with
//! each copy of the database: its place in the log is true for the history of that copy.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};

use super::fit;
use super::log_buffer::{LogBuffer, LogPlace};
use super::replication::Replication;
use super::session::{Failed, Session, Sessions};
use super::slot::{SlotLook, look_at, plain, slot_name, without_slot};
use super::wire::{Wire, WireRefusal};
use super::{position, position_row, position_table};
use crate::outbox::error::Error;
use crate::outbox::marker::{LogPoint, RowRef};
use crate::outbox::row::OutboxRow;
use crate::outbox::table::{Backlog, LogBacklog, TableMoment, TablePosition, number};
use crate::plan::{Outbox, Postgres, lsn, lsn_text};

/// How long to wait for the rest of a transaction, and for the log that was there when the connection was made.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rows behind which nothing is looked for that lies in the stream: what is published is the beginning of a log.
const PUBLISHED_BEFORE: usize = 100_000;

pub struct PostgresLog {
    outbox: String,
    table: String,
    slot: String,
    publication: String,
    sql: [String; 2],
    sessions: Sessions,
    opened: Mutex<Option<Session>>,
    reading: Mutex<Option<LogReading>>,
    changed: Arc<Notify>,
}

/// The log as it is read, since the slot was free for it.
struct LogReading {
    replication: Replication,
    buffer: LogBuffer,
    position: TablePosition,
}

/// How the publication of an outbox is called in its database.
fn publication(outbox: &str) -> String {
    format!("jetmesh_{}", plain(outbox))
}

/// What makes the position and the publication, and then the slot: it must be made before its transaction writes.
pub fn sql(outbox: &Outbox, address: &Postgres) -> [String; 2] {
    let (table, slot, publication) = (&outbox.table, slot_name(outbox, address), publication(&outbox.name));
    let first = format!(
        "{position}ALTER TABLE {table}_position
  ADD COLUMN IF NOT EXISTS lsn pg_lsn NOT NULL DEFAULT '0/0',
  ADD COLUMN IF NOT EXISTS settled bigint NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS system text NOT NULL DEFAULT '';
{name}DO $$ BEGIN CREATE PUBLICATION {publication} WITH (publish = 'insert'); EXCEPTION WHEN duplicate_object THEN END $$;
",
        position = position_table(table),
        name = position_row(table)
    );
    let second = format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')
  WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}');
"
    );
    [first, second]
}

impl PostgresLog {
    pub fn new(outbox: &Outbox, address: &Postgres) -> Result<PostgresLog, Error> {
        let changed = Arc::new(Notify::new());
        Ok(PostgresLog {
            outbox: outbox.name.clone(),
            table: outbox.table.clone(),
            slot: slot_name(outbox, address),
            publication: publication(&outbox.name),
            sql: sql(outbox, address),
            sessions: Sessions::new(outbox, address, None, Arc::clone(&changed))?,
            opened: Mutex::new(None),
            reading: Mutex::new(None),
            changed,
        })
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Makes what the log needs.
    pub async fn init(&self) -> Result<(), Error> {
        for sql in &self.sql {
            self.run(async |session| session.script(sql).await).await?;
        }
        Ok(())
    }

    /// Whether position, slot and publication are there, with the rights that publishing needs.
    pub async fn fits(&self) -> Result<(), Error> {
        self.position().await?;
        let rights = [(format!("{}_position", self.table), "UPDATE")];
        let lacking = self.run(async |session| fit::lacking(session, &rights).await).await?;
        fit::without_rights(&self.sessions, &lacking)?;
        self.backlog().await?;
        let publication = &self.publication;
        let there = self.run(async |session| fit::has_publication(session, publication).await);
        if !there.await? {
            return Err(self.no_publication(&format!("there is no publication {publication}")));
        }
        // Only this shows whether the role may read the log.
        let asked = async {
            let mut wire = Wire::open(self.sessions.config(), self.sessions.encryption()).await?;
            wire.ask("IDENTIFY_SYSTEM").await
        };
        let asked = timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(WireRefusal::unanswered()));
        asked.map(|_| ()).map_err(|refused| self.refused(&refused))
    }

    pub async fn position(&self) -> Result<TablePosition, Error> {
        let (found, _, _) = self.stored().await?;
        let mut reading = self.reading.lock().await;
        if reading.as_ref().is_some_and(|reading| reading.position != found) {
            // Another host has read on from here.
            *reading = None;
        }
        Ok(found)
    }

    /// The position as it is stored, with its place in the log and the cluster to which that belongs.
    async fn stored(&self) -> Result<(TablePosition, LogPlace, String), Error> {
        let sql = format!(
            "SELECT database, batch, sequence, created, lsn::text, settled, system FROM {}_position WHERE one = 1",
            self.table
        );
        self.run(async |session| {
            let found = session.query(&sql, &[]).await?;
            let values = found.first().ok_or(Failed::NoPosition)?;
            let place = LogPlace {
                lsn: lsn(values.try_get(4)?).unwrap_or(0),
                settled: values.try_get::<_, i64>(5)?.unsigned_abs(),
            };
            Ok((position(values)?, place, values.try_get(6)?))
        })
        .await
    }

    pub async fn look(&self, rows_max: usize, bytes_max: usize) -> Result<TableMoment, Error> {
        let mut held = self.reading.lock().await;
        let mut reading = self.taken(held.take()).await?;
        reading
            .fill(rows_max, bytes_max)
            .await
            .map_err(|refused| self.refused(&refused))?;
        let moment = TableMoment {
            position: reading.position.clone(),
            rows: reading.buffer.first(rows_max, bytes_max),
            whole: reading.buffer.has_read(reading.replication.end),
            point: Some(reading.point()),
        };
        *held = Some(reading);
        Ok(moment)
    }

    pub async fn find(&self, at: RowRef) -> Result<Option<OutboxRow>, Error> {
        let mut held = self.reading.lock().await;
        let mut reading = self.taken(held.take()).await?;
        let found = |buffer: &LogBuffer| buffer.find(at).is_some();
        self.drain(&mut reading, found).await?;
        let row = reading.buffer.find(at).cloned();
        *held = Some(reading);
        Ok(row)
    }

    /// Takes rows for settled that lie in the stream; returns those that the log does not have.
    pub async fn missing(&self, rows: Vec<RowRef>) -> Result<Vec<RowRef>, Error> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let mut held = self.reading.lock().await;
        let mut reading = self.taken(held.take()).await?;
        reading.buffer.publish(rows);
        self.drain(&mut reading, |buffer| buffer.unheard() == 0).await?;
        let missing = reading.buffer.give_up();
        *held = Some(reading);
        Ok(missing)
    }

    pub async fn confirm(&self, from: &TablePosition, to: &TablePosition, rows: &[RowRef]) -> Result<bool, Error> {
        let mut held = self.reading.lock().await;
        // On any other end than the good one it is read again from where the database says.
        let mut reading = self.taken(held.take()).await?;
        reading.buffer.settle(rows);
        let place = reading.buffer.place();
        let sql = format!(
            "UPDATE {}_position SET batch = $1, sequence = $2, created = $3, lsn = $4::text::pg_lsn, settled = $5, system = $6
             WHERE one = 1 AND database = $7 AND batch = $8 AND sequence = $9 RETURNING 1",
            self.table
        );
        let (batch, sequence) = (number(to.batch), number(to.sequence));
        let (batch_before, before) = (number(from.batch), number(from.sequence));
        let (at, settled) = (lsn_text(place.lsn), number(place.settled));
        let values: [(&(dyn ToSql + Sync), Type); 9] = [
            (&batch, Type::INT8),
            (&sequence, Type::INT8),
            (&to.created, Type::TEXT),
            (&at, Type::TEXT),
            (&settled, Type::INT8),
            (&reading.replication.system, Type::TEXT),
            (&from.database, Type::TEXT),
            (&batch_before, Type::INT8),
            (&before, Type::INT8),
        ];
        let moved = self.run(async |session| Ok(session.query(&sql, &values).await?.len() == 1));
        if !moved.await? {
            return Ok(false);
        }
        reading.position = to.clone();
        reading.replication.settle(place.lsn);
        *held = Some(reading);
        Ok(true)
    }

    pub async fn backlog(&self) -> Result<Backlog, Error> {
        let slot = &self.slot;
        let look = self.run(async |session| look_at(session, slot).await).await?;
        let Some(SlotLook {
            held,
            from,
            behind,
            lost,
            ..
        }) = look
        else {
            return Err(self.no_slot("there is no slot"));
        };
        if lost {
            return Err(self.no_slot(
                "the server has removed a part of the log that the slot needs (max_slot_wal_keep_size): slot",
            ));
        }
        let reading = self.reading.lock().await;
        let buffer = reading.as_ref().map(|reading| &reading.buffer);
        Ok(Backlog {
            rows: buffer.map(|buffer| buffer.count() as u64),
            oldest_ms: buffer.and_then(LogBuffer::oldest_ms),
            log: Some(LogBacklog { held, from, behind }),
        })
    }

    /// The log as it is read, from where the database says that it is settled.
    async fn taken(&self, reading: Option<LogReading>) -> Result<LogReading, Error> {
        if let Some(reading) = reading {
            return Ok(reading);
        }
        let begun = async {
            let wire = Wire::open(self.sessions.config(), self.sessions.encryption()).await?;
            let names = (self.outbox.as_str(), self.slot.as_str(), self.publication.as_str());
            Replication::begin(wire, names, Arc::clone(&self.changed)).await
        };
        let begun = timeout(PATIENCE, begun)
            .await
            .unwrap_or_else(|_| Err(WireRefusal::unanswered()));
        let replication = begun.map_err(|refused| self.refused(&refused))?;
        // Only this host moves the position from here on: the slot is its own.
        let (position, mut place, system) = self.stored().await?;
        if system != replication.system {
            // The place is one in the log of another cluster, from which this one was restored.
            place = LogPlace::default();
        }
        if place.lsn > replication.end {
            return Err(Error::Person(format!(
                "database {} has lost the end of its log: it ends at {}, and outbox {} is published up to {}; restore the database from \
                 a backup, or give the outbox another name",
                self.sessions.told(),
                lsn_text(replication.end),
                self.outbox,
                lsn_text(place.lsn)
            )));
        }
        Ok(LogReading {
            replication,
            buffer: LogBuffer::new(place),
            position,
        })
    }

    /// Reads until what is looked for is found, or all is read that was in the log when the connection was made.
    async fn drain(&self, reading: &mut LogReading, found: impl Fn(&LogBuffer) -> bool) -> Result<(), Error> {
        while !found(&reading.buffer)
            && !reading.buffer.has_read(reading.replication.end)
            && reading.buffer.count() < PUBLISHED_BEFORE
        {
            reading.hear().await.map_err(|refused| self.refused(&refused))?;
        }
        Ok(())
    }

    /// A step on the connection for statements.
    async fn run<T>(&self, step: impl AsyncFnOnce(&Session) -> Result<T, Failed>) -> Result<T, Error> {
        self.sessions.run(&self.opened, step).await
    }

    /// What a person is told of the log.
    fn refused(&self, refused: &WireRefusal) -> Error {
        let told = self.sessions.told();
        let person = |fix: &str| Error::Person(format!("database {told}: {}: {fix}", refused.text));
        match refused.code.as_str() {
            // The object is in use.
            "55006" if refused.text.contains("is active") => Error::Busy,
            "42704" if refused.text.contains("replication slot") => self.no_slot("there is no slot"),
            "42704" => self.no_publication(&refused.text),
            "55000" if refused.text.contains("wal_level") => {
                person("set `wal_level = logical` in the configuration of PostgreSQL, and start it again")
            }
            "55000" => self.no_slot(&refused.text),
            "42501" | "28000" => {
                person("`ALTER ROLE … REPLICATION` for the role of the host, and a line for it in pg_hba.conf")
            }
            _ => self.sessions.passing(refused.text.clone()),
        }
    }

    fn no_publication(&self, why: &str) -> Error {
        let (told, made) = (self.sessions.told(), self.sessions.made_by_the_owner());
        Error::Person(format!(
            "database {told}: {why}: {made} makes it. PostgreSQL cannot read with it what was committed before it was made: if this \
             error stays, the slot is lost. Drop it with `SELECT pg_drop_replication_slot('{}')`, and do what docs/outbox.md says, \
             \"A lost slot\"",
            self.slot
        ))
    }

    fn no_slot(&self, why: &str) -> Error {
        let why = format!("{why} {}", self.slot);
        without_slot(&self.sessions, &why)
    }
}

impl LogReading {
    /// Takes what was heard until it is more than fits into a batch, and waits for the rest of a transaction.
    async fn fill(&mut self, rows_max: usize, bytes_max: usize) -> Result<(), WireRefusal> {
        while !self.buffer.is_full(rows_max, bytes_max) {
            match self.replication.try_hear()? {
                Some(heard) => self.buffer.hear(heard),
                None if self.buffer.is_open() => self.hear().await?,
                None => break,
            }
        }
        if self.buffer.count() == 0 && !self.buffer.is_open() {
            self.replication.settle(self.buffer.place().lsn);
        }
        Ok(())
    }

    async fn hear(&mut self) -> Result<(), WireRefusal> {
        let heard = timeout(PATIENCE, self.replication.hear()).await;
        self.buffer
            .hear(heard.unwrap_or_else(|_| Err(WireRefusal::unanswered()))?);
        Ok(())
    }

    fn point(&self) -> LogPoint {
        LogPoint {
            system: self.replication.system.clone(),
            timeline: self.replication.timeline.clone(),
            lsn: lsn_text(self.buffer.place().lsn),
        }
    }
}
