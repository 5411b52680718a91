//! Commands that a signal ends tell how far they have come, and end with its code.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use futures_util::{FutureExt as _, StreamExt};
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh};
use crate::poisoned::{fix, judge, replay, with_letters};
use crate::support::process::Process;
use crate::support::server::round_trip;
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, host};

/// Starts `jetmesh` with the mesh's configuration.
fn start(mesh: &Mesh, args: &[&str]) -> Host {
    let file = mesh.write_config();
    let file = file.to_str().expect("a temporary folder's path is UTF-8");
    Host::start_command(&[args, &["--config", file]].concat(), mesh.dir.path(), &[])
}

/// Whether a line of it begins so.
fn says(command: &Host, text: &str) -> bool {
    command.lines().iter().any(|line| line.starts_with(text))
}

/// A mesh without a host, and this number of made-up letters.
async fn made_up(count: usize, bytes: usize) -> Mesh {
    let (mesh, first) = Mesh::start(Config::probe()).await;
    first.stop().await;
    let payload = "x".repeat(bytes);
    publish(&mesh, count, |n| {
        (format!("$MESH.dead.ORDERS.probe.k.{n}"), payload.clone())
    })
    .await;
    mesh
}

/// Publishes messages in their order; on a letter's subject, with the headers of one.
pub async fn publish(mesh: &Mesh, count: usize, of: impl Fn(usize) -> (String, String)) {
    let numbers: Vec<usize> = (1..=count).collect();
    for some in numbers.chunks(500) {
        let mut sent = Vec::new();
        for n in some {
            let (subject, payload) = of(*n);
            let mut headers = async_nats::HeaderMap::new();
            let handler = subject.split('.').nth(3).unwrap_or("probe");
            headers.insert("Mesh-Handler", handler);
            headers.insert("Mesh-Code", "made-up");
            // One after the other, so that they are stored in this order.
            let publish = mesh.js.publish_with_headers(subject, headers, payload.into());
            sent.push(publish.await.expect("it is sent"));
        }
        for stored in sent {
            stored.await.expect("a stream takes it");
        }
    }
}

#[tokio::test]
async fn what_was_asked_for_before_a_signal_goes_on_and_the_same_command_does_the_rest() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (mesh, _host) = with_letters(40).await;
        fix(&mesh).await;
        let command = start(&mesh, &["dlq", "replay", "--all", "--yes", "--rate", "2/s"]);
        eventually("some to be done", SOON, async || {
            (mesh.letters().await.len() < 35).then_some(())
        })
        .await;
        command.signal(signal);
        assert_eq!(command.wait_exit(SOON).await.code(), Some(code));
        for text in [
            "sent ",
            "interrupted: ",
            "the same command again continues with the dead letters that are left",
        ] {
            assert!(says(&command, text), "{text} {:?}", command.lines());
        }
        let left = mesh.letters().await.len();
        assert!(left > 10, "it stopped asking: {left} are left");
        let (code, account) = replay(&mesh, &["--all"]).await;
        assert_eq!(code, Some(0), "{account}");
        judge(&mesh, 40).await;
    }
}

#[tokio::test]
async fn a_discard_that_is_broken_off_tells_what_is_discarded_and_what_is_left() {
    const COUNT: usize = 20_000;
    let mesh = made_up(COUNT, 1).await;
    let mut discarded = mesh.client.subscribe("$MESH.dead.>").await.expect("connected");
    round_trip(&mesh.client).await;
    let command = start(&mesh, &["dlq", "discard", "--all", "--yes", "--json"]);
    tokio::time::timeout(SOON, discarded.next()).await.expect("it discards");
    drop(discarded);
    mesh.server.pause();
    command.signal(Signal::TERM);
    mesh.server.resume();
    assert_eq!(command.wait_exit(SOON).await.code(), Some(143));
    let lines = command.lines();
    let account = lines.iter().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let account = account.expect("it tells");
    let number = |name: &str| account[name].as_u64().expect("a number");
    assert!(number("left") > 0 && number("discarded") > 0, "{account}");
    assert_eq!(number("left") + number("discarded"), COUNT as u64, "{account}");
    let stream = mesh.js.get_stream("MESH_DEAD").await.expect("it is there");
    let written = stream.cached_info().state.last_sequence - COUNT as u64;
    assert_eq!(number("discarded"), written, "what was on its way was waited for");
    let again = mesh.jetmesh_ok(&["dlq", "discard", "--all", "--yes", "--json"]).await;
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!(again["discarded"], account["left"]);
}

