//! The relays of the ledgers: what publishes their consequences, from the start of a host to its end.

use std::sync::Arc;

use crate::broker::connection::redial_delay;
use crate::broker::provision::MESH_BUCKET;
use crate::broker::shared::Shared;
use crate::broker::{self, Connection};
use crate::handler_task::lane::Lane;
use crate::ledger::relay::RelayState;
use crate::ledger::relay::due::{self, TimerRoutes};
use crate::ledger::{Bucket, relay};
use crate::plan::Plan;
use crate::process::drain::Drain;

/// Starts the relays of the ledgers, if this host has relays.
pub fn start(
    plan: &Arc<Plan>,
    host: &str,
    lanes: &[Arc<Lane>],
    timers: TimerRoutes,
    drain: &Drain,
) -> Vec<Arc<RelayState>> {
    if !plan.relay {
        return Vec::new();
    }
    let mut ledgers: Vec<String> = plan.ledgers().into_iter().map(str::to_owned).collect();
    // A schedule that any host of the mesh has armed may fire here.
    if !ledgers.iter().any(|ledger| ledger == MESH_BUCKET) {
        ledgers.push(MESH_BUCKET.to_owned());
    }
    let connections = Arc::new(relay::RelayConnections::new(&plan.nats, host));
    let ends = Arc::new(Shared::new(&plan.nats, format!("jetmesh relays' end {host}")));
    let mut states = Vec::new();
    for ledger in ledgers {
        let mut own = lanes.iter().filter_map(|lane| lane.bucket.as_ref());
        let own = own.find(|bucket| bucket.name == ledger).cloned();
        let state = Arc::new(RelayState::new(&ledger));
        states.push(Arc::clone(&state));
        let (whole, end) = (Arc::clone(plan), drain.clone());
        let shared = (Arc::clone(&connections), Arc::clone(&ends));
        drain.spawn(format!("relay of {ledger}"), move || {
            relay(
                Arc::clone(&state),
                own.clone(),
                Arc::clone(&whole),
                shared.clone(),
                end.clone(),
            )
        });
    }
    // An event that this host leaves is delivered to another one, and still published once.
    let (whole, relays) = (Arc::clone(plan), states.clone());
    drain.spawn_until("due events", move || {
        due::run(Arc::clone(&whole), timers.clone(), relays.clone())
    });
    states
}

/// Publishes the consequences of a ledger; at the end also those that the handler tasks of this host decided last. All relays
/// share two connections: one for publishing, and one for asking whether everything is published.
async fn relay(
    state: Arc<RelayState>,
    bucket: Option<Arc<Bucket>>,
    plan: Arc<Plan>,
    (connections, ends): (Arc<relay::RelayConnections>, Arc<Shared>),
    drain: Drain,
) {
    // A connection over which requests were not answered any more.
    let mut unanswered = None;
    tokio::select! {
        () = relay::run(Arc::clone(&state), bucket, Arc::clone(&plan), connections) => {}
        () = async {
            drain.lanes_ended().await;
            while let Err(error) = caught_up(&state, &ends, &mut unanswered).await {
                let unreachable = matches!(
                    error,
                    broker::Error::Connect { .. } | broker::Error::Crowded { .. } | broker::Error::NoApi { .. }
                );
                if !error.passes() || unreachable {
                    tracing::warn!(ledger = state.ledger(), %error, "the consequences of the last decisions are \
                                                                     published when a host runs again");
                    break;
                }
                tokio::time::sleep(redial_delay(0)).await;
            }
        } => {}
    }
}

async fn caught_up(
    state: &RelayState,
    ends: &Shared,
    unanswered: &mut Option<Connection>,
) -> Result<(), broker::Error> {
    let connection = ends.connection(unanswered.take().as_ref()).await?;
    let caught_up = relay::caught_up(state, &connection).await;
    if matches!(caught_up, Err(broker::Error::Timeout { .. })) {
        *unanswered = Some(connection);
    }
    caught_up
}
