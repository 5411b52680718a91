//! Outboxes: rows of a table that a service writes in the same transaction as its own data become events of a stream, each exactly
//! once and in the order of their ids. See `decisions/0020-outbox.md`.

mod agree;
mod command;
mod database;
mod error;
mod group;
mod letter;
mod marker;
mod postgres;
mod relay;
mod row;
mod sides;
mod sqlite;
mod state;
mod stream;
mod table;

use std::sync::Arc;
use std::time::Duration;

use crate::broker::shared::Shared;
use crate::broker::{self, Connection};
use crate::plan::{Outbox, Plan};
use crate::process::drain::Drain;
use crate::trouble::Weight;

pub use command::{Skipped, database_fits, init, pause, resume, skip};
pub use database::sql;
pub use error::Error;
pub use letter::{ROW, UID};
pub use state::{OutboxNow, OutboxStanding, OutboxState};
pub use stream::{newest, unfit};
pub use table::{Backlog, COUNT_MAX};

use database::Database;
use group::rows_max;
use relay::OutboxRelay;

/// What is told of an outbox that does not publish.
const STOPPED: &str = "an outbox does not publish; its rows wait";

/// How often an outbox looks whether a person has corrected what stops it. Each look opens a connection to the database.
const STOPPED_LOOK: Duration = Duration::from_secs(5);

/// Relays an outbox until the drain begins.
pub async fn run(
    outbox: Outbox,
    plan: Arc<Plan>,
    host: String,
    connections: Arc<Shared>,
    state: Arc<OutboxState>,
    drain: Drain,
) {
    let limited = keep_limit(&outbox, &state, &drain);
    let relayed = relay(&outbox, (plan, host), &connections, &state, &drain);
    tokio::join!(limited, relayed);
}

/// Enforces the limit of a slot until the drain begins, also while the mesh cannot be reached.
async fn keep_limit(outbox: &Outbox, state: &OutboxState, drain: &Drain) {
    // What is wrong with the address is told of by the relay.
    let Ok(Some(mut limit)) = database::limit(outbox) else {
        return;
    };
    while !drain.has_begun() {
        match limit.enforce().await {
            Ok(None) => {}
            Ok(Some(why)) => {
                tracing::error!(outbox = outbox.name, why, "an outbox has lost its slot");
                state.lost_slot(why);
            }
            Err(error) => {
                let name = &outbox.name;
                trouble!(Weight::Aside, name, error, { outbox = name, %error }, "how much of its log a database keeps is not known");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(relay::IDLE) => {}
            () = drain.begun() => {}
        }
    }
}

async fn relay(
    outbox: &Outbox,
    (plan, host): (Arc<Plan>, String),
    connections: &Shared,
    state: &Arc<OutboxState>,
    drain: &Drain,
) {
    let mut unanswered: Option<Connection> = None;
    while !drain.has_begun() {
        let failed = unanswered.take();
        let connection = tokio::select! {
            connection = connections.connection(failed.as_ref()) => connection,
            () = drain.begun() => return,
        };
        let served = match connection {
            Err(error) => Err(error.into()),
            Ok(connection) => {
                let parts = (outbox.clone(), Arc::clone(&plan), host.clone());
                let served = serve(parts, connection.clone(), state, drain).await;
                if matches!(served, Err(Error::Broker(broker::Error::Timeout { .. }))) {
                    unanswered = Some(connection);
                }
                served
            }
        };
        let Err(error) = served else { return };
        let standing = match error.passes() {
            true => OutboxStanding::Retrying,
            false => OutboxStanding::Stopped,
        };
        state.stands(standing, Some(error.to_string()));
        state.waits(waiting(outbox, &error).await);
        let name = &outbox.name;
        trouble!(Weight::of(error.passes()), name, error, { outbox = name, %error }, "an outbox does not publish; its rows wait");
        let pause = if error.passes() { relay::IDLE } else { STOPPED_LOOK };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = drain.begun() => {}
        }
    }
}

/// What waits while it cannot be published. `None`: the database does not tell.
async fn waiting(outbox: &Outbox, error: &Error) -> Option<Backlog> {
    if let Error::Database { .. } = error {
        return None;
    }
    Database::open(outbox).ok()?.backlog().await.ok()
}

async fn serve(
    (outbox, plan, host): (Outbox, Arc<Plan>, String),
    connection: Connection,
    state: &Arc<OutboxState>,
    drain: &Drain,
) -> Result<(), Error> {
    let database = Database::open(&outbox)?;
    let target = stream::target(&connection, &outbox).await?;
    let mut relay = OutboxRelay {
        rows_max: rows_max(&target.limits),
        plan,
        outbox,
        host,
        state: Arc::clone(state),
        database,
        drain: drain.clone(),
        connection,
        target,
        unswept: 0,
        standby: None,
    };
    relay.serve().await
}
