//! Many messages that the client library cannot read, among many good ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::RetentionPolicy;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::audit::{judge_with_letters, work};
use crate::mesh::{Config, Found, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, Raw, eventually, modules, server};

/// What was published that cannot be read, by what tells one from another: its payload.
type Bad = BTreeMap<Vec<u8>, &'static [u8]>;

const GOOD: &[u8] = b"NATS/1.0\r\nA: b\r\n\r\n";
const KINDS: [(&[u8], &[u8]); 4] = [
    (b"orders.probe", b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"),
    (b"orders.probe", b"NATS/1.0\r\nno colon here\r\n\r\n"),
    (b"orders.probe", b"NATS/1.0\r\na name: with a space\r\n\r\n"),
    (b"orders.\xff\xfe", b"NATS/1.0\r\nA: b\r\n\r\n"),
];

/// An ack wait that no test outlives: what comes again comes because it was given back.
const FOREVER: &str = "ack_wait = \"1h\"";

/// This number of good ones that do this, and after each `nth` a bad one.
fn mixed(good: usize, nth: usize, does: impl Fn(usize) -> String) -> (Raw, Bad) {
    let (mut raw, mut bad) = (Raw::default(), Bad::new());
    for number in 0..good {
        raw.add(b"orders.probe", GOOD, does(number).as_bytes());
        if number % nth == nth - 1 {
            let (subject, headers) = KINDS[bad.len() % KINDS.len()];
            let payload = format!("{{\"op\":\"ok\",\"bad\":{}}}", bad.len()).into_bytes();
            raw.add(subject, headers, &payload);
            bad.insert(payload, headers);
        }
    }
    (raw, bad)
}

fn works(number: usize) -> String {
    json!({ "do": work(number, 2) }).to_string()
}

/// Each has one letter, with its bytes.
fn judge_letters(letters: &[Found], bad: &Bad) {
    assert_eq!(letters.len(), bad.len(), "letters");
    let mut found = Bad::new();
    for letter in letters {
        assert_eq!(letter.header("Mesh-Code"), Some("malformed-message"), "{letter:?}");
        assert_eq!(letter.header("Mesh-Attempts"), Some("0"), "{letter:?}");
        let headers = letter.header("Mesh-Original-Headers-Base64").expect("its headers");
        let headers = BASE64.decode(headers).expect("base64");
        let payload = letter.payload.to_vec();
        let kind = KINDS.iter().find(|(_, known)| *known == headers);
        found.insert(payload, kind.unwrap_or_else(|| panic!("other headers: {letter:?}")).1);
    }
    assert_eq!(&found, bad);
}

fn count(host: &Host, words: &[&str]) -> usize {
    let wanted = says(words);
    host.lines().iter().filter(|line| wanted(line)).count()
}

#[tokio::test]
async fn good_ones_among_malformed_ones_are_neither_late_nor_counted() {
    let (mesh, host) = Mesh::start(Config::probe_with(FOREVER)).await;
    let (raw, bad) = mixed(300, 3, works);
    raw.publish(&mesh.server);
    judge_with_letters(&mesh, 300, 2, bad.len()).await;
    judge_letters(&mesh.letters().await, &bad);
    for decision in mesh.decisions("probe").await {
        let attempts = if decision["verdict"] == "done" { 1 } else { 0 };
        assert_eq!(decision["attempt"].as_u64().unwrap_or(1), attempts, "{decision}");
    }
    assert_eq!(mesh.attempts().await, Vec::<serde_json::Value>::new());
    // The first one breaks the connection, and no other does.
    assert_eq!(count(&host, &["connection lost"]), 1);
    assert_eq!(count(&host, &["serving", "guarded=true"]), 1);
}

#[tokio::test]
async fn two_hosts_share_malformed_ones_and_decide_each_event_once() {
    let (mesh, _one) = Mesh::start(Config::probe_with(FOREVER)).await;
    let _two = mesh.host(&[]).await;
    let (raw, bad) = mixed(300, 10, works);
    raw.publish(&mesh.server);
    judge_with_letters(&mesh, 300, 2, bad.len()).await;
    judge_letters(&mesh.letters().await, &bad);
}

#[tokio::test]
async fn without_a_ledger_each_is_run_once_and_each_malformed_one_has_its_letter_whatever_its_stream_keeps() {
    for retention in [
        RetentionPolicy::Limits,
        RetentionPolicy::WorkQueue,
        RetentionPolicy::Interest,
    ] {
        let config = Config::new().handler("probe", &modules::handler("probe"), FOREVER);
        let mesh = Mesh::new(config).await;
        mesh.add_stream("ORDERS", &["orders.>"], retention).await;
        let host = mesh.host(&[]).await;
        let (raw, bad) = mixed(200, 4, |number| format!("{{\"op\":\"ok\",\"n\":{number}}}"));
        raw.publish(&mesh.server);
        mesh.wait_settled("ORDERS", "probe").await;
        judge_letters(&mesh.wait_letters(bad.len()).await, &bad);
        eventually("every good one to be done", SOON, async || {
            (count(&host, &[" done ", "attempt=1 "]) == 200).then_some(())
        })
        .await;
        assert_eq!(count(&host, &[" done "]), 200, "{retention:?}");
        assert_eq!(count(&host, &["connection lost"]), 1, "{retention:?}");
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_lane_that_meets_no_malformed_one_for_a_while_is_guarded_no_more() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host(&[("MESH_FAULT", "suspect-ms:500")]).await;
    let mut good = 0;
    let mut dead = 0;
    for _ in 0..2 {
        let mark = host.lines().len();
        let (raw, bad) = mixed(20, 20, |number| works(good + number));
        raw.publish(&mesh.server);
        good += 20;
        dead += bad.len();
        host.wait_for_line_after(mark, says(&["serving", "guarded=true"]), PATIENT)
            .await;
        host.wait_for_line_after(mark, says(&["serving", "guarded=false"]), PATIENT)
            .await;
    }
    judge_with_letters(&mesh, good, 2, dead).await;
    // Being trusted again is no break.
    assert_eq!(count(&host, &["connection lost"]), 2);
}

/// Everything that a connection may need: a user, and certificates of both sides.
async fn over_tls(server: &str, client: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tls");
    let file = |name: &str| folder.join(name).display().to_string();
    let options = server::Options {
        // The test's own connections are in the clear, so that they can say what no client would.
        config: format!(
            "allow_non_tls: true\n\
             tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true, {server} }}\n\
             authorization {{ users: [{{ user: mesh, password: secret }}] }}\n\
             no_auth_user: mesh\n",
            file("server.pem"),
            file("server.key"),
            file("ca.pem"),
        ),
        ..server::Options::default()
    };
    let nats = format!(
        "user = \"mesh\"\npassword = \"secret\"\ntls_ca = {:?}\ntls_cert = {:?}\ntls_key = {:?}\n{client}",
        file("ca.pem"),
        file("client.pem"),
        file("client.key"),
    );
    let config = Config::probe_with(FOREVER).nats(&nats);
    let mesh = Mesh::over(NatsServer::start_with(&options).await, config).await;
    let url = format!("tls://localhost:{}", mesh.server.addr().port());
    let host = mesh.host_of(&mesh.config, &url, &[]).await;
    let (raw, bad) = mixed(40, 10, works);
    raw.publish(&mesh.server);
    judge_with_letters(&mesh, 40, 2, bad.len()).await;
    judge_letters(&mesh.letters().await, &bad);
    assert_eq!(count(&host, &["connection lost"]), 1);
}

#[tokio::test]
async fn an_encrypted_connection_is_guarded_as_well() {
    over_tls("", "").await;
}

#[tokio::test]
async fn a_connection_that_is_encrypted_from_its_first_byte_is_guarded_as_well() {
    over_tls("handshake_first: auto", "tls_first = true").await;
}

/// A mesh whose stream holds this number of good ones, and a bad one after each `nth`. No host runs yet.
async fn backlog(good: usize, nth: usize) -> (Mesh, Bad) {
    let mesh = Mesh::new(Config::probe_with(&format!("start = \"all\"\n{FOREVER}"))).await;
    mesh.add_stream("ORDERS", &["orders.>"], RetentionPolicy::Limits).await;
    let mut bad = Bad::new();
    let mut published = 0;
    // A server throws away what comes faster than a stream takes it.
    for from in (0..good).step_by(CHUNK) {
        let mut raw = Raw::default();
        for number in from..good.min(from + CHUNK) {
            raw.add(b"orders.probe", GOOD, b"{\"op\":\"ok\"}");
            published += 1;
            if number % nth == nth - 1 {
                let (subject, headers) = KINDS[bad.len() % KINDS.len()];
                let payload = format!("{{\"op\":\"ok\",\"bad\":{}}}", bad.len()).into_bytes();
                raw.add(subject, headers, &payload);
                published += 1;
                bad.insert(payload, headers);
            }
        }
        raw.publish(&mesh.server);
        eventually("what was published to be stored", SOON, async || {
            (mesh.messages_left("ORDERS").await == published).then_some(())
        })
        .await;
    }
    (mesh, bad)
}

const CHUNK: usize = 2000;

/// Starts a host and returns how long it takes to decide everything.
async fn decided(mesh: &Mesh, minutes: u64) -> Duration {
    let _host = mesh.host(&[]).await;
    let began = Instant::now();
    eventually(
        "everything to be decided",
        Duration::from_secs(60 * minutes),
        async || mesh.settled("ORDERS", "probe").await,
    )
    .await;
    let took = began.elapsed();
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    took
}

#[tokio::test]
#[ignore = "takes minutes; make chaos runs it"]
async fn ten_thousand_among_a_hundred_thousand_have_each_one_letter_with_its_bytes() {
    let (mesh, bad) = backlog(100_000, 10).await;
    let took = decided(&mesh, 10).await;
    println!("100,000 good and 10,000 malformed messages decided in {took:.1?}");
    judge_letters(&mesh.letters().await, &bad);
    let mut decided = BTreeMap::new();
    for decision in mesh.decisions("probe").await {
        let done = decision["verdict"] == "done";
        if done {
            assert_eq!(decision["attempt"].as_u64().unwrap_or(1), 1, "{decision}");
        }
        let event = decision["event"].as_str().expect("an event").to_owned();
        assert_eq!(decided.insert(event, done), None, "decided twice: {decision}");
    }
    assert_eq!(decided.values().filter(|done| **done).count(), 100_000);
    assert_eq!(decided.len(), 110_000);
}

#[tokio::test]
#[ignore = "a measurement, to be read: make chaos prints it"]
async fn how_fast_a_backlog_with_malformed_ones_is_decided() {
    println!("of 30,000 good messages, one malformed after each | messages a second");
    for nth in [usize::MAX, 100, 10, 2] {
        let (mesh, bad) = backlog(30_000, nth).await;
        let took = decided(&mesh, 5).await;
        assert_eq!(mesh.letters().await.len(), bad.len());
        let all = 30_000 + bad.len();
        let name = if nth == usize::MAX {
            "never".to_owned()
        } else {
            nth.to_string()
        };
        println!("{name:>6} | {:.0}", all as f64 / took.as_secs_f64());
    }
}
