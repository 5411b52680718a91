//! What a host tells Prometheus.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;

use crate::mesh::{Config, Mesh, says};
use crate::support::wait::SOON;
use crate::support::{Host, eventually, http, modules};

pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A host with an admin address, and where that is.
pub async fn start(config: Config) -> (Mesh, Host, SocketAddr) {
    let mesh = Mesh::new(config).await;
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let line = host.wait_for_line(says(&["the admin address answers"]), SOON).await;
    let address = http::address(&line);
    (mesh, host, address)
}

/// Publishes an event of the trace [`TRACE`], with a write and an emitted event.
pub async fn traced(mesh: &Mesh) {
    let steps =
        json!({ "do": [{ "op": "add", "key": "n", "by": 1 }, { "op": "emit", "subject": "events.a", "payload": 1 }] });
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    mesh.publish_with("orders.probe", &[("traceparent", &*parent)], steps.to_string())
        .await;
}

/// All metrics, as a client reads them that does not ask for OpenMetrics.
pub async fn plain(address: SocketAddr) -> String {
    http::get(address, "/metrics").await.body
}

/// The value of the sample that begins so, with all of its labels.
pub fn value(text: &str, sample: &str) -> Option<f64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    rest.parse().ok()
}

/// Waits until each of these samples has this value.
async fn until(address: SocketAddr, samples: &[(&str, f64)]) -> String {
    let mut wrong = Vec::new();
    let all = eventually("the samples", 2 * SOON, async || {
        let text = plain(address).await;
        let differs = |(sample, wanted): &&(&str, f64)| value(&text, sample) != Some(*wanted);
        let told = |(sample, wanted): &(&str, f64)| format!("{sample}: {:?}, not {wanted}", value(&text, sample));
        wrong = samples.iter().filter(differs).map(told).collect();
        wrong.is_empty().then_some(text)
    });
    let all = tokio::time::timeout(SOON, all).await;
    all.unwrap_or_else(|_| panic!("in vain: {wrong:#?}"))
}

