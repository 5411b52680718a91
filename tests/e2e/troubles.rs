//! What goes wrong again and again is logged once, counted, and told at a level that wakes a person if events wait.

use serde_json::json;

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::permissions::all_but;
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, Signal, eventually};

/// The lines of a host's log that are more than information.
fn loud(host: &Host) -> Vec<String> {
    let loud = |line: &String| line.contains(" WARN ") || line.contains("ERROR ");
    host.lines().into_iter().filter(loud).collect()
}

/// Ends it, and returns its loud lines.
async fn ended(host: Host) -> Vec<String> {
    host.stop().await;
    loud(&host)
}

fn counted(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_denied_subject_is_logged_once_and_in_the_end_with_its_count() {
    const EVENTS: usize = 100;
    // Each answer has a subject of its own.
    let server = NatsServer::start_with(&all_but("$JS.ACK.>")).await;
    let config = Config::probe().nats("user = \"host\"").nats("password = \"pw\"");
    let mesh = Mesh::over(server, config).await;
    let host = mesh.host(&[]).await;
    for _ in 0..EVENTS {
        mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    }
    mesh.wait_decisions("probe", EVENTS).await;
    mesh.wait_value("probe", "n", &EVENTS.to_string()).await;
    let lines = ended(host).await;
    let denied: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("Permissions Violation"))
        .collect();
    let [first, last] = denied.as_slice() else {
        panic!("it is told at first and at the end: {denied:#?}");
    };
    assert!(first.contains("nats reports an error"), "{first}");
    assert!(
        last.contains("count until this host ended: nats reports an error"),
        "{last}"
    );
    let times = last
        .split("times=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    assert!(times.is_some_and(|times| times >= EVENTS), "{last}");
}

#[tokio::test]
async fn a_server_that_can_store_nothing_wakes_a_person_in_few_lines_and_its_end_is_told() {
    let small = |bytes: &str| Options {
        jetstream: format!("max_file_store: {bytes}"),
        ..Options::default()
    };
    let mut mesh = Mesh::over(NatsServer::start_with(&small("8MB")).await, Config::probe()).await;
    let host = mesh.host(&[]).await;
    // Orders wait while there is room.
    host.signal(Signal::STOP);
    for _ in 0..40 {
        mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    }
    let filler = async_nats::jetstream::stream::Config {
        name: "FILLER".to_owned(),
        subjects: vec!["filler".to_owned()],
        ..Default::default()
    };
    mesh.js.create_stream(filler).await.expect("there is room");
    let mut full = 0;
    while full < 3 {
        let bytes = if full == 0 { 512 * 1024 } else { 256 };
        let sent = mesh
            .js
            .publish("filler", vec![0u8; bytes].into())
            .await
            .expect("it is sent");
        full += usize::from(sent.await.is_err());
    }
    host.signal(Signal::CONT);
    host.wait_for_line(says(&["ERROR", "the ledger is stopped"]), PATIENT)
        .await;
    eventually("it to be met again", PATIENT, async || {
        let (_, status, _) = mesh.jetmesh(&["status", "--json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        let ledgers = status["hosts"][0]["data"]["ledgers"].as_array()?.clone();
        (ledgers.iter().any(|one| one["error"]["count"].as_u64() >= Some(2))).then_some(())
    })
    .await;
    let lines = loud(&host);
    assert_eq!(counted(&lines, "the ledger is stopped"), 1, "{lines:#?}");
    assert_eq!(
        counted(&lines, "works again"),
        0,
        "it can be read, and nothing can be stored: {lines:#?}"
    );
    assert!(lines.len() <= 4, "{lines:#?}");
    mesh.server.restart_with(&small("64MB")).await;
    mesh.wait_value("probe", "n", "40").await;
    host.wait_for_line(says(&["the ledger works again", "times="]), SOON)
        .await;
}

/// Seconds since the Unix epoch, of a time that stands at the beginning of a text.
fn seconds(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text.split([' ', '"']).next()?).ok()?;
    Some(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_line_that_says_since_when_has_one_clock() {
    let lines = "bucket = \"probe\"\npublish = [\"nowhere.>\"]";
    let config = Config::new().handler("probe", &crate::support::modules::handler("probe"), lines);
    let mesh = Mesh::new(config).await;
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let began = began.expect("it is later").as_secs();
    let host = mesh.host(&[("MESH_FAULT", "clock-ahead-ms:3600000")]).await;
    for number in 0..3 {
        let subject = format!("nowhere.{number}");
        mesh.order(json!({ "op": "emit", "subject": subject, "payload": 1 }))
            .await;
    }
    mesh.wait_letters(3).await;
    let lines = ended(host).await;
    let last = lines.iter().find(|line| line.contains("count until this host ended"));
    let last = last.expect("it is counted");
    let since = last.split("since=").nth(1).map(|rest| rest.trim_start_matches('"'));
    let (at, since) = seconds(last).zip(since.and_then(seconds)).expect("it has two times");
    assert!(began + 3600 <= since && since <= at, "{last}");
}

#[tokio::test]
async fn a_target_that_is_missing_is_logged_once_and_in_the_end_with_its_count() {
    let lines = "bucket = \"probe\"\npublish = [\"nowhere.>\"]";
    let config = Config::new().handler("probe", &crate::support::modules::handler("probe"), lines);
    let (mesh, host) = Mesh::start(config).await;
    for number in 0..40 {
        let subject = format!("nowhere.{number}");
        mesh.order(json!({ "op": "emit", "subject": subject, "payload": 1 }))
            .await;
    }
    mesh.wait_letters(40).await;
    let lines = ended(host).await;
    let first = lines
        .iter()
        .filter(|line| !line.contains("count until this host ended"));
    // That nothing listens, and then why.
    assert!(first.count() <= 2, "{lines:#?}");
    assert!(lines.len() <= 4, "{lines:#?}");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("count until this host ended") && line.contains("nowhere")),
        "{lines:#?}"
    );
}
