//! Spans, as a collector of OpenTelemetry is given them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::metrics::{TRACE, plain, value};
use crate::support::otlp::{Collector, Span};
use crate::support::wait::SOON;
use crate::support::{Host, cli, eventually, http, modules};

const PRODUCER: &str = "b7ad6b7169203331";
const QUICK: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "20");

fn parent(sampled: &str) -> String {
    format!("00-{TRACE}-{PRODUCER}-{sampled}")
}

/// Waits until the collector has one span for each of these conditions.
async fn wait_spans<const N: usize>(collector: &Collector, wanted: [&dyn Fn(&Span) -> bool; N]) -> [Span; N] {
    eventually("the spans", SOON, async || {
        let spans = collector.spans();
        let found: Option<Vec<Span>> = wanted
            .iter()
            .map(|is| spans.iter().find(|span| is(span)).cloned())
            .collect();
        found?.try_into().ok()
    })
    .await
}

fn named(name: &'static str) -> impl Fn(&Span) -> bool {
    move |span| span.name == name
}

fn child(of: &Span, name: &'static str) -> impl Fn(&Span) -> bool {
    let parent = of.id.clone();
    move |span| span.parent == parent && span.name == name
}

#[tokio::test]
async fn a_collector_sees_one_trace_over_three_handlers_and_what_fails_is_retried_and_is_replayed() {
    let lines = "subjects = [\"orders.probe\"]\nmax_attempts = 2\nbackoff = \"10ms\"";
    let next = |subject: &str| {
        format!("stream = \"EVENTS\"\nsubjects = [\"{subject}\"]\npublish = [\"events.b\"]\nstart = \"all\"")
    };
    let config = Config::probe_with(lines)
        .handler("second", &modules::handler("probe"), &next("events.a"))
        .handler("third", &modules::handler("probe"), &next("events.b"));
    let collector = Collector::http().await;
    let mesh = Mesh::new(config).await;
    let endpoint = collector.endpoint();
    let _host = mesh
        .host(&[
            QUICK,
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=the%20shop"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ])
        .await;
    one_trace(&mesh, &collector).await;
    failures(&mesh, &collector).await;
    unsampled(&mesh, &collector).await;
    let spans = collector.spans();
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "each was sent once");
    another_connection(&mesh, &collector).await;
}

/// One connection is used for all requests, and another one when that is closed.
async fn another_connection(mesh: &Mesh, collector: &Collector) {
    assert!(collector.requests() > 1);
    assert_eq!(collector.connections(), 1);
    let before = collector.spans().len();
    collector.hang_up();
    mesh.order(json!({ "op": "ok" })).await;
    eventually("the next span", SOON, async || {
        (collector.spans().len() > before).then_some(())
    })
    .await;
    assert_eq!(collector.connections(), 2);
}

/// A producer's trace goes on through three handlers, and the events between them.
async fn one_trace(mesh: &Mesh, collector: &Collector) {
    let last = json!({ "do": [] });
    let middle = json!({ "do": [{ "op": "emit", "subject": "events.b", "payload": last }] });
    let first = json!({ "do": [
        { "op": "log", "level": "warn", "message": "stock is low" },
        { "op": "add", "key": "n", "by": 1 },
        { "op": "emit", "subject": "events.a", "payload": middle },
    ] });
    let headers = [("Traceparent", &*parent("01")), ("Nats-Msg-Id", "o-7")];
    mesh.publish_with("orders.probe", &headers, first.to_string()).await;
    let [probe, second, third] = wait_spans(
        collector,
        [
            &named("process orders.probe"),
            &named("process events.a"),
            &named("process events.b"),
        ],
    )
    .await;
    let [to_second, to_third] = wait_spans(
        collector,
        [&child(&probe, "publish events.>"), &child(&second, "publish events.b")],
    )
    .await;
    let [run, commit] = wait_spans(collector, [&child(&probe, "run"), &child(&probe, "commit")]).await;
    for span in [&probe, &second, &third, &to_second, &to_third, &run, &commit] {
        assert_eq!((span.trace.as_str(), span.sampled), (TRACE, true), "{span:?}");
        assert!(span.error.is_none() && span.start_ns <= span.end_ns, "{span:?}");
    }
    assert_eq!(probe.parent, PRODUCER);
    assert_eq!((&second.parent, &third.parent), (&to_second.id, &to_third.id));
    // By OpenTelemetry's numbers: consumer, producer, internal, client.
    assert_eq!((probe.kind, to_second.kind, run.kind, commit.kind), (5, 4, 1, 3));
    assert_eq!(to_second.links, [commit.id.as_str()]);
    assert!(probe.start_ns <= run.start_ns && run.end_ns <= commit.start_ns && commit.end_ns <= probe.end_ns);
    let expected = [
        ("messaging.system", "nats"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "orders.probe"),
        ("messaging.destination.template", "orders.probe"),
        ("messaging.consumer.group.name", "probe"),
        ("messaging.message.id", "o-7"),
        ("jetmesh.handler", "probe"),
        ("jetmesh.attempt", "1"),
        ("jetmesh.outcome", "done"),
        ("jetmesh.stream", "ORDERS"),
    ];
    for (name, value) in expected {
        assert_eq!(probe.attribute(name), value, "{name}");
    }
    let (name, log) = &probe.events[0];
    assert_eq!((name.as_str(), log["log.message"].as_str()), ("log", "stock is low"));
    // A consumer of the event finds the span of its publication in its header.
    let emitted = mesh.wait_emitted(2).await;
    let header = format!("00-{TRACE}-{}-01", to_second.id);
    assert_eq!(emitted[0].header("traceparent"), Some(header.as_str()));
    assert_eq!(emitted[0].header("Mesh-Cause-Span"), Some(probe.id.as_str()));
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "jetmesh");
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(collector.header("x-tenant").as_deref(), Some("the shop"));
}

