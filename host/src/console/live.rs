//! What goes on at this moment: a sample a second of what the hosts report, and the progress of replays that any viewer, or command,
//! makes. It is sent and forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::runs::TOLD;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::Error;
use crate::event::clock::now_ms;
use crate::http::ServerSentEvent;
use crate::micro;

const EVERY: Duration = Duration::from_secs(1);
/// Several pages of one viewer are told the same sample.
const FRESH: Duration = Duration::from_millis(500);

/// The newest sample of a session.
pub type LatestSample = Mutex<Option<(Instant, Arc<Sample>)>>;

/// What the hosts report, of a moment. Counts are since each host has started.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    at: u64,
    hosts: Vec<HostSample>,
    handlers: BTreeMap<String, HandlerSample>,
    /// Why the hosts cannot be asked.
    denied: Option<String>,
}

#[derive(Debug, Serialize)]
struct HostSample {
    id: String,
    version: String,
    started: String,
}

/// A handler, on all hosts together.
#[derive(Debug, Default, Serialize)]
struct HandlerSample {
    /// How many hosts serve it.
    serving: u64,
    done: u64,
    retried: u64,
    dead: u64,
    conflicts: u64,
    in_flight: u64,
    /// Runs by how long they took: the upper bound in microseconds, and how many.
    runs: BTreeMap<u64, u64>,
}

/// A bound above all bounds.
const LONGER: u64 = u64::MAX;

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
    let hosts = micro::hosts(&connection, &session.plan.mesh, "STATS").await;
    let denied = micro::denied(&connection, &session.plan.mesh, "STATS", asked);
    let sample = Arc::new(Sample::of(&hosts, denied));
    *latest = Some((asked, Arc::clone(&sample)));
    Ok(sample)
}

impl Sample {
    fn of(hosts: &[Value], denied: Option<String>) -> Sample {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut handlers: BTreeMap<String, HandlerSample> = BTreeMap::new();
        for endpoint in micro::told::endpoints(hosts) {
            handlers
                .entry(text(&endpoint["name"]))
                .or_default()
                .add(&endpoint["data"]);
        }
        let host = |host: &Value| HostSample {
            id: text(&host["id"]),
            version: text(&host["version"]),
            started: text(&host["started"]),
        };
        Sample {
            at: now_ms(),
            hosts: hosts.iter().map(host).collect(),
            handlers,
            denied,
        }
    }
}

impl HandlerSample {
    fn add(&mut self, data: &Value) {
        let of = |key: &str| data[key].as_u64().unwrap_or(0);
        self.serving += u64::from(data["state"] == "serving");
        self.done += of("done");
        self.retried += of("retried");
        self.dead += of("dead");
        self.conflicts += of("conflicts");
        self.in_flight += of("in_flight");
        for run in data["runs"].as_array().into_iter().flatten() {
            let bound = run["up_to_us"].as_u64().unwrap_or(LONGER);
            *self.runs.entry(bound).or_default() += run["count"].as_u64().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_hosts_report_of_a_handler_is_added_up() {
        let host = |done: u64| {
            let runs = json!([{ "up_to_us": 500, "count": done }, { "up_to_us": null, "count": 1 }]);
            json!({ "id": "h", "version": "1", "started": "", "endpoints": [
                { "name": "points", "data": { "state": "serving", "done": done, "runs": runs } },
            ] })
        };
        let sample = Sample::of(&[host(3), host(4)], None);
        let points = &sample.handlers["points"];
        assert_eq!((points.serving, points.done, sample.hosts.len()), (2, 7, 2));
        assert_eq!(points.runs, BTreeMap::from([(500, 7), (LONGER, 2)]));
    }
}
