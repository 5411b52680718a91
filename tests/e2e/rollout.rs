//! A version takes over step by step: every host counts the same, a bad one goes back by itself, and no event is worse off for it.

use std::collections::BTreeMap;
use std::process::ExitStatus;

use serde_json::{Value, json};

use crate::mesh::{Mesh, PATIENT, says};
use crate::permissions::all_but;
use crate::registry::{self, serving_with};
use crate::schemas::object;
use crate::support::{Host, NatsServer, eventually};

/// Orders of a step: the event says by which version it was done.
const TELLS: &str = "events.version";

async fn promote(mesh: &Mesh, digest: &str, how: &[&str]) -> (ExitStatus, String, String) {
    mesh.jetmesh(&[&["modules", "promote", "probe", digest], how].concat())
        .await
}

/// Publishes orders that add one to a key of their own, tell the version, and do something more.
async fn publish(mesh: &Mesh, range: std::ops::Range<usize>, more: impl Fn(usize) -> Value) {
    for number in range {
        let own = json!({ "op": "add", "key": format!("own.{number}"), "by": 1 });
        let tells = json!({ "op": "version", "subject": TELLS });
        mesh.order(json!({ "do": [own, tells, more(number)] })).await;
    }
}

/// Every order was done once.
async fn judge(mesh: &Mesh, count: usize) {
    let emitted = mesh.wait_emitted(count).await;
    assert_eq!(emitted.len(), count, "each event was emitted once");
    mesh.wait_settled("ORDERS", "probe").await;
    for number in 0..count {
        let own = mesh.value("probe", &format!("own.{number}")).await;
        assert_eq!(own.as_deref(), Some("1"), "the write of order {number}");
    }
    mesh.wait_letters(0).await;
}

/// How many events each version has done.
async fn by_version(mesh: &Mesh) -> BTreeMap<String, usize> {
    let mut versions = BTreeMap::new();
    for event in mesh.emitted().await {
        *versions
            .entry(event.json().as_str().unwrap_or("?").to_owned())
            .or_default() += 1;
    }
    versions
}

async fn why(mesh: &Mesh) -> Value {
    let page: Value =
        serde_json::from_str(&mesh.jetmesh_ok(&["modules", "why", "probe", "--json"]).await).expect("JSON");
    page["handlers"][0]["rollout"].clone()
}

async fn record(mesh: &Mesh) -> Value {
    let found = mesh.messages("KV_mesh_modules", "$KV.mesh_modules.serving.probe").await;
    found.last().expect("something is promoted").json()
}

async fn wait_act(mesh: &Mesh, act: &str) -> Value {
    eventually(&format!("the record to be {act}"), PATIENT, async || {
        let record = record(mesh).await;
        (record["act"] == act).then_some(record)
    })
    .await
}

async fn wait_canary(hosts: &[&Host]) {
    for host in hosts {
        host.wait_for_line(says(&["a canary takes over step by step"]), PATIENT)
            .await;
    }
}

/// The first attempts that the ledger counts.
async fn trials(mesh: &Mesh) -> Vec<Value> {
    let entries = mesh.messages("KV_probe", "$MESH.state.probe.ledger.>").await;
    let of = |entry: Value| entry["trials"].as_array().cloned().unwrap_or_default();
    entries.iter().flat_map(|entry| of(entry.json())).collect()
}

const NOTHING: fn(usize) -> Value = |_| json!({ "op": "ok" });

/// What `modules why --json` prints during a rollout.
pub async fn told_as_json() -> String {
    let (mesh, host, [_, second]) = serving_with(&[], "").await;
    promote(&mesh, &second, &["--canary", "50%"]).await;
    wait_canary(&[&host]).await;
    publish(&mesh, 0..10, NOTHING).await;
    judge(&mesh, 10).await;
    object(&mesh, &["modules", "why", "probe", "--json"]).await
}

