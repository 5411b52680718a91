//! How an outbox stands: what its hosts tell, and what its stream holds.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::broker::Connection;
use crate::cli::table;
use crate::cli::text::in_time;
use crate::event::clock::now_ms;
use crate::event::{parse_rfc3339, rfc3339};
use crate::outbox::{self, COUNT_MAX};
use crate::plan::Outbox;

/// An outbox.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "A line of `jetmesh outbox status --json`", description = "")]
pub struct OutboxStatus {
    pub outbox: String,
    /// The stream that it publishes into.
    pub stream: String,
    /// Of the hosts that answer, the best: one that publishes is enough.
    pub state: OutboxWord,
    /// Since when it stands so.
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
    /// Why it does not publish.
    pub why: Option<String>,
    /// Rows in the table that are not published, 100001 for more than 100000; of a log, those that the host has read. null: no host
    /// knows.
    pub waiting: Option<u64>,
    /// When the oldest of them was written.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// Bytes of its log that PostgreSQL keeps for the outbox; null: the outbox is not of a log, or no host knows.
    pub wal_bytes: Option<u64>,
    /// Bytes of this log that are not settled.
    pub lag_bytes: Option<u64>,
    /// The number of the newest batch in the stream; null: there is none.
    pub batch: Option<u64>,
    /// When it was stored.
    #[schemars(extend("format" = "date-time"))]
    pub published_at: Option<String>,
    /// What a host found when the database or the stream was an older copy; null: neither was.
    pub restored: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutboxWord {
    Publishing,
    /// Its hosts wait for another one that publishes.
    Standby,
    Paused,
    Starting,
    Stopped,
    /// No host that answers relays it.
    Unserved,
}

impl OutboxStatus {
    /// A person's pause is as it should be.
    pub fn serves(&self) -> bool {
        match self.state {
            OutboxWord::Publishing | OutboxWord::Standby | OutboxWord::Paused => true,
            OutboxWord::Starting | OutboxWord::Stopped | OutboxWord::Unserved => false,
        }
    }
}

const WORDS: [(&str, OutboxWord); 5] = [
    ("publishing", OutboxWord::Publishing),
    ("standby", OutboxWord::Standby),
    ("paused", OutboxWord::Paused),
    ("starting", OutboxWord::Starting),
    ("stopped", OutboxWord::Stopped),
];

/// One outbox. `hosts`: what they answer.
pub async fn stand(connection: &Connection, outbox: &Outbox, hosts: &[Value]) -> OutboxStatus {
    let told = hosts.iter().filter_map(|host| host["outboxes"].as_array()).flatten();
    let told: Vec<&Value> = told.filter(|one| one["outbox"] == outbox.name.as_str()).collect();
    let best = WORDS.iter().find_map(|(word, state)| {
        let host = told.iter().find(|one| one["state"] == *word)?;
        Some((*state, *host))
    });
    let of = |key: &str| best.and_then(|(_, host)| host[key].as_str()).map(str::to_owned);
    let most = |key: &str| told.iter().filter_map(|one| one[key].as_u64()).max();
    let (marked, unread) = match outbox::newest(connection, outbox).await {
        Ok(marked) => (marked, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let nowhere = || Some("no host that answers relays it".to_owned());
    let pause = marked.as_ref().and_then(|marked| marked.marker.paused.as_ref());
    let (state, since, why) = match (pause, best) {
        (Some(pause), _) => {
            let (since, why) = (pause.since.clone(), pause.reason.clone());
            (OutboxWord::Paused, Some(since), Some(why))
        }
        (None, Some((state, _))) => (state, of("since"), of("why").or(unread)),
        (None, None) => (OutboxWord::Unserved, None, unread.or_else(nowhere)),
    };
    OutboxStatus {
        outbox: outbox.name.clone(),
        stream: outbox.stream.clone(),
        state,
        since,
        why,
        waiting: told.iter().find_map(|one| one["waiting"].as_u64()),
        oldest: of("oldest"),
        wal_bytes: most("wal_bytes"),
        lag_bytes: most("lag_bytes"),
        batch: marked.as_ref().map(|marked| marked.marker.batch),
        published_at: marked.as_ref().map(|marked| rfc3339(marked.time_ms)),
        restored: told.iter().find_map(|one| one["restored"].as_str()).map(str::to_owned),
    }
}

/// A table of outboxes, and a line for each thing that a person should know. Nothing without outboxes.
pub fn print(outboxes: &[OutboxStatus]) {
    if outboxes.is_empty() {
        return;
    }
    let time = |at: &Option<String>| at.as_deref().and_then(parse_rfc3339);
    let now = now_ms();
    let row = |one: &OutboxStatus| {
        let waiting = match one.waiting {
            None => "-".to_owned(),
            Some(waiting) if waiting > COUNT_MAX => format!(">{COUNT_MAX}"),
            Some(waiting) => waiting.to_string(),
        };
        let lag = time(&one.oldest).map_or(0, |at| now.saturating_sub(at) / 1000);
        let last = time(&one.published_at).map_or_else(|| "-".to_owned(), |at| in_time(at, now));
        vec![
            one.outbox.clone(),
            word(one.state).to_owned(),
            waiting,
            format!("{lag} s"),
            last,
            one.stream.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = outboxes.iter().map(row).collect();
    table::print(&["OUTBOX", "STATE", "WAITING", "LAG", "LAST BATCH", "STREAM"], &rows);
    for one in outboxes {
        let since = time(&one.since).map_or_else(String::new, |at| format!(" (since {})", in_time(at, now)));
        if let Some(why) = &one.why {
            println!("outbox {} is {}{since}: {why}", one.outbox, word(one.state));
        }
        if let (Some(held), Some(behind)) = (one.wal_bytes, one.lag_bytes) {
            println!(
                "outbox {}: PostgreSQL keeps {held} bytes of its log for it; the last {behind} bytes are not settled",
                one.outbox
            );
        }
        if let Some(restored) = &one.restored {
            println!("outbox {}: {restored}", one.outbox);
        }
    }
}

fn word(state: OutboxWord) -> &'static str {
    let known = WORDS.iter().find(|(_, known)| *known == state);
    known.map_or("unserved", |(word, _)| word)
}