/// Attempts that fail say why; a retry and a replay are linked to the first.
async fn failures(mesh: &Mesh, collector: &Collector) {
    mesh.order(json!({ "op": "need", "key": "later" })).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let attempt = |n: &'static str| move |span: &Span| span.attribute("jetmesh.attempt") == n && span.error.is_some();
    let [first, second] = wait_spans(collector, [&attempt("1"), &attempt("2")]).await;
    assert_eq!(
        (&first.trace, &first.parent),
        (&second.trace, &String::new()),
        "it begins its trace"
    );
    assert_ne!(first.trace, TRACE);
    assert_eq!(first.links, Vec::<String>::new());
    assert_eq!(second.links, [first.id.as_str()]);
    assert_eq!(second.attribute("jetmesh.cause"), "exhausted");
    let (name, exception) = &second.events[0];
    assert_eq!(
        (name.as_str(), &exception["exception.type"]),
        ("exception", &second.attributes["error.type"])
    );
    assert_eq!(Some(exception["exception.message"].clone()), second.error);
    mesh.put("probe", "later", "1").await;
    mesh.jetmesh_ok(&["dlq", "replay", letter.letter_id(), "--yes"]).await;
    let [replayed] = wait_spans(
        collector,
        [&|span| span.attribute("jetmesh.replay") == "1" && span.error.is_none()],
    )
    .await;
    assert_eq!(
        (replayed.attribute("jetmesh.outcome"), &replayed.trace),
        ("done", &first.trace)
    );
    assert_eq!(replayed.links, [first.id.as_str()]);
}

/// Of a trace that is not sampled only what fails is exported, and its events are not sampled either.
async fn unsampled(mesh: &Mesh, collector: &Collector) {
    let before = collector.spans().len();
    let steps =
        json!({ "do": [{ "op": "fail_until", "attempt": 2 }, { "op": "emit", "subject": "events.c", "payload": 1 }] });
    mesh.publish_with("orders.probe", &[("traceparent", &*parent("00"))], steps.to_string())
        .await;
    let emitted = mesh.wait_emitted(3).await;
    assert_eq!(emitted[2].header("traceparent"), Some(&*parent("00")), "as it came");
    // What comes after it has been exported, so it would have been as well.
    mesh.order(json!({ "op": "ok" })).await;
    let last = |span: &Span| span.name == "process orders.probe" && span.attribute("jetmesh.sequence") == "4";
    wait_spans(collector, [&last]).await;
    let spans = collector.spans().split_off(before);
    let of_it: Vec<&Span> = spans
        .iter()
        .filter(|span| span.attribute("jetmesh.sequence") == "3")
        .collect();
    assert_eq!(of_it.len(), 1, "{of_it:#?}");
    assert_eq!(
        (of_it[0].attribute("jetmesh.outcome"), of_it[0].sampled),
        ("retry", false)
    );
    assert_eq!((of_it[0].trace.as_str(), of_it[0].parent.as_str()), (TRACE, PRODUCER));
}

