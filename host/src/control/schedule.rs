//! Steps of schedules, as transactions of the mesh's ledger.

use std::sync::Arc;

use crate::broker::Connections;
use crate::broker::connection::token;
use crate::broker::provision::MESH_BUCKET;
use crate::ledger::Bucket;
use crate::ledger::store::committer;
use crate::mesh_streams::audit::AuditEnd;
use crate::plan::Plan;
use crate::schedule::state::{ActedBy, ScheduleState, ScheduleStep};
use crate::schedule::store::{self, Stepped};

/// As it is recorded.
pub fn recorded(stepped: Option<&Stepped>) -> AuditEnd {
    match stepped {
        Some(Stepped::Taken(step)) => AuditEnd::done(&[("steps", 1), ("emitted", step.events.len() as u64)]),
        Some(Stepped::Nothing) => AuditEnd::done(&[("unchanged", 1)]),
        None => AuditEnd::failed("it is not armed"),
    }
}

/// Takes a step of a schedule. `None`: it is not armed.
pub async fn stepped(
    plan: &Plan,
    name: &str,
    take: impl Fn(&ScheduleState, ActedBy) -> Option<ScheduleStep>,
) -> Result<Option<Stepped>, store::Error> {
    let connections = Arc::new(Connections::new(&plan.nats, "schedule"));
    let by = format!("command-{}", token());
    let bucket = Arc::new(Bucket::new(MESH_BUCKET, &by, connections, usize::MAX));
    bucket.ready().await?;
    if store::read(&bucket, name).await?.is_none() {
        return Ok(None);
    }
    let taken = store::step(&bucket, name, &by, |found, by| take(found?, by));
    tokio::select! {
        stepped = taken => Ok(Some(stepped?)),
        () = committer::run(Arc::clone(&bucket)) => Err(store::Error::Commit { schedule: name.to_owned(), why: "nothing was committed".to_owned() }),
    }
}