#[tokio::test]
async fn an_export_that_is_broken_off_says_that_it_is_not_whole_and_leaves_no_file() {
    let mesh = made_up(400, 200_000).await;
    let file = mesh.dir.path().join("letters.jsonl");
    let command = start(
        &mesh,
        &["dlq", "export", "--all", "--output", file.to_str().expect("UTF-8")],
    );
    eventually("the file to be made", SOON, async || file.exists().then_some(())).await;
    mesh.server.pause();
    command.signal(Signal::INT);
    mesh.server.resume();
    assert_eq!(command.wait_exit(SOON).await.code(), Some(130), "{:?}", command.lines());
    assert!(says(&command, "interrupted after "), "{:?}", command.lines());
    assert!(!file.exists(), "the same command can be given again");
}

#[tokio::test]
async fn a_command_whose_output_is_not_read_ends_by_a_second_signal() {
    let mesh = made_up(2_000, 1_000).await;
    let mut command = host::command(mesh.dir.path());
    command
        .args(["dlq", "export", "--all", "--config"])
        .arg(mesh.write_config());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = Process::spawn("jetmesh", command);
    let (stdout, _stderr) = process.take_output();
    let (mut lines, mut line) = (BufReader::new(stdout), String::new());
    lines.read_line(&mut line).expect("it prints");
    // The pipe is full by now or soon, and is not read.
    process.signal(Signal::INT);
    eventually("the end by signals", SOON, async || {
        if process.ended().is_none() {
            process.signal(Signal::INT);
        }
        process.ended()
    })
    .await;
    assert_eq!(process.wait(SOON).await.code(), Some(130));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("it is text");
    assert!(rest.lines().count() < 1_999, "it did not wait for a reader");
}

#[tokio::test]
async fn a_search_that_is_broken_off_tells_what_was_searched() {
    let mesh = made_up(1, 1).await;
    publish(&mesh, 20_000, |n| {
        ("orders.probe".to_owned(), json!({ "order_id": n }).to_string())
    })
    .await;
    let mut reads = mesh
        .client
        .subscribe("$JS.API.CONSUMER.MSG.NEXT.ORDERS.>")
        .await
        .expect("connected");
    round_trip(&mesh.client).await;
    let command = start(&mesh, &["trace", "--key", "order_id=none", "--max-time", "10m"]);
    tokio::time::timeout(SOON, reads.next()).await.expect("it reads");
    mesh.server.pause();
    command.signal(Signal::INT);
    mesh.server.resume();
    assert_eq!(command.wait_exit(SOON).await.code(), Some(130), "{:?}", command.lines());
    assert!(
        says(
            &command,
            "interrupted: no event with order_id=none was found until then"
        ),
        "{:?}",
        command.lines()
    );
    assert!(says(&command, "searched ORDERS"), "{:?}", command.lines());
}

#[tokio::test]
async fn a_command_that_has_nothing_to_tell_ends_at_once_with_the_signals_code() {
    // The JetStream API that the configuration names is this test, which takes requests and answers none.
    let mesh = Mesh::new(Config::probe().nats("js_domain = \"silent\"")).await;
    let mut requests = mesh.client.subscribe("$JS.silent.API.>").await.expect("connected");
    round_trip(&mesh.client).await;
    for (args, signal, code) in [
        (&["dlq", "ls"][..], Signal::INT, 130),
        (&["check", "--connect"], Signal::TERM, 143),
        (&["status"], Signal::INT, 130),
    ] {
        let command = start(&mesh, args);
        tokio::time::timeout(SOON, requests.next()).await.expect("it asks");
        command.signal(signal);
        let ended = command.wait_exit(SOON).await;
        assert_eq!(ended.code(), Some(code), "{args:?} {:?}", command.lines());
        // What it has asked is not taken for a request of the next command.
        round_trip(&mesh.client).await;
        while requests.next().now_or_never().is_some() {}
    }
}
