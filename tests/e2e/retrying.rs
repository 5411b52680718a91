//! What is between two attempts.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::schemas::assert_fits;
use crate::support::wait::SOON;
use crate::support::{Signal, eventually, modules};

/// A probe whose retries are far apart, and one without a ledger.
fn patient() -> Config {
    let slow = "backoff = \"1h\"\nbackoff_max = \"1h\"\nmax_attempts = 3";
    let bare = format!("subjects = [\"orders.bare\"]\n{slow}");
    Config::probe_with(&format!("subjects = [\"orders.probe\"]\n{slow}")).handler(
        "bare",
        &modules::handler("probe"),
        &bare,
    )
}

async fn wait_records(mesh: &Mesh, count: usize) {
    eventually("attempt records", SOON, async || {
        let records = mesh.attempts().await;
        (records.len() == count && records.iter().all(|r| r["next"].is_string())).then_some(())
    })
    .await;
}

async fn listed(mesh: &Mesh, args: &[&str]) -> Vec<Value> {
    let list = mesh.jetmesh_ok(&[&["retrying", "--json"], args].concat()).await;
    list.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

#[tokio::test]
async fn what_failed_and_is_tried_again_is_listed_with_its_last_error_and_its_next_attempt() {
    let (mesh, _host) = Mesh::start(patient()).await;
    assert_eq!(mesh.jetmesh_ok(&["retrying"]).await, "nothing is being retried\n");
    let retry = json!({ "op": "retry", "code": "later", "message": "no stock" });
    mesh.order(retry.clone()).await;
    wait_records(&mesh, 1).await;
    mesh.publish("orders.bare", json!({ "op": "trap" }).to_string()).await;
    wait_records(&mesh, 2).await;
    mesh.order(json!({ "op": "ok" })).await;
    mesh.wait_decisions("probe", 1).await;
    let status: Value = serde_json::from_str(&mesh.jetmesh_ok(&["status", "--json"]).await).expect("JSON");
    for handler in [0, 1] {
        assert_eq!(
            status["handlers"][handler]["retrying"], 1,
            "as this lists them: {status:#}"
        );
    }
    let table = mesh.jetmesh_ok(&["retrying"]).await;
    let records = mesh.attempts().await;
    let event = records[0]["event"].as_str().expect("a record names its event");
    let (incarnation, _) = event.split_once('.').expect("it has a sequence");
    let mut lines = Vec::new();
    for line in table.replace(incarnation, "INC").lines() {
        // The jitter lies within the upper half.
        let times = |word: &str| match word.strip_suffix('Z') {
            Some(time) if time.contains(':') => "[time]".to_owned(),
            _ if word.starts_with(|c: char| c.is_ascii_digit()) && word.contains(['m', 's', 'h']) => {
                "[span]".to_owned()
            }
            _ => word.to_owned(),
        };
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| times(word.trim_end_matches(',')))
            .collect();
        lines.push(words.join(" ").replace("[span] [span]", "[span]"));
    }
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"), @r"
    ID ATTEMPT NEXT SUBJECT CODE LAST ERROR
    bare.INC.2 1 of 3 in [span] [time] orders.bare trap wasm trap: wasm `unreachable` instruction executed
    probe.INC.1 1 of 3 in [span] [time] orders.probe later no stock
    ");
    let all = listed(&mesh, &[]).await;
    let ids: Vec<&Value> = all.iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&json!(format!("probe.{event}")), &all[1]["id"]]);
    let first = &all[0];
    let told = (
        &first["attempts"],
        &first["max_attempts"],
        &first["code"],
        &first["error"],
    );
    assert_eq!(told, (&json!(1), &json!(3), &json!("later"), &json!("no stock")));
    assert_eq!(listed(&mesh, &["--handler", "bare"]).await.len(), 1);
    let next = mesh.jetmesh_ok(&["retrying", "--limit", "1"]).await;
    assert!(
        next.ends_with("\nthe next 1 of 2; all of them with --limit 0\n"),
        "{next}"
    );
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_attempt_that_runs_names_its_host() {
    let config = Config::probe_with("max_attempts = 3");
    let mesh = Mesh::new(config).await;
    let host = mesh.host_with_fault("attempt-written:stop").await;
    mesh.order(json!({ "op": "retry", "code": "later", "message": "no stock" }))
        .await;
    let running = eventually("a second attempt", SOON, async || {
        let list = listed(&mesh, &[]).await;
        list.into_iter().find(|one| one["running_on"].is_string())
    })
    .await;
    let table = mesh.jetmesh_ok(&["retrying"]).await;
    let name = running["running_on"].as_str().expect("a name");
    assert!(table.contains(&format!("2 of 3   running on {name}")), "{table}");
    assert!(
        table.trim_end().ends_with("later  no stock"),
        "the error before: {table}"
    );
    host.signal(Signal::KILL);
    host.wait_exit(PATIENT).await;
}

