//! Hosts and commands on machines whose clock is wrong: what they do and write has the server's time.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::support::{Host, cli};

const MINUTE_MS: i128 = 60_000;
const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

/// Whether a time that was written (RFC 3339) is that of a message, within a minute.
fn is_near(text: &Value, at_ms: i128) -> bool {
    let time: jiff::Timestamp = text.as_str().expect("a time").parse().expect("a time");
    (i128::from(time.as_millisecond()) - at_ms).abs() < MINUTE_MS
}

fn has_warned(host: &Host) -> usize {
    let warned = says(&["WARN", "this host's clock is", "of the NATS server"]);
    host.lines().iter().filter(|line| warned(line)).count()
}

#[cfg(feature = "failpoints")]
async fn runs_on_time(fault: &str, ahead_ms: i64, words: &str) {
    let mesh = Mesh::new(Config::probe_with("max_attempts = 2")).await;
    let host = mesh.host(&[("MESH_FAULT", fault)]).await;
    mesh.order(json!([
        { "op": "random", "subject": "events.clock" },
        { "op": "emit_later", "subject": "events.later", "payload": "it is time", "after_ms": 1500 },
    ]))
    .await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "no" }))
        .await;
    // One that comes by the wrong clock comes in an hour, or comes at once.
    let events = mesh.wait_emitted(2).await;
    let (clock, later) = (&events[0], &events[1]);
    assert!(later.time_ms >= clock.time_ms + 1000, "it has waited: {events:?}");
    let guest_ms = i128::from(clock.json()["time_ms"].as_u64().expect("a number"));
    assert!(
        (guest_ms - clock.time_ms).abs() < MINUTE_MS,
        "a guest's clock: {guest_ms}"
    );
    let letter = mesh.wait_letters(1).await.remove(0);
    let last = json!(letter.header("Mesh-Last-Attempt").expect("it has one"));
    assert!(is_near(&last, letter.time_ms), "{last}");
    let entries = mesh.messages("KV_probe", "$MESH.state.probe.ledger.>").await;
    for entry in entries {
        assert!(is_near(&entry.json()["at"], entry.time_ms), "{}", entry.json());
    }
    assert_eq!(has_warned(&host), usize::from(ahead_ms != 0), "{:?}", host.lines());
    let status: Value = serde_json::from_str(&mesh.jetmesh_ok(&["status", "--json"]).await).expect("JSON");
    let told = &status["hosts"][0]["data"]["clock_ahead_ms"];
    let told = told.as_i64().expect("a number");
    assert!((told - ahead_ms).abs() <= 1000, "{told}");
    let text = mesh.jetmesh_ok(&["status"]).await;
    assert_eq!(text.contains("its clock is"), ahead_ms != 0, "{text}");
    assert!(text.contains(words), "{text}");
    // A command on that machine goes by the server's clock as well.
    let file = mesh.write_config();
    let command = async |args: &[&str]| {
        let file = file.to_str().expect("its path is UTF-8");
        let args = [args, &["--config", file]].concat();
        cli::jetmesh_with(mesh.dir.path(), &args, &[("MESH_FAULT", fault)])
            .await
            .1
    };
    let letters = command(&["dlq", "ls", "--since", "5m"]).await;
    assert!(letters.contains(letter.letter_id()), "{letters}");
    let letters = command(&["dlq", "ls", "--until", "5m"]).await;
    assert!(!letters.contains(letter.letter_id()), "{letters}");
    let found = command(&["trace", "--key", "code=no", "--since", "5m"]).await;
    assert!(found.contains("orders.probe"), "{found}");
    let checked = command(&["check", "--connect"]).await;
    assert_eq!(
        checked.contains("the clock of this machine is"),
        ahead_ms != 0,
        "{checked}"
    );
    assert!(checked.contains(words), "{checked}");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_whose_clock_is_an_hour_ahead_goes_by_the_servers_and_says_so() {
    runs_on_time(
        "clock-ahead-ms:3600000",
        HOUR_MS.cast_signed(),
        "1h ahead of that of the NATS server",
    )
    .await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_whose_clock_is_a_year_ahead_goes_by_the_servers_and_says_so() {
    let fault = format!("clock-ahead-ms:{YEAR_MS}");
    runs_on_time(&fault, YEAR_MS.cast_signed(), "ahead of that of the NATS server").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_whose_clock_is_behind_goes_by_the_servers_and_says_so() {
    runs_on_time(
        "clock-behind-ms:3600000",
        -HOUR_MS.cast_signed(),
        "1h behind that of the NATS server",
    )
    .await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_whose_clock_is_right_says_nothing_of_it() {
    runs_on_time("none:off", 0, "").await;
}
