//! Finds events by what a person knows of them, the newest first, within a time.

use std::ops::ControlFlow;

use super::Tracer;
use super::find::Place;
use super::reading::{Extent, Range};
use super::sought::Sought;
use schemars::JsonSchema;
use serde::Serialize;

use crate::broker::stream::StreamState;
use crate::broker::{Error, StreamInfo};
use crate::event::clock::Moment;
use crate::event::subject::subject_matches;
use crate::event::{parse_rfc3339, rfc3339};

/// How many sequences are read at a time, going back.
const WINDOW: u64 = 10_000;

/// What was searched of a stream. `jetmesh trace --json` prints it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(description = "What was searched of a stream.")]
pub struct Searched {
    pub stream: String,
    /// How many of its messages were looked into.
    pub messages: u64,
    /// How many of these are not JSON, so that nothing can be found in them.
    pub unreadable: u64,
    /// From here on everything was read, RFC 3339; null: nothing was.
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
    /// Everything was read that the stream holds within the time of --since.
    pub whole: bool,
    /// There is no such stream.
    pub missing: bool,
    /// What could not be searched; null: all could.
    pub removed: Option<Removed>,
}

/// Messages that the stream has removed and that may have been within the time of --since.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Removed {
    /// The stream holds nothing before this sequence, the one after its last if it is empty; 0: nothing is missing there.
    pub before: u64,
    /// When the oldest message of the stream was stored, RFC 3339; null: it is empty.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// How many messages are missing between its first and its last.
    pub between: u64,
    /// The settings of the stream that remove messages, with their values; empty: only purges and deletions do.
    pub by: Vec<String>,
}

impl Removed {
    /// `None`: the stream holds everything since a time, in milliseconds since the Unix epoch.
    fn of(info: &StreamInfo, since_ms: u64) -> Option<Removed> {
        let StreamState { first_seq, .. } = info.state;
        let oldest = info.state.first_ts.clone().filter(|_| info.state.messages > 0);
        let begin = info.config["first_seq"].as_u64().unwrap_or(0).max(1);
        let oldest_ms = oldest.as_deref().and_then(parse_rfc3339);
        let misses = first_seq > begin && oldest_ms.is_none_or(|oldest| oldest > since_ms);
        if !misses && info.state.num_deleted == 0 {
            return None;
        }
        let mut by = info.removes_by();
        if info.retention() != "limits" {
            by.insert(0, format!("retention {}", info.retention()));
        }
        Some(Removed {
            before: if misses { first_seq } else { 0 },
            oldest: oldest_ms.map(rfc3339),
            between: info.state.num_deleted,
            by,
        })
    }
}

impl Searched {
    /// Nothing is searched yet.
    fn begin(stream: &str) -> Searched {
        Searched {
            stream: stream.to_owned(),
            messages: 0,
            unreadable: 0,
            since: None,
            whole: true,
            missing: false,
            removed: None,
        }
    }
}

impl<'a> Tracer<'a> {
    /// The newest events that are sought, at most this number, each with its time; and what was searched.
    pub async fn search(
        &mut self,
        sought: &Sought,
        since: Moment,
        most: usize,
    ) -> Result<(Vec<(u64, Place)>, Vec<Searched>), Error> {
        let (mut found, mut searched) = (Vec::new(), Vec::new());
        for stream in self.sources() {
            let (sequences, how) = self.search_stream(stream, sought, since, most).await?;
            searched.push(how);
            for (time_ms, sequence) in sequences {
                found.push((time_ms, self.place(stream, sequence).await?));
            }
        }
        found.sort_by_key(|(time_ms, _)| std::cmp::Reverse(*time_ms));
        found.truncate(most);
        Ok((found, searched))
    }

