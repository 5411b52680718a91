//! How far a run of replays is, told over NATS to those who look on. It is not stored: what has become of the letters is in the letters.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

use super::course::{Counts, Course};
use super::replay::End;
use crate::broker::Connection;
use crate::mesh_streams::audit::AuditEnd;

/// Where it is told: the run's name follows.
pub const TOLD: &str = "$MESH.told.replay";
/// How often.
const EVERY: Duration = Duration::from_millis(500);

/// Why a run has come to its end.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Ended {
    Over,
    TooManyFailures,
    Interrupted,
    Unserved,
    Broken,
}

impl From<&End> for Ended {
    fn from(end: &End) -> Ended {
        match end {
            End::Over => Ended::Over,
            End::TooManyFailures => Ended::TooManyFailures,
            End::Interrupted => Ended::Interrupted,
            End::Unserved(_) => Ended::Unserved,
            End::Broken(_) => Ended::Broken,
        }
    }
}

/// Why a run has come to its end before all is decided.
fn why(end: &End) -> Option<String> {
    match end {
        End::Unserved(handler) => Some(format!("no host serves handler {handler}; what was sent waits for one")),
        End::Broken(error) => Some(error.to_string()),
        End::TooManyFailures => Some("too many failed again".to_owned()),
        End::Interrupted => Some("it was stopped; what was sent continues".to_owned()),
        End::Over => None,
    }
}

/// How a run has ended, as it is recorded.
pub fn recorded(counts: Counts, end: &End) -> AuditEnd {
    let counts = [
        ("succeeded", counts.succeeded),
        ("failed again", counts.failed_in_all()),
        ("undecided", counts.out),
        ("not sent", counts.untried),
        ("resolved otherwise", counts.gone + counts.succeeded_for_others),
    ];
    AuditEnd::done(&counts.map(|(name, count)| (name, count as u64))).but(why(end).as_deref())
}

/// How far a run is, as it is told.
#[derive(Debug, Serialize)]
struct ReplayProgress<'a> {
    run: &'a str,
    by: &'a str,
    what: &'a str,
    /// The command that does the same; null: a command does it.
    command: Option<&'a str>,
    seconds: f64,
    meant: usize,
    succeeded: usize,
    failed: usize,
    /// Sent and not decided.
    undecided: usize,
    not_sent: usize,
    /// Discarded, or replayed by others.
    otherwise: usize,
    end: Option<Ended>,
    /// Why it came to its end.
    why: Option<String>,
}

/// What tells of one run.
pub struct Telling {
    connection: Connection,
    pub run: String,
    /// Who replays.
    pub by: String,
    /// Which letters, in a few words.
    pub what: String,
    command: Option<String>,
    began: Instant,
    now: Mutex<(usize, Counts)>,
}

impl Telling {
    /// `run`: its name.
    pub fn new(connection: &Connection, run: &str, (by, what): (String, String), command: Option<String>) -> Telling {
        Telling {
            connection: connection.clone(),
            run: run.to_owned(),
            by,
            what,
            command,
            began: Instant::now(),
            now: Mutex::default(),
        }
    }

    /// Since it began.
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// The run has come so far.
    pub fn saw(&self, course: &Course) {
        *self.now.lock() = (course.len(), course.counts());
    }

    /// Tells for as long as it is polled.
    pub async fn go_on(&self) {
        loop {
            self.tell(None).await;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Tells that the run is over.
    pub async fn end(&self, course: &Course, end: &End) {
        self.saw(course);
        self.tell(Some(end)).await;
        self.connection.flush("the server").await;
    }

    async fn tell(&self, end: Option<&End>) {
        let (meant, counts) = *self.now.lock();
        let why = end.and_then(why);
        let progress = ReplayProgress {
            run: &self.run,
            by: &self.by,
            what: &self.what,
            command: self.command.as_deref(),
            seconds: self.began.elapsed().as_secs_f64(),
            meant,
            succeeded: counts.succeeded,
            failed: counts.failed_in_all(),
            undecided: counts.out,
            not_sent: counts.untried,
            otherwise: counts.gone + counts.succeeded_for_others,
            end: end.map(Ended::from),
            why,
        };
        if let Ok(body) = serde_json::to_vec(&progress) {
            let subject = format!("{TOLD}.{}", self.run);
            // No one waits for it: who may not tell it replays all the same.
            let _ = self.connection.client.publish(subject, body.into()).await;
        }
    }
}