#[tokio::test]
async fn the_record_of_a_decided_event_is_not_listed() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!({ "op": "ok" })).await;
    let decisions = mesh.wait_decisions("probe", 1).await;
    host.stop().await;
    // Another host's start sweeps, and the next entry tells of the floor.
    let host = mesh.host(&[]).await;
    let event = decisions[0]["event"].as_str().expect("a decision names its event");
    eventually("the floor to rise", SOON, async || {
        mesh.order(json!({ "op": "ok" })).await;
        let head = mesh.messages("KV_probe", "$MESH.state.probe.head").await.pop()?.json();
        (head["floors"]["probe"]["floor"].as_u64()? >= 1).then_some(())
    })
    .await;
    host.stop().await;
    // As a host leaves it that ends between the decision and the record's removal.
    let record = |event: &str| {
        json!({ "handler": "probe", "event": event, "stream": "ORDERS", "subject": "orders.probe", "attempts": 2,
                "first": "2026-01-01T00:00:00.000Z", "next": "2026-01-01T00:00:01.000Z", "history": [] })
    };
    mesh.put("mesh_attempts", &format!("probe.{event}"), &record(event).to_string())
        .await;
    let undecided = event.replace(".1", ".9999");
    mesh.put(
        "mesh_attempts",
        &format!("probe.{undecided}"),
        &record(&undecided).to_string(),
    )
    .await;
    let listed = listed(&mesh, &[]).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["event"], json!(undecided));
}