#[tokio::test]
async fn spans_go_over_grpc_again_when_the_collector_was_not_available_and_the_last_at_the_end() {
    const UNAVAILABLE: u16 = 14;
    let collector = Collector::grpc(&[UNAVAILABLE, UNAVAILABLE]).await;
    let mesh = Mesh::new(Config::probe().table("[spans]\nproducer = \"link\"\n")).await;
    let endpoint = collector.endpoint();
    let variables = [
        QUICK,
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20x"),
        ("JETMESH_LOG__FORMAT", "json"),
        ("JETMESH_LOG__FILTER", "trace"),
    ];
    let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &variables);
    host.wait_for_line(says(&["\"message\":\"serving\""]), SOON).await;
    let log = json!({ "do": [{ "op": "log", "level": "info", "message": "hello" }] });
    mesh.publish_with("orders.probe", &[("traceparent", &*parent("00"))], log.to_string())
        .await;
    let [process] = wait_spans(&collector, [&named("process ORDERS")]).await;
    assert_eq!((collector.requests(), collector.connections()), (3, 1));
    assert_eq!(collector.header("authorization").as_deref(), Some("Bearer x"));
    // It begins a trace, which is sampled.
    assert_ne!(process.trace, TRACE);
    assert_eq!((process.parent.as_str(), process.sampled), ("", true));
    assert_eq!(process.links, [PRODUCER]);
    lines_name_it(&host, &process).await;
    another_connection(&mesh, &collector).await;
    // What has just ended is exported before the host is.
    let waits = ("OTEL_BSP_SCHEDULE_DELAY", "600000");
    host.stop().await;
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let host = mesh
        .host(&[waits, grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)])
        .await;
    mesh.order(json!({ "op": "ok" })).await;
    mesh.wait_decisions("probe", 3).await;
    host.stop().await;
    let last = |span: &Span| span.attribute("jetmesh.sequence") == "3";
    assert!(collector.spans().iter().any(last), "{:#?}", collector.spans());
}

/// The line of the guest and that of the host say which span they belong to.
async fn lines_name_it(host: &Host, span: &Span) {
    host.wait_for_line(says(&["\"message\":\"done\""]), SOON).await;
    let lines = host.lines();
    let json = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let (own, rest): (Vec<Value>, Vec<Value>) = json.partition(|line| line["span_id"] == span.id.as_str());
    assert!(rest.iter().all(|line| line["message"] != "hello"), "{rest:?}");
    for line in &own {
        let named = json!([line["handler"], line["attempt"], line["trace_id"], line["event"]]);
        let event = span.attribute("jetmesh.event_id");
        assert_eq!(named, json!(["probe", 1, span.trace, event]), "{line}");
    }
    for message in ["hello", "done"] {
        assert!(own.iter().any(|line| line["message"] == message), "{message}: {own:?}");
    }
}

#[tokio::test]
async fn a_collector_that_does_not_answer_slows_no_event_and_no_end_of_a_host_and_lost_spans_are_counted() {
    const COUNT: usize = 200;
    // It takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let endpoint = format!("http://{}", silent.local_addr().expect("it listens"));
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh
        .host(&[
            QUICK,
            ("JETMESH_ADMIN__LISTEN", "127.0.0.1:0"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "20"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "300"),
        ])
        .await;
    let line = host.wait_for_line(says(&["the admin address answers"]), SOON).await;
    let address = http::address(&line);
    for _ in 0..COUNT {
        mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    }
    mesh.wait_value("probe", "n", &COUNT.to_string()).await;
    mesh.wait_settled("ORDERS", "probe").await;
    host.wait_for_line(says(&["spans are lost: the queue was full"]), SOON)
        .await;
    host.wait_for_line(says(&["spans are lost: the collector does not take them"]), SOON)
        .await;
    let dropped = value(&plain(address).await, "jetmesh_spans_dropped_total");
    assert!(dropped >= Some(100.0), "{dropped:?}");
    assert_eq!(value(&plain(address).await, "jetmesh_spans_exported_total"), Some(0.0));
    host.stop().await;
    // A request that may take long is not waited for at the end.
    let host = mesh.host(&[QUICK, ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", &(COUNT + 1).to_string()).await;
    mesh.wait_settled("ORDERS", "probe").await;
    let began = Instant::now();
    host.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_variable_that_is_wrong_is_named_before_a_host_starts() {
    let mesh_config = Config::probe().text("nats://127.0.0.1:1");
    let dir = tempfile::TempDir::with_prefix("jetmesh-test-").expect("a temporary folder");
    std::fs::write(dir.path().join("jetmesh.toml"), mesh_config).expect("it is written");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "gprc"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
    ];
    let (code, _, said) = cli::jetmesh_with(dir.path(), &["run"], &variables).await;
    assert_eq!(code.code(), Some(2), "{said}");
    for text in [
        "OTEL_EXPORTER_OTLP_PROTOCOL: \"gprc\" is not supported",
        "hint: use one of: grpc, http/protobuf",
        "OTEL_TRACES_SAMPLER_ARG: \"2\" is not a number, 0 to 1",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
}