    async fn search_stream(
        &mut self,
        stream: &str,
        sought: &Sought,
        since: Moment,
        most: usize,
    ) -> Result<(Vec<(u64, u64)>, Searched), Error> {
        let mut found = Vec::new();
        let mut searched = Searched::begin(stream);
        let Some(info) = self.reading.connection.stream(stream).await? else {
            searched.missing = true;
            return Ok((found, searched));
        };
        let (filters, since_ms) = (self.filters(stream), since.ms());
        let first = self
            .reading
            .since(stream, &info, since_ms)
            .await?
            .max(info.state.first_seq);
        let mut last = info.state.last_seq;
        searched.whole = false;
        while last >= first && last > 0 && found.len() < most {
            let begin = last.saturating_sub(WINDOW - 1).max(first);
            // The filters of one consumer may not overlap: if there are several, the reader applies them.
            let range = Range {
                stream,
                info: &info,
                filters: if filters.len() == 1 { &filters } else { &[] },
                first: begin,
                last,
                headers_only: !sought.is_in_payloads(),
            };
            let mut here: Vec<(u64, u64)> = Vec::new();
            let mut oldest = None;
            let extent = self
                .reading
                .range(&range, |seen| {
                    let read = filters.is_empty() || filters.iter().any(|f| subject_matches(f, &seen.subject));
                    if read && seen.time_ms >= since_ms {
                        searched.messages += 1;
                        oldest.get_or_insert(seen.time_ms);
                        match sought.is(&seen) {
                            Some(true) => here.push((seen.time_ms, seen.sequence)),
                            Some(false) => {}
                            None => searched.unreadable += 1,
                        }
                    }
                    ControlFlow::Continue(())
                })
                .await?;
            here.reverse();
            found.extend(here);
            if extent == Extent::Bound {
                found.truncate(most);
                return Ok((found, searched));
            }
            searched.since = oldest.map(rfc3339).or(searched.since);
            last = begin - 1;
        }
        searched.whole = last < first || last == 0;
        // As it is now: it may have removed messages while it was read.
        let info = self.reading.connection.stream(stream).await?;
        searched.removed = info.and_then(|info| Removed::of(&info, since_ms));
        found.truncate(most);
        Ok((found, searched))
    }

    /// The streams that some handler reads.
    pub(super) fn sources(&self) -> Vec<&'a str> {
        let plan = self.plan;
        let mut streams: Vec<&str> = plan.handlers.iter().map(|h| h.stream.as_str()).collect();
        streams.sort_unstable();
        streams.dedup();
        streams
    }

    /// The subjects of a stream that some handler reads; empty: all.
    pub(super) fn filters(&self, stream: &str) -> Vec<String> {
        let of: Vec<_> = self.plan.handlers.iter().filter(|h| h.stream == stream).collect();
        if of.iter().any(|h| h.subjects.is_empty()) {
            return Vec::new();
        }
        let mut filters: Vec<String> = of.iter().flat_map(|h| h.subjects.clone()).collect();
        filters.sort_unstable();
        filters.dedup();
        filters
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_stream_has_removed_is_told_only_if_it_may_be_within_the_time() {
        let of = |state: Value, since_ms| {
            let config = json!({ "max_msgs": 2, "retention": "workqueue" });
            let info = json!({ "config": config, "created": "", "state": state });
            Removed::of(&serde_json::from_value(info).unwrap(), since_ms)
        };
        let state = |first: u64, deleted: u64| {
            json!({ "messages": 2, "first_seq": first, "last_seq": 9, "num_deleted": deleted,
                    "first_ts": "1970-01-01T00:00:05Z" })
        };
        assert_eq!(of(state(1, 0), 0), None);
        assert_eq!(of(state(8, 0), 5000), None, "what is gone is older than the time");
        let removed = of(state(8, 0), 4999).expect("some may be within the time");
        let by = ["retention workqueue", "max_msgs 2"];
        assert_eq!((removed.before, &*removed.by), (8, &by.map(str::to_owned)[..]));
        assert_eq!(removed.oldest.as_deref(), Some("1970-01-01T00:00:05.000Z"));
        let between = of(state(1, 7), 5000).expect("some are missing between");
        assert_eq!((between.before, between.between), (0, 7));
        let empty = json!({ "messages": 0, "first_seq": 10, "last_seq": 9, "first_ts": "0001-01-01T00:00:00Z" });
        let empty = of(empty, u64::MAX).expect("nobody knows when they were removed");
        assert_eq!((empty.before, empty.oldest), (10, None));
        let new = json!({ "messages": 0, "first_seq": 0, "last_seq": 0 });
        assert_eq!(of(new, 0), None);
    }
}