#[tokio::test]
async fn a_scrape_has_what_became_of_events_how_long_it_took_and_what_waits() {
    let lines = "subjects = [\"orders.probe\"]\nmax_attempts = 2\nbackoff = \"10ms\"\ntimeout = \"10m\"";
    let other = "subjects = [\"orders.other\"]\nmax_attempts = 1\nmemory_max = \"16MiB\"\ntimeout = \"300ms\"";
    let schedule = "[schedules.tick]\nsubject = \"events.tick\"\nevery = \"1s\"";
    let config = Config::probe_with(lines).handler("other", &modules::handler("probe"), other);
    let config = config.table(schedule);
    let (mesh, host, address) = start(config).await;
    traced(&mesh).await;
    mesh.order(json!({ "op": "reject", "code": "c", "message": "m" })).await;
    mesh.order(json!({ "op": "retry", "code": "c", "message": "m" })).await;
    mesh.order(json!({ "op": "emit_later", "subject": "events.b", "payload": 1, "after_ms": 3_600_000 }))
        .await;
    mesh.wait_letters(2).await;
    let module = host.wait_for_line(says(&["serving", "handler=probe"]), SOON).await;
    let module = module.split("module=").nth(1).expect("it says").trim().to_owned();
    let attempt = |outcome: &str| {
        format!("jetmesh_attempts_total{{handler=\"probe\",module=\"{module}\",outcome=\"{outcome}\"}}")
    };
    let text = until(
        address,
        &[
            ("jetmesh_events_total{handler=\"probe\",result=\"done\"}", 2.0),
            ("jetmesh_events_total{handler=\"probe\",result=\"dead\"}", 2.0),
            (&attempt("done"), 2.0),
            (&attempt("reject"), 1.0),
            (&attempt("retry"), 2.0),
            ("jetmesh_retries_total{handler=\"probe\"}", 1.0),
            ("jetmesh_dead_total{handler=\"probe\",cause=\"rejected\"}", 1.0),
            ("jetmesh_dead_total{handler=\"probe\",cause=\"exhausted\"}", 1.0),
            ("jetmesh_run_seconds_count{handler=\"probe\"}", 5.0),
            ("jetmesh_commit_seconds_count{handler=\"probe\"}", 4.0),
            ("jetmesh_event_age_seconds_count{handler=\"probe\"}", 4.0),
            ("jetmesh_event_wait_seconds_bucket{handler=\"probe\",le=\"+Inf\"}", 5.0),
            ("jetmesh_ledger_group_decisions_sum{ledger=\"probe\"}", 4.0),
            ("jetmesh_handler_serving{handler=\"other\"}", 1.0),
            ("jetmesh_backlog_events{handler=\"probe\",kind=\"dead\"}", 2.0),
            ("jetmesh_backlog_events{handler=\"probe\",kind=\"delayed\"}", 1.0),
            ("jetmesh_backlog_events{handler=\"probe\",kind=\"pending\"}", 0.0),
            ("jetmesh_backlog_events{handler=\"other\",kind=\"delayed\"}", 0.0),
        ],
    )
    .await;
    assert!(
        !text.contains("jetmesh_run_seconds_bucket{handler=\"other\""),
        "it has run nothing"
    );
    // Several consequences of a group are one message.
    assert!(
        value(&text, "jetmesh_relay_seconds_count{ledger=\"probe\"}") >= Some(1.0),
        "{text}"
    );
    // A client that asks for it is told of single events.
    let accept = "GET /metrics HTTP/1.1\r\nHost: test\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let open = http::ask(address, accept).await;
    assert!(
        open.headers.contains("application/openmetrics-text; version=1.0.0"),
        "{}",
        open.headers
    );
    assert!(open.body.ends_with("# EOF\n"));
    let of_runs = |line: &&str| line.starts_with("jetmesh_run_seconds_bucket{handler=\"probe\"");
    assert!(
        open.body
            .lines()
            .filter(of_runs)
            .any(|line| line.contains("# {event_id=\"")),
        "{}",
        open.body
    );
    // A family is written once, and so is each sample.
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let sample = line.rsplit_once(' ').map_or(line, |(sample, _)| sample);
        assert!(seen.insert(sample), "twice: {line}");
    }
    // What waits, waits for what: an attempt that has failed, and one that runs.
    mesh.order(json!({ "op": "retry", "code": "c", "message": "m", "delay_ms": 600_000 }))
        .await;
    mesh.order(json!({ "op": "sleep", "ms": 600_000 })).await;
    until(
        address,
        &[
            ("jetmesh_backlog_events{handler=\"probe\",kind=\"retrying\"}", 1.0),
            ("jetmesh_backlog_events{handler=\"probe\",kind=\"running\"}", 1.0),
            ("jetmesh_events_in_flight{handler=\"probe\"}", 1.0),
        ],
    )
    .await;
    let text = plain(address).await;
    assert!(
        value(&text, "jetmesh_backlog_oldest_seconds{handler=\"probe\"}") > Some(0.0),
        "{text}"
    );
    assert!(
        value(&text, "jetmesh_backlog_age_seconds{handler=\"probe\"}") < Some(60.0),
        "{text}"
    );
    // A bucket takes one exemplar a second, and so sooner or later one of these.
    let exemplar = format!(",trace_id=\"{TRACE}\"}} ");
    let told = eventually("the trace of an event", SOON, async || {
        traced(&mesh).await;
        let open = http::ask(address, accept).await.body;
        open.lines()
            .filter(of_runs)
            .any(|line| line.contains(&exemplar))
            .then_some(())
    });
    told.await;
    // Which limit of the sandbox it was, if it was one.
    for step in [
        json!({ "op": "grow", "mib": 32 }),
        json!({ "op": "recurse" }),
        json!({ "op": "spin" }),
        json!({ "op": "trap" }),
    ] {
        mesh.publish("orders.other", step.to_string()).await;
    }
    let limit = |limit: &str| format!("jetmesh_limits_reached_total{{handler=\"other\",limit=\"{limit}\"}}");
    let text = until(
        address,
        &[
            (&limit("memory"), 1.0),
            (&limit("stack"), 1.0),
            (&limit("time"), 1.0),
            (&limit("table"), 0.0),
            ("jetmesh_events_total{handler=\"other\",result=\"dead\"}", 4.0),
        ],
    )
    .await;
    assert!(
        value(&text, "jetmesh_schedule_lag_seconds_count") >= Some(1.0),
        "{text}"
    );
    // A person has paused it: it is still ready, and the alerts know.
    mesh.jetmesh_ok(&["pause", "probe", "--reason", "a test"]).await;
    until(
        address,
        &[
            ("jetmesh_handler_paused{handler=\"probe\"}", 1.0),
            ("jetmesh_handler_paused{handler=\"other\"}", 0.0),
        ],
    )
    .await;
    let ready = http::get(address, "/readyz").await;
    assert!(ready.body.contains("\"ok\":true"), "{}", ready.body);
}
