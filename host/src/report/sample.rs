//! What goes on at a moment, as the hosts report it. Two of them tell how fast.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
#[cfg(test)]
use serde_json::json;

use crate::broker;
use crate::event::clock::now_ms;
use crate::micro;

/// What the hosts report, of a moment. Counts are since each host has started.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    pub hosts: Vec<HostSample>,
    pub handlers: BTreeMap<String, HandlerSample>,
    /// Why it is not known which hosts there are.
    pub unknown: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct HostSample {
    pub id: String,
    pub version: String,
    pub started: String,
}

/// A handler, on all hosts together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HandlerSample {
    /// How many hosts serve it.
    pub serving: u64,
    pub done: u64,
    pub retried: u64,
    pub dead: u64,
    pub conflicts: u64,
    pub in_flight: u64,
    /// Runs by how long they took: the upper bound in microseconds, and how many.
    pub runs: BTreeMap<u64, u64>,
}

/// A bound above all bounds.
const LONGER: u64 = u64::MAX;

impl Sample {
    /// Of what the hosts report.
    pub fn of(hosts: Result<Vec<Value>, broker::Error>) -> Sample {
        let unknown = hosts.as_ref().err().map(ToString::to_string);
        let hosts = &hosts.unwrap_or_default();
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
            unknown,
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
        let sample = Sample::of(Ok(vec![host(3), host(4)]));
        let points = &sample.handlers["points"];
        assert_eq!((points.serving, points.done, sample.hosts.len()), (2, 7, 2));
        assert_eq!(points.runs, BTreeMap::from([(500, 7), (LONGER, 2)]));
    }
}