#[tokio::test]
async fn a_canary_that_fails_goes_back_by_itself_and_no_event_is_worse_off() {
    let (mesh, host, [first, second]) = serving_with(&[], "max_attempts = 1").await;
    let other = mesh.host(&[]).await;
    let how = ["--canary", "20%,100%", "--each", "1000 events, 1s"];
    let (status, told, error) = promote(&mesh, &second, &how).await;
    assert!(status.success(), "{told} {error}");
    assert!(
        told.contains("takes version") && told.contains("modules why probe"),
        "{told}"
    );
    wait_canary(&[&host, &other]).await;
    // With one attempt, what fails or is rejected would be dead at once.
    let bad = |number: usize| {
        let step = match number % 3 {
            0 => json!({ "op": "trap" }),
            1 => json!({ "op": "reject", "code": "c", "message": "m" }),
            _ => json!({ "op": "retry", "code": "c", "message": "m" }),
        };
        json!({ "op": "in_version", "version": "2", "do": [step] })
    };
    publish(&mesh, 0..200, bad).await;
    let record = wait_act(&mesh, "canary-failed").await;
    assert_eq!((&record["digest"], &record["rollout"]), (&json!(first), &Value::Null));
    let note = record["note"].as_str().expect("it says why");
    assert!(
        note.contains("failed on the canary") && note.contains("entry"),
        "{note}"
    );
    publish(&mesh, 200..260, bad).await;
    judge(&mesh, 260).await;
    assert_eq!(by_version(&mesh).await, BTreeMap::from([("1".to_owned(), 260)]));
    // Few failures were enough, and no event met it afterwards.
    let why = why(&mesh).await;
    assert_eq!(
        (&why["verdict"], &why["derived"]),
        (&json!("rolled-back"), &json!(true)),
        "{why}"
    );
    let failed = why["steps"][0]["canary_failed"].as_u64().expect("a number");
    assert!((2..=20).contains(&failed), "{why}");
    let later = trials(&mesh).await.into_iter().filter(|trial| {
        let sequence = trial["event"].as_str().and_then(|event| event.rsplit('.').next());
        sequence.and_then(|sequence| sequence.parse().ok()) > Some(200)
    });
    assert_eq!(later.collect::<Vec<Value>>(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_canary_that_is_no_worse_takes_over_step_by_step() {
    let (mesh, host, [_, second]) = serving_with(&[], "").await;
    let how = ["--canary", "20%,60%", "--each", "40 events", "--margin", "10%"];
    let (status, _, error) = promote(&mesh, &second, &how).await;
    assert!(status.success(), "{error}");
    wait_canary(&[&host]).await;
    publish(&mesh, 0..100, NOTHING).await;
    mesh.wait_emitted(100).await;
    let first = by_version(&mesh).await;
    let share = first.get("2").copied().unwrap_or(0);
    assert!((5..=45).contains(&share), "about a fifth of 100: {first:?}");
    assert_eq!(
        why(&mesh).await["verdict"],
        Value::Null,
        "for want of data nothing is promoted"
    );
    let mut count = 100;
    eventually("the canary to be promoted", PATIENT, async || {
        publish(&mesh, count..count + 20, NOTHING).await;
        count += 20;
        (record(&mesh).await["act"] == "promoted").then_some(())
    })
    .await;
    let record = record(&mesh).await;
    assert_eq!((&record["digest"], &record["by"]), (&json!(second), &json!("jetmesh")));
    judge(&mesh, count).await;
    let why = why(&mesh).await;
    assert_eq!(
        (&why["verdict"], &why["derived"]),
        (&json!("promoted"), &json!(true)),
        "{why}"
    );
    let steps = why["steps"].as_array().expect("steps");
    let enough = steps.iter().all(|step| step["canary"].as_u64() >= Some(40));
    assert!(steps.len() == 2 && enough, "{why}");
    host.wait_for_line(says(&["the rollout is over"]), PATIENT).await;
    mesh.order(json!({ "op": "version", "subject": TELLS })).await;
    let emitted = mesh.wait_emitted(count + 1).await;
    assert_eq!(emitted.last().expect("one").json(), "2");
}

#[tokio::test]
async fn an_event_that_fails_on_both_versions_counts_for_neither() {
    let (mesh, host, [_, second]) = serving_with(&[], "backoff = \"100ms\"").await;
    promote(&mesh, &second, &["--canary", "50%"]).await;
    wait_canary(&[&host]).await;
    // A publisher whose events fail the first time, whichever version has them.
    publish(&mesh, 0..60, |_| json!({ "op": "fail_until", "attempt": 2 })).await;
    judge(&mesh, 60).await;
    let why = why(&mesh).await;
    let step = &why["steps"][0];
    assert_eq!(
        (&step["both_failed"], &why["verdict"]),
        (&json!(60), &Value::Null),
        "{why}"
    );
    assert_eq!((&step["canary"], &step["serving"]), (&json!(0), &json!(0)), "{why}");
    // A second attempt goes to the serving version.
    assert_eq!(by_version(&mesh).await, BTreeMap::from([("1".to_owned(), 60)]));
}

#[tokio::test]
async fn what_only_the_serving_version_fails_speaks_for_the_canary_before_it_is_decided() {
    let (mesh, host, [_, second]) = serving_with(&[], "backoff = \"30s\"").await;
    promote(&mesh, &second, &["--canary", "10%"]).await;
    wait_canary(&[&host]).await;
    // Half of them read nothing, so that their attempt has nothing else to wait for.
    let fails = json!({ "op": "in_version", "version": "1", "do": [{ "op": "fail_until", "attempt": 2 }] });
    publish(&mesh, 0..15, |_| fails.clone()).await;
    for _ in 0..15 {
        mesh.order(json!([fails])).await;
    }
    let why = eventually("all first attempts to be counted", PATIENT, async || {
        let why = why(&mesh).await;
        let step = &why["steps"][0];
        let counted = step["canary"].as_u64()? + step["serving_failed"].as_u64()?;
        (counted == 30).then_some(why)
    })
    .await;
    assert!(why["steps"][0]["serving_failed"].as_u64() >= Some(15), "{why}");
    assert!(why["evidence"].as_f64() < Some(1.0) && why["derived"] == true, "{why}");
    // They wait for their second attempt: nothing of them is decided.
    let decided = mesh.decisions("probe").await.len() as u64;
    assert_eq!(Some(decided), why["steps"][0]["canary"].as_u64());
}

#[tokio::test]
async fn a_shadow_carries_nothing_out_and_tells_what_would_have_been_different() {
    let (mesh, host, [first, second]) = serving_with(&[], "").await;
    let (status, _, error) = promote(&mesh, &second, &["--shadow", "1h", "--canary", "10%"]).await;
    assert!(status.success(), "{error}");
    wait_canary(&[&host]).await;
    let other = |number: usize| match number % 4 {
        0 => {
            json!({ "op": "in_version", "version": "2", "do": [{ "op": "set", "key": "shadow", "value": "written" }] })
        }
        _ => json!({ "op": "ok" }),
    };
    publish(&mesh, 0..40, other).await;
    judge(&mesh, 40).await;
    assert_eq!(by_version(&mesh).await, BTreeMap::from([("1".to_owned(), 40)]));
    assert_eq!(mesh.value("probe", "shadow").await, None);
    let why = why(&mesh).await;
    let step = &why["steps"][0];
    assert_eq!(step["step"], "shadow");
    // Each tells its version, so all of them differ: by what they emit, or by the key.
    assert_eq!(
        (&step["canary"], &step["serving"], &step["differ"]),
        (&json!(40), &json!(40), &json!(40)),
        "{why}"
    );
    host.wait_for_line(
        says(&["would have done something different", "it writes key shadow"]),
        PATIENT,
    )
    .await;
    assert_eq!(record(&mesh).await["digest"], first);
}

#[tokio::test]
async fn a_rollout_is_ended_by_a_rollback_or_a_promotion_and_by_nothing_else() {
    let (mesh, host, [first, second]) = serving_with(&[], "").await;
    promote(&mesh, &second, &["--canary", "50%"]).await;
    wait_canary(&[&host]).await;
    for refused in [
        &["modules", "hold", "probe"][..],
        &["modules", "promote", "probe", &second, "--canary", "50%"],
        &["modules", "promote", "probe", &first],
        &["modules", "rollback", "probe", &second],
    ] {
        let (status, _, error) = mesh.jetmesh(refused).await;
        assert_eq!(status.code(), Some(1), "{refused:?}");
        assert!(
            error.contains("a rollout of probe is under way"),
            "{refused:?}: {error}"
        );
    }
    mesh.jetmesh_ok(&["modules", "prune", "probe", "--keep", "1"]).await;
    mesh.jetmesh_ok(&["modules", "rollback", "probe"]).await;
    host.wait_for_line(says(&["the rollout is over"]), PATIENT).await;
    publish(&mesh, 0..30, NOTHING).await;
    judge(&mesh, 30).await;
    assert_eq!(by_version(&mesh).await, BTreeMap::from([("1".to_owned(), 30)]));
    // The same version is tried again, from the beginning, and is promoted by a person meanwhile.
    promote(&mesh, &second, &["--canary", "50%"]).await;
    eventually("the canary to do events", PATIENT, async || {
        mesh.order(json!({ "op": "version", "subject": TELLS })).await;
        by_version(&mesh).await.contains_key("2").then_some(())
    })
    .await;
    mesh.jetmesh_ok(&["modules", "promote", "probe", &second]).await;
    assert_eq!(record(&mesh).await["digest"], second);
}

#[tokio::test]
async fn a_host_that_starts_during_a_rollout_goes_on_where_it_was() {
    let (mesh, host, [first, second]) = serving_with(&[], "").await;
    promote(&mesh, &second, &["--canary", "30%", "--each", "1000 events"]).await;
    wait_canary(&[&host]).await;
    publish(&mesh, 0..40, NOTHING).await;
    judge(&mesh, 40).await;
    let before = why(&mesh).await;
    host.stop().await;
    let host = mesh.host(&[]).await;
    wait_canary(&[&host]).await;
    let bad = |_| json!({ "op": "in_version", "version": "2", "do": [{ "op": "trap" }] });
    publish(&mesh, 40..140, bad).await;
    let record = wait_act(&mesh, "canary-failed").await;
    assert_eq!(record["digest"], first);
    judge(&mesh, 140).await;
    let after = why(&mesh).await;
    assert_eq!(before["number"], after["number"]);
    assert!(
        after["steps"][0]["serving"].as_u64() > before["steps"][0]["serving"].as_u64(),
        "{after}"
    );
    assert_eq!(after["derived"], true, "{after}");
}

#[tokio::test]
async fn what_cannot_be_judged_is_refused_with_the_fix() {
    let (mesh, _host, [first, second]) = serving_with(&[], "").await;
    let refused = [
        (&["--canary", "50%,10%"][..], Some(2), "each share must be larger"),
        (&["--canary", "10"], Some(2), "not a percentage"),
        (&["--canary", "10%", "--each", "5"], Some(2), "a number and a unit"),
        (
            &["--canary", "10%", "--only", "kind"],
            Some(2),
            "a header and its value",
        ),
    ];
    for (how, code, text) in refused {
        let (status, _, error) = promote(&mesh, &second, how).await;
        assert_eq!(status.code(), code, "{how:?}: {error}");
        assert!(error.contains(text), "{how:?}: {error}");
    }
    assert_eq!(record(&mesh).await["digest"], first);
}

#[tokio::test]
async fn hosts_that_may_not_write_the_end_of_a_rollout_act_by_the_ledger_and_say_what_they_lack() {
    let server = NatsServer::start_with(&all_but("$KV.mesh_modules.serving.>")).await;
    let mut mesh = Mesh::over(server, registry::config()).await;
    let [_, second] = registry::pushed_to(&mesh).await;
    let (status, _, error) = promote(&mesh, &second, &["--canary", "50%"]).await;
    assert!(status.success(), "{error}");
    mesh.config = registry::config().nats("user = \"host\"").nats("password = \"pw\"");
    let host = mesh.host(&[]).await;
    wait_canary(&[&host]).await;
    let bad = |_| json!({ "op": "in_version", "version": "2", "do": [{ "op": "trap" }] });
    publish(&mesh, 0..100, bad).await;
    let grant = "grant `$KV.mesh_modules.serving.*`";
    host.wait_for_line(
        says(&["WARN", "the end of a rollout could not be written", grant]),
        PATIENT,
    )
    .await;
    judge(&mesh, 100).await;
    assert_eq!(why(&mesh).await["verdict"], "rolled-back");
    let before = trials(&mesh).await.len();
    publish(&mesh, 100..130, bad).await;
    judge(&mesh, 130).await;
    assert_eq!(trials(&mesh).await.len(), before, "the canary meets no event any more");
}

#[tokio::test]
async fn a_rehearsal_compares_the_newest_events_on_two_versions_and_changes_nothing() {
    let (mesh, _host, [first, second]) = serving_with(&[], "max_attempts = 1").await;
    let only = |version: &str, step: Value| json!([{ "op": "in_version", "version": version, "do": [step] }]);
    let trap = json!({ "op": "trap" });
    let orders = [
        json!({ "op": "ok" }),
        json!({ "op": "add", "key": "n", "by": 1 }),
        only("2", trap.clone()),
        only("1", trap.clone()),
        trap,
        only("2", json!({ "op": "set", "key": "other", "value": "x" })),
    ];
    // Older events are not among the newest.
    for _ in 0..20 {
        mesh.order(only("2", json!({ "op": "trap" }))).await;
    }
    for order in &orders {
        mesh.order(order.clone()).await;
    }
    mesh.wait_settled("ORDERS", "probe").await;
    let before = mesh.messages("KV_probe", ">").await.len();
    let (status, text, error) = mesh
        .jetmesh(&["modules", "rehearse", "probe", "2.0.0", "--last", "6", "--json"])
        .await;
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{error}"));
    assert_eq!(status.code(), Some(1), "an event fails on the version only: {told}");
    let counts = ["events", "failed", "serving_failed", "both_failed", "differ"].map(|key| told[key].as_u64());
    assert_eq!(counts, [6, 1, 1, 1, 1].map(Some), "{told}");
    assert_eq!((&told["digest"], &told["serving"]), (&json!(second), &json!(first)));
    let differences: Vec<&str> = told["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["difference"].as_str())
        .collect();
    let wanted = [
        "it ended with trap instead of done",
        "it ended with done instead of trap",
        "it writes key other",
    ];
    assert_eq!(differences, wanted, "{told}");
    assert_eq!(
        mesh.messages("KV_probe", ">").await.len(),
        before,
        "nothing was written"
    );
    // The same for people, and one that has nothing against it.
    let (status, text, _) = mesh.jetmesh(&["modules", "rehearse", "probe", "1.0.0"]).await;
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("26 event(s) on"), "{text}");
}

/// What `modules rehearse --json` prints.
pub async fn rehearsal_as_json() -> String {
    let (mesh, _host, _) = serving_with(&[], "").await;
    publish(&mesh, 0..3, NOTHING).await;
    judge(&mesh, 3).await;
    object(&mesh, &["modules", "rehearse", "probe", "2.0.0", "--json"]).await
}
