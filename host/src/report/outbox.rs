//! How an outbox stands: what its hosts tell, and what its stream holds.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::broker::Connection;
use crate::event::rfc3339;
use crate::outbox;
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
    /// Hosts on which it is stopped or retrying, although another one serves it.
    pub stopped: Vec<OutboxStopped>,
}

/// An outbox that one host cannot publish.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OutboxStopped {
    pub host: String,
    /// `stopped`, or `retrying` if the host tries again by itself.
    pub state: String,
    pub why: Option<String>,
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutboxWord {
    Publishing,
    /// Its hosts wait for another one that publishes.
    Standby,
    Paused,
    Starting,
    /// Something keeps it from publishing, and its hosts try again by themselves.
    Retrying,
    /// A person must act.
    Stopped,
    /// No host that answers relays it.
    Unserved,
    /// It is not known whether a host relays it.
    Unknown,
}

impl OutboxStatus {
    /// A person's pause is as it should be. A host on which it is stopped could not take over.
    pub fn serves(&self) -> bool {
        match self.state {
            OutboxWord::Publishing | OutboxWord::Standby | OutboxWord::Paused => self.stopped.is_empty(),
            OutboxWord::Starting | OutboxWord::Retrying | OutboxWord::Stopped => false,
            OutboxWord::Unserved | OutboxWord::Unknown => false,
        }
    }
}

/// What hosts tell, the best first.
const WORDS: [(&str, OutboxWord); 6] = [
    ("publishing", OutboxWord::Publishing),
    ("standby", OutboxWord::Standby),
    ("paused", OutboxWord::Paused),
    ("starting", OutboxWord::Starting),
    ("retrying", OutboxWord::Retrying),
    ("stopped", OutboxWord::Stopped),
];

/// One outbox. `hosts`: what they answer; `None`: not known.
pub async fn stand(connection: &Connection, outbox: &Outbox, hosts: Option<&[Value]>) -> OutboxStatus {
    let (marked, unread) = match outbox::newest(connection, outbox).await {
        Ok(marked) => (marked, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let pause = marked.as_ref().and_then(|marked| marked.marker.paused.as_ref());
    let pause = pause.map(|pause| (pause.since.as_str(), pause.reason.as_str()));
    let own = of_hosts(&outbox.name, hosts.unwrap_or_default());
    let mut whole = whole(&own, pause, unread.clone());
    if hosts.is_none() && whole.state == OutboxWord::Unserved {
        whole.state = OutboxWord::Unknown;
        whole.why = unread.or_else(|| Some("it is not known which hosts there are".to_owned()));
    }
    let told = || whole.best.into_iter().chain(own.iter().map(|(_, told)| *told));
    let most = |key: &str| told().filter_map(|one| one[key].as_u64()).max();
    let first = |key: &str| told().find_map(|one| one[key].as_str()).map(str::to_owned);
    OutboxStatus {
        outbox: outbox.name.clone(),
        stream: outbox.stream.clone(),
        waiting: told().find_map(|one| one["waiting"].as_u64()),
        oldest: whole.best.and_then(|host| text(&host["oldest"])),
        wal_bytes: most("wal_bytes"),
        lag_bytes: most("lag_bytes"),
        batch: marked.as_ref().map(|marked| marked.marker.batch),
        published_at: marked.as_ref().map(|marked| rfc3339(marked.time_ms)),
        restored: first("restored"),
        state: whole.state,
        since: whole.since,
        why: whole.why,
        stopped: whole.stopped,
    }
}

/// The hosts that relay an outbox, and what they tell of it.
fn of_hosts<'a>(outbox: &str, hosts: &'a [Value]) -> Vec<(&'a str, &'a Value)> {
    let own = |host: &'a Value| {
        let mut all = host["outboxes"].as_array()?.iter();
        Some((
            host["id"].as_str().unwrap_or_default(),
            all.find(|one| one["outbox"] == outbox)?,
        ))
    };
    hosts.iter().filter_map(own).collect()
}