#[tokio::test]
async fn what_is_to_run_now_does_not_wait_for_its_time_and_what_is_given_up_is_a_dead_letter() {
    let slow = "backoff = \"1h\"\nbackoff_max = \"1h\"\nmax_attempts = 3";
    let bare = format!("subjects = [\"orders.bare\"]\n{slow}");
    let probe = format!("subjects = [\"orders.probe\", \"orders.other\"]\n{slow}");
    let config = Config::probe_with(&probe).handler("bare", &modules::handler("probe"), &bare);
    let (mesh, host) = Mesh::start(config).await;
    let retry = json!({ "op": "retry", "code": "later", "message": "no stock" });
    for subject in ["orders.bare", "orders.other"] {
        mesh.publish(subject, retry.to_string()).await;
    }
    mesh.order(json!([{ "op": "need", "key": "fix" }])).await;
    wait_records(&mesh, 3).await;
    mesh.put("probe", "fix", "yes").await;
    let all = listed(&mesh, &[]).await;
    let id = |subject: &str| {
        let one = all.iter().find(|one| one["subject"] == subject).expect("it is listed");
        one["id"].as_str().expect("text").to_owned()
    };
    let said = mesh.jetmesh_ok(&["retrying", "now", &id("orders.probe")]).await;
    assert_eq!(said, "asked for the next attempt at 1 event\n");
    let done = mesh.wait_decisions("probe", 1).await;
    assert_eq!((&done[0]["verdict"], &done[0]["attempt"]), (&json!("done"), &json!(2)));
    let said = mesh
        .jetmesh_ok(&["retrying", "now", "--code", "later", "--subject", "orders.*", "--yes"])
        .await;
    assert_eq!(said, "asked for the next attempt at 2 events\n");
    eventually("the second attempts to fail", SOON, async || {
        let records = mesh.attempts().await;
        let second = |one: &Value| one["attempts"] == 2 && one["next"].is_string();
        (records.len() == 2 && records.iter().all(second)).then_some(())
    })
    .await;

    let said = mesh
        .jetmesh_ok(&["retrying", "give-up", "--handler", "bare", "--dry-run"])
        .await;
    assert_eq!(said, "1 event: 1 of bare\n");
    let (code, _, said) = mesh.jetmesh(&["retrying", "give-up", &id("orders.bare")]).await;
    assert_eq!(code.code(), Some(1), "{said}");
    assert!(said.contains("nothing is given up"), "{said}");
    assert_eq!(mesh.letters().await.len(), 0);
    let json = mesh
        .jetmesh_ok(&[
            "retrying",
            "give-up",
            "--all",
            "--reason",
            "the price was wrong",
            "--yes",
            "--json",
        ])
        .await;
    assert_fits(&mesh, "retrying-acted", &json).await;
    let acted: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&acted["acted"], &acted["missing"], &acted["waits"]),
        (&json!(2), &json!([]), &json!([]))
    );
    for letter in mesh.wait_letters(2).await {
        let of = |name| letter.header(name).unwrap_or_default();
        assert_eq!(
            (of("Mesh-Cause"), of("Mesh-Code"), of("Mesh-Attempts")),
            ("gave-up", "gave-up", "2")
        );
        let error = of("Mesh-Error");
        let told = ["gave it up: the price was wrong", "it had failed with later: no stock"];
        assert!(told.iter().all(|text| error.contains(text)), "{error}");
        let page = mesh.jetmesh_ok(&["dlq", "show", letter.letter_id()]).await;
        assert!(page.contains("a person gave it up between two attempts"), "{page}");
    }
    assert_eq!(mesh.decisions("probe").await.len(), 2);
    for handler in ["probe", "bare"] {
        mesh.wait_settled("ORDERS", handler).await;
    }
    eventually("the records to go", SOON, async || {
        mesh.attempts().await.is_empty().then_some(())
    })
    .await;

    let (code, _, said) = mesh.jetmesh(&["retrying", "now", &id("orders.bare")]).await;
    assert_eq!(code.code(), Some(1), "{said}");
    assert!(
        said.contains("is between two attempts, or it is decided already"),
        "{said}"
    );
    for (wrong, told) in [
        (&["now"][..], "select events: with an ID, a condition"),
        (&["now", "x"], "is not HANDLER.INCARNATION.SEQUENCE"),
        (
            &["give-up", "--handler", "prob"],
            "there is no handler prob: the configuration has bare, probe",
        ),
        (&["give-up", "a.b.1", "--all"], "IDs cannot be combined"),
    ] {
        let (code, _, said) = mesh.jetmesh(&[&["retrying"], wrong].concat()).await;
        assert_eq!((code.code(), said.contains(told)), (Some(2), true), "{said}");
    }
    drop(host);
}

#[tokio::test]
async fn an_event_that_is_given_up_while_no_host_runs_is_not_run_by_the_next_one() {
    let (mesh, host) = Mesh::start(patient()).await;
    mesh.order(json!([{ "op": "need", "key": "fix" }])).await;
    mesh.publish(
        "orders.bare",
        json!({ "op": "retry", "code": "later", "message": "no stock" }).to_string(),
    )
    .await;
    wait_records(&mesh, 2).await;
    mesh.put("probe", "fix", "yes").await;
    host.stop().await;
    let (code, stdout, said) = mesh.jetmesh(&["retrying", "give-up", "--all", "--yes"]).await;
    assert_eq!(
        (code.code(), stdout.as_str()),
        (Some(0), "gave up 2 events\n"),
        "{said}"
    );
    assert!(
        said.contains("events of probe wait: no host that answers serves it"),
        "{said}"
    );
    let all = listed(&mesh, &[]).await;
    assert!(
        all.len() == 2 && all.iter().all(|one| one["given_up"]["by"].is_string()),
        "{all:?}"
    );
    assert!(mesh.jetmesh_ok(&["retrying"]).await.contains("given up"));
    let _host = mesh.host(&[]).await;
    for letter in mesh.wait_letters(2).await {
        assert_eq!(
            (letter.header("Mesh-Cause"), letter.header("Mesh-Attempts")),
            (Some("gave-up"), Some("1"))
        );
    }
    assert!(mesh.decisions("probe").await.iter().all(|one| one["verdict"] == "dead"));
}
