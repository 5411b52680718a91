//! The circuit of a handler: what is down makes few dead letters, and what is up again is used at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::poisoned::{fix, poison, publish};
use crate::schemas::assert_fits;
use crate::support::wait::SOON;
use crate::support::{eventually, modules};

const OPEN: &str = "the circuit is open";
const CLOSED: &str = "the circuit is closed";
/// The longest between two probes of these tests.
const PROBE_MAX: Duration = Duration::from_millis(500);

/// The probe with a circuit, and a neighbour that needs nothing.
fn config() -> Config {
    let lines = "max_attempts = 3\nbackoff_max = \"200ms\"\nconcurrency = 4\n\
        circuit = true\ncircuit_failures = 10\ncircuit_probe = \"100ms\"\ncircuit_probe_max = \"500ms\"";
    let neighbour = "bucket = \"neighbour\"\ncircuit = true\ncircuit_failures = 10";
    Config::probe_with(lines).handler("neighbour", &modules::handler("probe"), neighbour)
}

fn count(lines: &[String], texts: &[&str]) -> usize {
    lines.iter().filter(|line| says(texts)(line)).count()
}

/// What `jetmesh status` says of the probe.
async fn status(mesh: &Mesh) -> Value {
    let (_, stdout, stderr) = mesh.jetmesh(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    assert_fits(mesh, "status", &status.to_string()).await;
    let mut handlers = status["handlers"].as_array().expect("handlers").iter();
    handlers
        .find(|one| one["handler"] == "probe")
        .expect("the probe")
        .clone()
}

#[tokio::test]
async fn what_is_down_for_long_makes_few_letters_and_recovery_takes_one_probe_interval() {
    const EVENTS: usize = 300;
    let (mesh, host) = Mesh::start(config()).await;
    publish(&mesh, 0, EVENTS).await;
    host.wait_for_line(says(&[OPEN, "handler=\"probe\""]), SOON).await;
    mesh.wait_settled("ORDERS", "neighbour").await;
    // Some events have died by then.
    let told = eventually("some probes in vain", SOON, async || {
        let told = status(&mesh).await;
        (told["circuits"][0]["probes"].as_u64() >= Some(6)).then_some(told)
    })
    .await;
    assert_eq!(told["state"], "degraded", "{told}");
    let circuit = &told["circuits"][0];
    let why = circuit["why"].as_str().expect("it says why");
    assert!(
        why.starts_with("10 of 10 attempts") && why.ends_with("not-there: there is no fix"),
        "{why}"
    );
    assert!(
        circuit["since"].is_string() && circuit["next_probe"].is_string(),
        "{told}"
    );
    let (_, text, _) = mesh.jetmesh(&["status"]).await;
    assert!(
        text.contains("its circuit on host ") && text.contains("the next probe is "),
        "{text}"
    );
    // Each event that died did so by two probes at least, as its first attempt has only helped to open it.
    let (letters, probes) = (
        mesh.letters().await.len(),
        circuit["probes"].as_u64().expect("a number"),
    );
    assert!((1..=16).contains(&probes), "{told}");
    assert!(letters as u64 <= probes / 2 + 1, "{letters} letters by {probes} probes");
    assert_eq!(count(&host.lines(), &[CLOSED]), 0);

    let fixed = Instant::now();
    fix(&mesh).await;
    let closed = host.wait_for_line(says(&[CLOSED, "handler=\"probe\""]), SOON).await;
    let took = fixed.elapsed();
    assert!(took < PROBE_MAX + Duration::from_millis(1500), "{took:?}");
    mesh.wait_settled("ORDERS", "probe").await;
    let decisions = mesh.decisions("probe").await;
    let done: Vec<&Value> = decisions.iter().filter(|one| one["verdict"] == "done").collect();
    assert_eq!(done.len() + mesh.letters().await.len(), EVENTS);
    // Ten attempts have opened it, four ran beside them; what has waited was not charged for it.
    let probes = closed
        .split_once("probes=")
        .map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default().parse::<u64>());
    let probes = probes.expect("it says how many").expect("a number");
    let first = done.iter().filter(|one| one["attempt"] == 1).count();
    assert!(
        first as u64 >= EVENTS as u64 - 14 - probes,
        "{first} at their first attempt"
    );
    let lines = host.lines();
    assert_eq!((count(&lines, &[OPEN]), count(&lines, &[CLOSED])), (1, 1));
    assert_eq!(status(&mesh).await["state"], "serving");
    assert_eq!(mesh.decisions("neighbour").await.len(), EVENTS);
}

#[tokio::test]
async fn a_circuit_that_holds_nothing_back_closes_and_so_does_one_whose_dead_letter_is_replayed_well() {
    let lines = "max_attempts = 1\nconcurrency = 4\ncircuit = true\ncircuit_failures = 10\ncircuit_window = \"4s\"\n\
        circuit_probe = \"100ms\"\n[handlers.probe.redrive]\nevery = \"1h\"";
    let (mesh, host) = Mesh::start(Config::probe_with(lines)).await;
    // All of them die, so no event is left for a probe.
    publish(&mesh, 0, 10).await;
    host.wait_for_line(says(&[OPEN]), SOON).await;
    mesh.wait_letters(10).await;
    assert_eq!(status(&mesh).await["state"], "degraded");
    let redrive = mesh.jetmesh_ok(&["redrive", "status"]).await;
    assert!(redrive.contains("circuit for this handler is open"), "{redrive}");
    let idle = [CLOSED, "no event has come to probe with"];
    host.wait_for_line(says(&idle), SOON).await;
    assert_eq!(status(&mesh).await["state"], "serving");

    publish(&mesh, 10, 20).await;
    let letters = mesh.wait_letters(20).await;
    eventually("it opens again", SOON, async || {
        (count(&host.lines(), &[OPEN]) == 2).then_some(())
    })
    .await;
    fix(&mesh).await;
    let letter = letters.first().expect("there are some").letter_id();
    mesh.jetmesh_ok(&["dlq", "replay", letter, "--yes"]).await;
    let lines = host.lines();
    assert_eq!((count(&lines, &[CLOSED]), count(&lines, &idle)), (2, 1), "{lines:#?}");
}

#[tokio::test]
async fn rejects_and_traps_open_no_circuit() {
    let (mesh, host) = Mesh::start(config()).await;
    for n in 0..40 {
        let step = match n % 2 {
            0 => json!({ "op": "reject", "code": "never", "message": "no" }),
            _ => json!({ "op": "trap" }),
        };
        mesh.order(json!([{ "op": "for", "handler": "probe", "do": [step] }]))
            .await;
    }
    mesh.wait_letters(40).await;
    assert_eq!(count(&host.lines(), &[OPEN]), 0);
}

#[tokio::test]
async fn a_host_whose_circuit_is_open_ends_at_once_and_another_one_does_what_has_waited() {
    let (mesh, host) = Mesh::start(config()).await;
    publish(&mesh, 0, 40).await;
    host.wait_for_line(says(&[OPEN]), SOON).await;
    let began = Instant::now();
    host.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    fix(&mesh).await;
    let _host = mesh.host(&[]).await;
    mesh.order(poison(40)).await;
    mesh.wait_settled("ORDERS", "probe").await;
    let decisions = mesh.decisions("probe").await;
    let done = decisions.iter().filter(|one| one["verdict"] == "done").count();
    assert_eq!(done + mesh.letters().await.len(), 41);
    assert!(done >= 38, "{decisions:?}");
}
