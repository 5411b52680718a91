//! Which handlers a person has paused. The server delivers no event to a handler that is paused; this tells the handler tasks,
//! so that replays wait too, and events that are here already.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::broker::connection::redial_delay;
use crate::broker::{Connection, Error};
use crate::event::clock::now_ms;
use crate::handler_task::lane::Lane;
use crate::mesh_streams::pauses::{self, Pauses};
use crate::trouble;
use crate::trouble::Weight;

/// How often a host looks: a pause is obeyed everywhere after this time.
const LOOK: Duration = Duration::from_secs(2);
const UNREAD: &str = "it cannot be read which handlers are paused: what is known of that stays";

/// Looks which handlers are paused, for as long as it is polled. It uses the connection of a thread's handlers, and so runs on
/// that thread.
pub async fn follow(lanes: Vec<Arc<Lane>>) {
    let Some(first) = lanes.first() else { return };
    let (mut attempt, mut unanswered) = (0, None);
    loop {
        let looked = async {
            let connection = first.connections.of_handler(false, unanswered.as_ref()).await?;
            unanswered = Some(connection.clone());
            look(&connection, &lanes).await
        };
        match looked.await {
            Ok(next) => {
                (attempt, unanswered) = (0, None);
                trouble::over(UNREAD, "");
                sleep(next).await;
            }
            Err(error) => {
                tell(&error);
                if !matches!(error, Error::Timeout { .. }) {
                    unanswered = None;
                }
                attempt += 1;
                sleep(redial_delay(attempt)).await;
            }
        }
    }
}

/// Looks once; returns how long until the next look.
async fn look(connection: &Connection, lanes: &[Arc<Lane>]) -> Result<Duration, Error> {
    let now = now_ms();
    let pauses = pauses::load(connection, now).await?;
    take_in(lanes, &pauses);
    let ends = pauses.values().filter_map(|pause| pause.until_ms());
    let next = ends.map(|end| Duration::from_millis(end.saturating_sub(now))).min();
    Ok(next.map_or(LOOK, |next| next.min(LOOK)))
}

/// Tells each handler task whether its handler is paused.
pub fn take_in(lanes: &[Arc<Lane>], pauses: &Pauses) {
    for lane in lanes {
        lane.circuit.set_pause(pauses.get(&lane.plan.name));
    }
}

/// Before the handlers begin. What cannot be read keeps no host from starting: the server still holds the events of a handler
/// that is paused.
pub async fn first(connection: &Connection) -> Result<Pauses, Error> {
    match pauses::load(connection, now_ms()).await {
        Err(error @ Error::Unreadable { .. }) => {
            tell(&error);
            Ok(Pauses::new())
        }
        pauses => pauses,
    }
}

fn tell(error: &Error) {
    if error.passes() {
        return tracing::debug!(%error, "which handlers are paused is not known for a moment");
    }
    trouble!(Weight::Person, "", error, { %error }, "it cannot be read which handlers are paused: what is known of that stays");
}
