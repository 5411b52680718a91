//! What a person does with an outbox: its tables are made, it is paused and resumed, a row is made a dead letter. Each but the
//! first writes a marker, so no relay publishes past it without having seen it.

use super::agree::Agreement;
use super::database::Database;
use super::error::Error;
use super::letter;
use super::marker::{DeadRow, Marker, Pause, SkippedRow};
use super::relay::marker_message;
use super::row::OutboxRow;
use super::sides::Sides;
use super::stream::{self, BatchRefusal, Marked, refusal};
use crate::broker::Connection;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::mesh_streams::audit::AuditEnd;
use crate::plan::{Outbox, OutboxSource, Plan, lsn_text};

/// How often a command tries while relays publish.
const TRIES: u32 = 20;

/// Makes the tables of an outbox, and the file if it is not there.
pub async fn init(outbox: &Outbox) -> Result<(), Error> {
    Database::open(outbox)?.init().await
}

/// Whether the database can be read, and has the tables.
pub async fn database_fits(outbox: &Outbox) -> Result<(), Error> {
    Database::open(outbox)?.fits().await
}

/// From now on nothing is published, on no host. `false`: it is paused already.
pub async fn pause(connection: &Connection, outbox: &Outbox, host: &str, reason: &str) -> Result<bool, Error> {
    let paused = Pause {
        reason: reason.to_owned(),
        since: rfc3339(now_ms()),
    };
    mark(connection, outbox, host, |marker, _| {
        let before = marker.paused.replace(paused.clone());
        before.is_none()
    })
    .await
}

/// Publishes again. `false`: it is not paused. `new_database`: the stream follows the database of this configuration from now on.
pub async fn resume(connection: &Connection, outbox: &Outbox, host: &str, new_database: bool) -> Result<bool, Error> {
    let database = match new_database {
        true => Some(Database::open(outbox)?.position().await?),
        false => None,
    };
    mark(connection, outbox, host, |marker, sequence| {
        let other = database.as_ref().filter(|other| other.database != marker.database);
        if let Some(other) = other {
            *marker = Marker {
                database: other.database.clone(),
                batch: other.batch,
                since: sequence,
                paused: marker.paused.take(),
                ..Marker::default()
            };
        }
        marker.paused.take().is_some() || other.is_some()
    })
    .await
}

/// Writes a marker that says what the newest one says, but for a change, which is told the sequence of that one. `false`: there is
/// nothing to change.
async fn mark(
    connection: &Connection,
    outbox: &Outbox,
    host: &str,
    change: impl Fn(&mut Marker, u64) -> bool,
) -> Result<bool, Error> {
    stream::target(connection, outbox).await?;
    for _ in 0..TRIES {
        let newest = stream::newest(connection, outbox).await?;
        let (mut marker, follows) = match newest {
            Some(Marked { marker, sequence, .. }) => (marker, sequence),
            None => (Marker::default(), 0),
        };
        if !change(&mut marker, follows) {
            return Ok(false);
        }
        host.clone_into(&mut marker.host);
        if written(connection, outbox, &marker, follows).await?.is_some() {
            return Ok(true);
        }
    }
    Err(Error::Moved)
}

/// Writes a marker; its sequence. `None`: another one was faster.
async fn written(
    connection: &Connection,
    outbox: &Outbox,
    marker: &Marker,
    follows: u64,
) -> Result<Option<u64>, Error> {
    let message = marker_message(outbox, marker, follows);
    let sent = connection.publish_batch(vec![message]).await;
    match sent.map_err(|error| refusal(outbox, error)) {
        Ok(ack) => Ok(Some(ack.seq)),
        Err(BatchRefusal::Fenced) => Ok(None),
        Err(BatchRefusal::Broken(error)) => Err(error),
        Err(BatchRefusal::Event(why)) => Err(Error::Person(format!("the marker is refused: {why}"))),
        Err(BatchRefusal::Known) => Err(Error::Person("the marker is refused as a duplicate".to_owned())),
    }
}

/// What became of a row that is skipped.
#[derive(Debug)]
pub enum Skipped {
    /// It is a dead letter.
    Dead,
    /// It becomes one when it is read from the log.
    Noted,
    /// It is not in the table.
    Gone,
}

impl Skipped {
    /// As it is recorded.
    pub fn recorded(&self) -> AuditEnd {
        match self {
            Skipped::Dead | Skipped::Noted => AuditEnd::done(&[("skipped", 1)]),
            Skipped::Gone => AuditEnd::failed("there is no such row"),
        }
    }
}

/// Makes a row a dead letter, whatever it is.
pub async fn skip(
    connection: &Connection,
    plan: &Plan,
    outbox: &Outbox,
    (host, id, reason): (&str, i64, &str),
) -> Result<Skipped, Error> {
    if let OutboxSource::Log { .. } = outbox.source {
        return note(connection, outbox, (host, id, reason)).await;
    }
    let target = stream::target(connection, outbox).await?;
    let database = Database::open(outbox)?;
    let sides = Sides {
        plan,
        outbox,
        connection,
        database: &database,
        target: &target,
    };
    for _ in 0..TRIES {
        let standing = match sides.agreed().await? {
            Ok(standing) => standing,
            Err((position, marked)) => match sides.agree(position, marked).await {
                Ok(standing) => standing,
                Err(Error::Moved) => continue,
                Err(error) => return Err(error),
            },
        };
        let Some(row) = database.of_id(id).await? else {
            return Ok(Skipped::Gone);
        };
        if dead_letter(&sides, &standing, host, (&row, reason)).await? {
            return Ok(Skipped::Dead);
        }
    }
    Err(Error::Moved)
}

/// Notes a message of a log, which only the host reads that has its slot.
async fn note(
    connection: &Connection,
    outbox: &Outbox,
    (host, id, reason): (&str, i64, &str),
) -> Result<Skipped, Error> {
    if let Some(log) = Database::open(outbox)?.backlog().await?.log {
        let (place, name) = (id.cast_unsigned(), outbox.row_name(id));
        if place < log.from {
            return Err(Error::Person(format!(
                "{name} is settled: outbox {} reads the log from {} on",
                outbox.name,
                lsn_text(log.from)
            )));
        }
        if place > log.from + log.held {
            return Err(Error::Person(format!(
                "there is nothing at {name}: the log of the database ends at {}",
                lsn_text(log.from + log.held)
            )));
        }
    }
    mark(connection, outbox, host, |marker, _| {
        let known = marker.skip.iter().any(|one| one.id == id);
        if !known {
            let why = reason.to_owned();
            marker.skip.push(SkippedRow { id, why });
        }
        !known
    })
    .await?;
    Ok(Skipped::Noted)
}

async fn dead_letter(
    sides: &Sides<'_>,
    standing: &Agreement,
    host: &str,
    (row, why): (&OutboxRow, &str),
) -> Result<bool, Error> {
    let dead = DeadRow::new(row.at, why);
    let marker = Marker {
        dead: vec![dead.clone()],
        batch: standing.next_batch(true),
        ..standing.next_marker(host)
    };
    let Some(sequence) = written(sides.connection, sides.outbox, &marker, standing.marker).await? else {
        return Ok(false);
    };
    letter::store(sides, &standing.position.database, row, &dead.why).await?;
    let to = standing.next_position((marker.batch, sequence), &sides.target.created);
    // If it has moved, a relay that has seen the marker has deleted the row.
    sides.database.confirm(&standing.position, &to, vec![row.at]).await?;
    Ok(true)
}
