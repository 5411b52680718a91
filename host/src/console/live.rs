//! What goes on at this moment: a sample a second of what the hosts report, and the progress of replays that any viewer, or command,
//! makes. It is sent and forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::Error;
use crate::dlq::telling::TOLD;
use crate::http::ServerSentEvent;
use crate::micro;
use crate::report::sample::Sample;

const EVERY: Duration = Duration::from_secs(1);
/// Several pages of one viewer are told the same sample.
const FRESH: Duration = Duration::from_millis(500);

/// The newest sample of a session.
pub type LatestSample = Mutex<Option<(Instant, Arc<Sample>)>>;

/// Longer than what a run tells.
const TOLD_MAX: usize = 16 * 1024;

/// What one page listens to.
struct Listening {
    session: Arc<ViewerSession>,
    ticks: Interval,
    /// Progress of replays. `None`: it is not subscribed, or no longer.
    told: Option<BoxStream<'static, Bytes>>,
}

/// The events of one page, until the session ends.
pub fn stream(session: Arc<ViewerSession>) -> impl Stream<Item = ServerSentEvent> + Send {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listening = Listening {
        session,
        ticks,
        told: None,
    };
    stream::unfold(listening, |mut listening| async move {
        let event = next(&mut listening).await?;
        Some((event, listening))
    })
}

async fn next(listening: &mut Listening) -> Option<ServerSentEvent> {
    loop {
        let told = async {
            match &mut listening.told {
                Some(told) => told.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = listening.ticks.tick() => {}
            told = told => match told {
                Some(body) => match progress(&body) {
                    Some(data) => return Some(ServerSentEvent { name: "progress", data }),
                    None => continue,
                },
                // The connection is gone.
                None => {
                    listening.told = None;
                    continue;
                }
            },
            () = listening.session.ended.wait() => return None,
        }
        let session = &listening.session;
        if listening.told.is_none() {
            listening.told = told_by(session).await.ok();
        }
        return Some(match sample(session).await {
            Ok(sample) => ServerSentEvent {
                name: "sample",
                data: json!(&*sample),
            },
            Err(error) => ServerSentEvent {
                name: "trouble",
                data: json!({ "error": error.told() }),
            },
        });
    }
}

async fn told_by(session: &ViewerSession) -> Result<BoxStream<'static, Bytes>, ConsoleError> {
    let connection = session.connection().await?;
    let told = connection.client.subscribe(format!("{TOLD}.*")).await;
    let told = told.map_err(|_| Error::Gone {
        what: "the progress of replays".to_owned(),
    })?;
    Ok(told.map(|message| message.payload).boxed())
}

/// What a console tells of a replay, which any user with the permission can send.
fn progress(body: &[u8]) -> Option<Value> {
    let data: Value = serde_json::from_slice(body).ok().filter(|_| body.len() <= TOLD_MAX)?;
    data.is_object().then_some(data)
}

async fn sample(session: &ViewerSession) -> Result<Arc<Sample>, ConsoleError> {
    let mut latest = session.latest.lock().await;
    if let Some((at, sample)) = &*latest
        && at.elapsed() < FRESH
    {
        return Ok(Arc::clone(sample));
    }
    let connection = session.connection().await?;
    let asked = Instant::now();
    let sample = Arc::new(Sample::of(micro::hosts(&connection, &session.plan.mesh).await));
    *latest = Some((asked, Arc::clone(&sample)));
    Ok(sample)
}