/// How an outbox stands as a whole.
struct WholeOutbox<'a> {
    state: OutboxWord,
    since: Option<String>,
    why: Option<String>,
    stopped: Vec<OutboxStopped>,
    /// What the host tells that serves it best.
    best: Option<&'a Value>,
}

/// `pause`: since when and why a person has paused it. `unread`: why that is not known.
fn whole<'a>(hosts: &[(&'a str, &'a Value)], pause: Option<(&str, &str)>, unread: Option<String>) -> WholeOutbox<'a> {
    let best = WORDS.iter().find_map(|(word, state)| {
        let (_, told) = hosts.iter().find(|(_, told)| told["state"] == *word)?;
        Some((*state, *told))
    });
    let of = |key: &str| best.and_then(|(_, host)| text(&host[key]));
    let kept = [OutboxWord::Retrying, OutboxWord::Stopped];
    let (state, since, why) = match (pause, best) {
        // It could not go on when it is resumed.
        (Some((_, reason)), Some((state, _))) if kept.contains(&state) => {
            let why = of("why").unwrap_or_default();
            (state, of("since"), Some(format!("{why}; and it is paused: {reason}")))
        }
        (Some((since, reason)), _) => (OutboxWord::Paused, Some(since.to_owned()), Some(reason.to_owned())),
        (None, Some((state, _))) => (state, of("since"), of("why").or(unread)),
        (None, None) => {
            let nowhere = || Some("no host that answers relays it".to_owned());
            (OutboxWord::Unserved, None, unread.or_else(nowhere))
        }
    };
    let stopped = hosts
        .iter()
        .filter(|(_, told)| kept.iter().any(|kept| told["state"] == word(*kept)) && !kept.contains(&state));
    let stopped = stopped.map(|(host, told)| OutboxStopped {
        host: (*host).to_owned(),
        state: text(&told["state"]).unwrap_or_default(),
        why: text(&told["why"]),
        since: text(&told["since"]),
    });
    WholeOutbox {
        stopped: stopped.collect(),
        best: best.map(|(_, host)| host),
        state,
        since,
        why,
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The state in one word.
pub fn word(state: OutboxWord) -> &'static str {
    match state {
        OutboxWord::Unserved => "unserved",
        OutboxWord::Unknown => "unknown",
        told => WORDS
            .iter()
            .find(|(_, known)| *known == told)
            .map_or("?", |(word, _)| word),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn host(id: &str, state: &str, why: &str) -> Value {
        json!({ "id": id, "outboxes": [{ "outbox": "orders", "state": state, "why": why }] })
    }

    #[test]
    fn an_outbox_that_is_stopped_on_one_host_is_named_although_another_one_publishes() {
        for kept in ["stopped", "retrying"] {
            let hosts = [host("a", "publishing", ""), host("b", kept, "another database")];
            let whole = whole(&of_hosts("orders", &hosts), None, None);
            assert_eq!(whole.state, OutboxWord::Publishing);
            let [stopped] = whole.stopped.as_slice() else {
                panic!("{:?}", whole.stopped)
            };
            assert_eq!((stopped.host.as_str(), stopped.state.as_str()), ("b", kept));
            assert_eq!(stopped.why.as_deref(), Some("another database"));
        }
    }

    #[test]
    fn a_pause_hides_nothing_that_keeps_an_outbox_on_all_hosts() {
        let pause = Some(("2026-01-01T00:00:00Z", "stock is counted"));
        let hosts = [host("a", "stopped", "there is no slot")];
        let one = whole(&of_hosts("orders", &hosts), pause, None);
        assert_eq!((one.state, one.stopped.len()), (OutboxWord::Stopped, 0));
        assert_eq!(
            one.why.as_deref(),
            Some("there is no slot; and it is paused: stock is counted")
        );
        let hosts = [host("a", "paused", "")];
        assert_eq!(
            whole(&of_hosts("orders", &hosts), pause, None).state,
            OutboxWord::Paused
        );
        assert_eq!(whole(&[], None, None).state, OutboxWord::Unserved);
    }
}
