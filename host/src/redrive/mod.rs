//! Redrive: dead letters that the mesh replays by itself. A schedule gives an order to the hosts that serve a handler, and one of
//! them makes a round of it, with the means of `dlq replay`. `decisions/0024-redrive.md` says why.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, mpsc, oneshot};

use self::rule::{RedriveTurn, turn};
use crate::broker::connection::token;
use crate::broker::shared::Shared;
use crate::broker::{self, Connection};
use crate::dlq::course::Course;
use crate::dlq::pace::PaceLimits;
use crate::dlq::replay::{self, End};
use crate::dlq::watch::Watch;
use crate::dlq::{Filter, select};
use crate::event::clock::now_ms;
use crate::failpoint::{self, mistake::Mistake};
use crate::handler_task::replay::order::RedriveOrder;
use crate::mesh_streams::replay_queue::{self, REDRIVE};
use crate::plan::{Handler, Plan, Redrive};
use crate::schedule::store;
use crate::trouble::Weight;

pub mod rule;

/// Letters of one round at most; the next one takes the rest.
const LETTERS_MAX: usize = 10_000;
/// Replays that are undecided at a time at most.
const BATCH_MAX: usize = 1000;
/// A round stops when a larger share of its replays has failed; fewer than ten count as ten.
const FAILURES_MAX: f64 = 0.1;
/// How often a round looks whether its redrive was paused.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error(transparent)]
    Schedule(#[from] store::Error),
}

/// Makes the rounds that are ordered, for as long as it is polled.
///
/// # Cancel safety
/// A round that is dropped half-way is ordered again, here or elsewhere. What it has asked for continues.
pub async fn run(plan: Arc<Plan>, orders: Arc<Mutex<mpsc::Receiver<RedriveOrder>>>) {
    let connections = Shared::guarded(&plan.nats, "jetmesh redrive".to_owned());
    let mut orders = orders.lock().await;
    let mut rounds = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(order) = orders.recv() => rounds.push(take(&plan, &connections, order)),
            Some(()) = rounds.next() => {}
            else => return,
        }
    }
}

async fn take(plan: &Plan, connections: &Shared, order: RedriveOrder) {
    let RedriveOrder { handler, mut done } = order;
    let of_plan = plan.handlers.iter().find(|of_plan| of_plan.name == handler);
    let redrive = of_plan.and_then(|handler| Some((handler, handler.redrive.as_ref()?)));
    let made = match redrive {
        // Hosts have different configurations: they are told of that elsewhere.
        None => Ok(()),
        Some(redrive) => round(connections, redrive, &mut done).await,
    };
    match made {
        Ok(()) => {
            failpoint::point("redrive-over");
            // If it has ended meanwhile, the order comes again.
            let _ = done.send(());
        }
        Err(error) => {
            trouble!(Weight::Aside, handler, error, { handler, %error }, "a redrive was broken off and is made again")
        }
    }
}

/// Replays what is due now.
async fn round(
    connections: &Shared,
    (handler, redrive): (&Handler, &Redrive),
    done: &mut oneshot::Sender<()>,
) -> Result<(), Error> {
    let connection = connections.connection(None).await?;
    if !is_on(&connection, handler).await? {
        return Ok(());
    }
    let name = format!("{REDRIVE}{}", token());
    // Before the letters are read, so that nothing that is written to them is missed.
    let watch = Watch::start(&connection, &name).await?;
    let mut course = due(&connection, handler, redrive).await?;
    if course.is_empty() {
        return Ok(());
    }
    failpoint::point("redrive-begun");
    let limits = PaceLimits {
        batch_max: BATCH_MAX,
        per_second: redrive.per_second,
        failures_max: FAILURES_MAX,
    };
    let stop = async {
        tokio::select! {
            () = done.closed() => {}
            () = off(&connection, handler) => {}
        }
    };
    // This host serves it.
    let served = async |_: &str| Ok(true);
    let watched = (name.as_str(), watch);
    let end = replay::run(&connection, watched, &mut course, limits, stop, served, |_, _| {}).await;
    tell(handler, &course, &end);
    match end {
        End::Broken(error) => Err(error.into()),
        End::Over | End::TooManyFailures | End::Interrupted | End::Unserved(_) => Ok(()),
    }
}

/// The letters that are due and do not wait for a host already, those that were written last behind the others.
async fn due(connection: &Connection, handler: &Handler, redrive: &Redrive) -> Result<Course, broker::Error> {
    let waiting: HashSet<String> = replay_queue::waiting(connection, &handler.name).await?;
    let filter = Filter {
        handler: Some(handler.name.clone()),
        ..Filter::default()
    };
    let mut course = match failpoint::planted().is(Mistake::RedriveUnbound) {
        false => Course::bound(),
        true => Course::default(),
    };
    let now = now_ms();
    let unread = select::each(connection, &filter, false, |letter| {
        let is_due = turn(redrive, &letter, now) == RedriveTurn::Due && !waiting.contains(letter.id());
        if is_due && course.len() < LETTERS_MAX {
            course.add(&letter);
        }
    });
    // The status names what cannot be read.
    let _ = unread.await?;
    Ok(course)
}

/// Whether its schedule says that it goes on.
async fn is_on(connection: &Connection, handler: &Handler) -> Result<bool, store::Error> {
    let state = store::fetch(connection, &handler.redrive_name()).await?;
    Ok(state.is_some_and(|state| state.paused.is_none() && state.disarmed.is_none()))
}

/// Completes when it is paused, or no configuration has it any more.
async fn off(connection: &Connection, handler: &Handler) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // What cannot be read now is read soon.
        if matches!(is_on(connection, handler).await, Ok(false)) {
            return;
        }
    }
}

fn tell(handler: &Handler, course: &Course, end: &End) {
    let (handler, counts) = (&handler.name, course.counts());
    let why = match end {
        End::Over => "all are decided",
        End::TooManyFailures => "too many have failed",
        End::Interrupted => "it was paused, or this host ends",
        End::Unserved(_) => "no host serves the handler",
        End::Broken(_) => "it was broken off",
    };
    tracing::info!(
        handler,
        replayed = counts.succeeded + counts.failed,
        failed = counts.failed,
        untried = counts.untried,
        why,
        "redrive"
    );
}
