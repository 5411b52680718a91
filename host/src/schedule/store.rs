//! The states of schedules in the mesh's own bucket: reading them, and taking steps by transactions of its ledger.

use super::state::{ActedBy, FORMAT, ScheduleState, ScheduleStep};
use super::transaction::transaction;
use super::{PREFIX, key};
use crate::broker::error::Code;
use crate::broker::kv::{key_subject, kv_stream};
use crate::broker::provision::{DELAYED, MESH_BUCKET};
use crate::broker::{self, Connection};
use crate::event::clock::now_ms;
use crate::event::effects::{State as _, Version};
use crate::ledger::store::keys;
use crate::ledger::{Bucket, CommitError, Committed};
use crate::plan::REDRIVE;

/// How often a step is tried beside other hosts that write the same key.
const TRIES_MAX: u32 = 20;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error("schedule {schedule}: {why}")]
    Commit { schedule: String, why: String },
    #[error(
        "schedule {schedule} was written by a newer jetmesh (format {format}, this one reads {FORMAT}): upgrade this one"
    )]
    Newer { schedule: String, format: u64 },
    #[error(
        "schedule {schedule}: key {} of bucket {MESH_BUCKET} cannot be read: {why}; remove it with `nats kv del {MESH_BUCKET} {}`: \
         a host that starts then arms the schedule again, and what was due meanwhile has no event",
        key(schedule),
        key(schedule)
    )]
    Unreadable { schedule: String, why: String },
}

impl Error {
    /// Whether it may go by itself.
    pub fn passes(&self) -> bool {
        match self {
            Error::Broker(error) => error.passes(),
            Error::Commit { .. } => true,
            Error::Newer { .. } | Error::Unreadable { .. } => false,
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stepped {
    /// It is committed.
    Taken(Box<ScheduleStep>),
    /// There was nothing to do.
    Nothing,
}

/// Takes one step of a schedule, once: reads its state, and commits what follows from it if the state is still the same. `step`
/// is asked again if it is not. `by`: who takes it.
///
/// # Cancel safety
/// Dropped half-way, the step may be taken.
pub async fn step(
    bucket: &Bucket,
    name: &str,
    by: &str,
    step: impl Fn(Option<&ScheduleState>, ActedBy) -> Option<ScheduleStep>,
) -> Result<Stepped, Error> {
    let commit = |why: String| Error::Commit {
        schedule: name.to_owned(),
        why,
    };
    let key = key(name);
    for _ in 0..TRIES_MAX {
        bucket.catch_up().await?;
        let session = bucket.session_number();
        let (value, version) = bucket.get(&key).await.map_err(commit)?;
        let found = value.map(|value| parse(name, &value)).transpose()?;
        let by = ActedBy {
            by: by.to_owned(),
            at: now_ms(),
        };
        let Some(taken) = step(found.as_ref(), by) else {
            // It may rest on what this host has written and not committed yet.
            return match version {
                Version::Stored(_) => Ok(Stepped::Nothing),
                Version::Pending(_) => continue,
            };
        };
        let handler = key.as_str();
        match bucket.commit(transaction(&taken, version, session)).await {
            Ok(Committed::Here { .. }) => {
                bucket.raise_floor(handler, &taken.state.token, taken.state.n);
                return Ok(Stepped::Taken(Box::new(taken)));
            }
            // Another host has taken a step meanwhile.
            Ok(Committed::Before(_)) | Err(CommitError::Conflict) => bucket.doubt(std::iter::once(&key)),
            Err(CommitError::TooLarge(why) | CommitError::Host(why)) => return Err(commit(why)),
        }
    }
    Err(commit("other hosts write it all the time".to_owned()))
}

/// The state of a schedule, if there is one.
pub async fn read(bucket: &Bucket, name: &str) -> Result<Option<ScheduleState>, Error> {
    let (value, _) = bucket.get(&key(name)).await.map_err(|why| Error::Commit {
        schedule: name.to_owned(),
        why,
    })?;
    value.map(|value| parse(name, &value)).transpose()
}

/// The same as the mesh's bucket has it, for those that have no ledger.
pub async fn fetch(connection: &Connection, name: &str) -> Result<Option<ScheduleState>, Error> {
    if connection.stream(&kv_stream(MESH_BUCKET)).await?.is_none() {
        return Ok(None);
    }
    let (_, value) = keys::fetch(connection, MESH_BUCKET, &key(name)).await?;
    value.map(|value| parse(name, &value)).transpose()
}

/// The state of a schedule out of its value.
pub fn parse(name: &str, value: &[u8]) -> Result<ScheduleState, Error> {
    let schedule = || name.to_owned();
    let unreadable = |error: serde_json::Error| Error::Unreadable {
        schedule: schedule(),
        why: error.to_string(),
    };
    let json: serde_json::Value = serde_json::from_slice(value).map_err(unreadable)?;
    let format = json["format"].as_u64().unwrap_or(0);
    if format > u64::from(FORMAT) {
        return Err(Error::Newer {
            schedule: schedule(),
            format,
        });
    }
    serde_json::from_value(json).map_err(unreadable)
}

/// The names of all schedules that the mesh knows, without redrives.
pub async fn names(connection: &Connection) -> Result<Vec<String>, broker::Error> {
    named(connection, PREFIX).await
}

/// The names of the redrives that the mesh knows.
pub async fn redrives(connection: &Connection) -> Result<Vec<String>, broker::Error> {
    let handlers = match named(connection, REDRIVE).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Vec::new(),
        handlers => handlers?,
    };
    Ok(handlers.iter().map(|handler| format!("{REDRIVE}{handler}")).collect())
}

/// What follows a prefix in the keys of the mesh's own bucket.
async fn named(connection: &Connection, prefix: &str) -> Result<Vec<String>, broker::Error> {
    let before = key_subject(MESH_BUCKET, prefix);
    let subjects = connection
        .subjects(&kv_stream(MESH_BUCKET), &format!("{before}>"))
        .await?;
    Ok(subjects
        .iter()
        .filter_map(|s| s.strip_prefix(&before))
        .map(str::to_owned)
        .collect())
}

/// Whether a timer waits for its time, or is due and not taken in yet.
pub async fn has_timer(connection: &Connection, id: &str) -> Result<bool, broker::Error> {
    Ok(!connection.subjects(DELAYED, &format!("$MESH.*.{id}")).await?.is_empty())
}
