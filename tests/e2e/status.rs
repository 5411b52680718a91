//! `jetmesh status` names whatever does not serve, and why.

use std::path::Path;
use std::time::UNIX_EPOCH;

use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{Host, Signal, cli, eventually, host, modules};

/// What it prints with `--json`, and its exit code.
async fn status(mesh: &Mesh) -> (Option<i32>, Value) {
    let (code, text, stderr) = mesh.jetmesh(&["status", "--json"]).await;
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
    (code.code(), value)
}

/// Waits until one handler stands so; returns its row.
async fn stands(mesh: &Mesh, at: usize, state: &str) -> Value {
    eventually(format!("handler {at} to be {state}"), PATIENT, async || {
        let (_, status) = status(mesh).await;
        (status["handlers"][at]["state"] == state).then(|| status["handlers"][at].clone())
    })
    .await
}

fn why(row: &Value) -> &str {
    row["why"].as_str().unwrap_or("nothing")
}

#[tokio::test]
async fn its_code_tells_scripts_whether_everything_serves() {
    let mesh = Mesh::new(Config::probe()).await;
    let (code, before) = status(&mesh).await;
    assert_eq!((code, &before["serves"]), (Some(6), &json!(false)), "{before:#}");
    let host = mesh.host(&[]).await;
    stands(&mesh, 0, "serving").await;
    let (code, during) = status(&mesh).await;
    assert_eq!((code, &during["serves"]), (Some(0), &json!(true)), "{during:#}");
    let text = mesh.jetmesh_ok(&["status"]).await;
    assert_eq!(text.lines().count(), 3, "nothing but its table: {text}");
    host.stop().await;
    let (code, after) = status(&mesh).await;
    assert_eq!(code, Some(6));
    assert_eq!(why(&after["handlers"][0]), "no host answers");
}

#[tokio::test]
async fn every_handler_has_a_row_whatever_is_wrong_with_it_or_with_others() {
    let probe = modules::handler("probe");
    let mesh = Mesh::new(
        Config::new()
            .handler("a-lost", &probe, "stream = \"ABSENT\"")
            .handler("b-late", &probe, "stream = \"FULL\"")
            .handler("c-good", &probe, "bucket = \"good\""),
    )
    .await;
    mesh.add_stream("FULL", &["full.>"], RetentionPolicy::Limits).await;
    mesh.publish("full.1", "{}").await;
    let config = mesh.config.text(&mesh.server.url());
    let _host = Host::start(&config, mesh.dir.path(), &[]);
    let lost = stands(&mesh, 0, "stopped").await;
    assert!(
        why(&lost).contains("there is no stream ABSENT: create it with"),
        "{lost:#}"
    );
    assert!(lost["since"].is_string(), "{lost:#}");
    let late = stands(&mesh, 1, "stopped").await;
    assert!(why(&late).contains("set where it starts"), "{late:#}");
    let good = stands(&mesh, 2, "serving").await;
    assert_eq!((why(&good), &good["pending"]), ("nothing", &json!(0)), "{good:#}");
    let (code, text, _) = mesh.jetmesh(&["status"]).await;
    assert_eq!(code.code(), Some(6));
    assert!(text.contains("a-lost is stopped (for "), "{text}");
}

#[tokio::test]
async fn a_ledger_that_is_gone_stops_its_handlers_and_hides_nothing_else() {
    let probe = modules::handler("probe");
    let config = Config::new()
        .handler("a-kept", &probe, "bucket = \"kept\"\nsubjects = [\"orders.probe\"]")
        .handler("b-gone", &probe, "bucket = \"gone\"\nsubjects = [\"orders.gone\"]");
    let (mesh, host) = Mesh::start(config).await;
    mesh.js.delete_stream("KV_gone").await.expect("it goes");
    mesh.publish("orders.gone", json!({ "op": "add", "key": "n", "by": 1 }).to_string())
        .await;
    let gone = stands(&mesh, 1, "stopped").await;
    assert!(why(&gone).contains("gone"), "{gone:#}");
    let kept = stands(&mesh, 0, "serving").await;
    assert_eq!(kept["decided"], 0, "{kept:#}");
    let (code, status) = status(&mesh).await;
    assert_eq!(code, Some(6));
    assert_eq!(status["ledgers"][0]["state"], "stopped", "{status:#}");
    assert_eq!(status["ledgers"][0]["ledger"], "gone");
    assert_eq!(status["ledgers"][1]["state"], "works");
    assert_eq!(
        mesh.js.get_stream("KV_gone").await.map(|_| ()).ok(),
        None,
        "no host makes it by itself"
    );
    let line = host
        .wait_for_line(
            says(&["the ledger is stopped", "bucket gone does not exist any more"]),
            PATIENT,
        )
        .await;
    assert!(
        line.contains("the decisions of its handlers are lost") && line.contains("jetmesh reset"),
        "{line}"
    );
}

#[tokio::test]
async fn consequences_that_nobody_relays_are_counted_with_their_age() {
    let (mesh, _host) = Mesh::start(Config::probe().top("relay = false")).await;
    mesh.order(json!({ "op": "emit", "subject": "events.waits", "payload": 1 }))
        .await;
    mesh.wait_decisions("probe", 1).await;
    let (code, status) = status(&mesh).await;
    assert_eq!(code, Some(6));
    let relay = &status["ledgers"][0]["relay"];
    assert_eq!(
        (&relay["state"], &relay["waiting"]),
        (&json!("unserved"), &json!(1)),
        "{relay:#}"
    );
    assert!(relay["oldest"].is_string(), "{relay:#}");
    let lag = relay["lag_ms"].as_u64().expect("it is known how long it waits");
    assert!((1..60_000).contains(&lag), "{relay:#}");
    let (_, text, _) = mesh.jetmesh(&["status"]).await;
    assert!(
        text.contains("relay of probe is unserved, 1 consequence message(s) wait"),
        "{text}"
    );
}

#[tokio::test]
async fn a_handler_that_is_given_no_more_before_a_retry_is_over_is_told_of() {
    let (mesh, _host) = Mesh::start(Config::probe_with(
        "ack_pending_max = 4\nin_flight = 4\nconcurrency = 4\nbackoff = \"60s\"",
    ))
    .await;
    for _ in 0..4 {
        mesh.order(json!({ "op": "retry", "code": "busy", "message": "later" }))
            .await;
    }
    let waits = mesh.order(json!({ "op": "ok" })).await;
    let note = eventually("the status to tell", SOON, async || {
        let (_, status) = status(&mesh).await;
        status["handlers"][0]["note"].as_str().map(str::to_owned)
    })
    .await;
    assert!(
        note.contains("4 deliveries") && note.contains("ack_pending_max"),
        "{note}"
    );
    // So is the one that waits behind them.
    let trace = mesh.jetmesh_ok(&["trace", &format!("ORDERS:{waits}")]).await;
    assert!(
        trace.contains("probe: waiting: its consumer has delivered up to 4\n") && trace.contains(&note),
        "{trace}"
    );
    let trace = mesh.jetmesh_ok(&["trace", &format!("ORDERS:{waits}"), "--json"]).await;
    let trace: Value = serde_json::from_str(&trace).expect("JSON");
    assert_eq!(trace["events"][0]["handlers"][0]["stand"]["why"], json!(note));
}

#[tokio::test]
async fn a_fault_elsewhere_in_the_configuration_forbids_no_look_at_the_mesh() {
    let (mut mesh, _host) = Mesh::start(Config::probe()).await;
    let sequence = mesh
        .order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    let letters = mesh.wait_letters(1).await;
    mesh.config = Config::probe().table("[handlers.other]\nmodule = \"\"\nstream = \"ORDERS\"\ncolour = 3");
    let event = format!("ORDERS:{sequence}");
    for (args, wanted) in [
        (&["dlq", "ls"][..], "probe"),
        (&["dlq", "show", letters[0].letter_id()], "never"),
        (&["trace", &event], "probe"),
        (&["retrying"], ""),
        (&["status"], "other"),
    ] {
        let (code, stdout, stderr) = mesh.jetmesh(args).await;
        let wanted_code = if args == ["status"] { 6 } else { 0 };
        assert_eq!(code.code(), Some(wanted_code), "{args:?}: {stdout}{stderr}");
        assert!(stdout.contains(wanted), "{args:?}: {stdout}");
        assert!(stderr.contains("`jetmesh check` names them"), "{args:?}: {stderr}");
    }
    let (code, _, stderr) = mesh.jetmesh(&["run"]).await;
    assert_eq!(code.code(), Some(2), "{stderr}");
    let dir = mesh.dir.path();
    std::fs::write(dir.join("bad.toml"), "[nats]\ncolour = 7").expect("the folder is ours");
    let (code, _, _) = cli::jetmesh_in(dir, &["status", "--config", "bad.toml"]).await;
    assert_eq!(code.code(), Some(2));
}

#[tokio::test]
async fn status_tells_how_each_handler_stands() {
    let lines = "bucket = \"probe\"\nsubjects = [\"orders.probe\"]";
    let gone = "subjects = [\"orders.gone\"]";
    let mut mesh = Mesh::new(Config::new()).await;
    let probe = modules::handler("probe");
    mesh.config = Config::new()
        .handler("probe", &probe, lines)
        .handler("gone", &probe, gone);
    let host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "ok" })).await;
    mesh.order(json!({ "op": "ok" })).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    mesh.order(json!({ "op": "retry", "code": "busy", "message": "later", "delay_ms": 60_000 }))
        .await;
    mesh.wait_letters(1).await;
    // What is decided in all is known from the head.
    let status = eventually("the head to tell", SOON, async || {
        let status: Value = serde_json::from_str(&mesh.jetmesh_ok(&["status", "--json"]).await).expect("JSON");
        (status["handlers"][1]["decided"] == 3).then_some(status)
    })
    .await;
    assert_eq!(status["mesh"], "jetmesh");
    assert_eq!(status["hosts"].as_array().map(Vec::len), Some(1));
    let handler = &status["handlers"][1];
    for (name, value) in [
        ("handler", json!("probe")),
        ("pending", json!(0)),
        ("in_flight", json!(1)),
        ("dead", json!(1)),
    ] {
        assert_eq!(handler[name], value, "{name} in {handler}");
    }
    // The last one waits for its next attempt; those before it are settled.
    let oldest = handler["oldest"].as_str().expect("an event waits");
    let oldest = humantime::parse_rfc3339(oldest)
        .expect("a time")
        .duration_since(UNIX_EPOCH);
    let stored = mesh.messages("ORDERS", "orders.probe").await;
    let stored = stored.iter().find(|order| order.sequence == 4).expect("it is stored");
    assert_eq!(
        i128::try_from(oldest.expect("a late time").as_millis()),
        Ok(stored.time_ms)
    );
    let serving = host.wait_for_line(says(&["serving", "handler=probe"]), SOON).await;
    assert!(
        serving.ends_with(handler["module"].as_str().expect("a host tells its module")),
        "{serving}"
    );
    if let Some(list) = cli::nats(&mesh.server, &["micro", "ls"]).await {
        assert!(list.contains("jetmesh"), "{list}");
        let stats = cli::nats(&mesh.server, &["micro", "stats", "jetmesh"])
            .await
            .expect("the program is there");
        assert!(stats.contains("probe"), "{stats}");
    }

    // Without a host, and with a handler less. One that is killed could be given the event by a server that has not noticed.
    host.stop().await;
    mesh.config = Config::new().handler("probe", &probe, lines);
    mesh.order(json!({ "op": "ok" })).await;
    let (code, text, _) = mesh.jetmesh(&["status"]).await;
    assert_eq!(code.code(), Some(6), "{text}");
    assert!(text.starts_with("mesh jetmesh: no host answers\n"), "{text}");
    let row: Vec<&str> = text
        .lines()
        .nth(2)
        .expect("the handler's row")
        .split_whitespace()
        .collect();
    assert_eq!(row[..5], ["probe", "unserved", "-", "?", "1"], "{text}");
    let orphan = "orphan: consumer gone on stream ORDERS belongs to handler gone, which is not in the configuration; \
                  remove it with `nats consumer rm ORDERS gone`";
    assert!(text.contains(orphan), "{text}");
}

#[tokio::test]
async fn its_table_fits_eighty_columns_with_ordinary_names_and_is_whole_on_a_wide_terminal() {
    let probe = modules::handler("probe");
    let (mesh, host) = Mesh::start(Config::new().handler("inventory", &probe, "bucket = \"inventory\"")).await;
    let ten_thousand = "10000 events";
    for _ in 0..3 {
        mesh.order(json!({ "op": "ok", "note": ten_thousand })).await;
    }
    mesh.wait_decisions("inventory", 3).await;
    let whole = "HANDLER    STATE    MODULE        DONE/S  PENDING  OLDEST  IN FLIGHT  RETRYING  DECIDED  DEAD";
    let narrow = "HANDLER    STATE    DONE/S  PENDING  OLDEST  IN FLIGHT  RETRYING  DECIDED  DEAD";
    let fits = |text: &str, header: &str, columns: usize| {
        assert!(text.lines().any(|line| line == header), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
    };
    fits(&mesh.jetmesh_ok(&["status"]).await, whole, 160);
    let file = mesh.write_config();
    let args = ["status", "--config", file.to_str().expect("UTF-8")];
    for (columns, header) in [(80, narrow), (160, whole)] {
        if let Some((status, shown)) = cli::on_terminal(mesh.dir.path(), columns, &args, "").await {
            assert!(status.success(), "{shown}");
            assert!(!shown.contains('\u{1b}'), "no colour: {shown:?}");
            fits(&shown, header, columns.into());
        }
    }
    drop(host);
}

#[tokio::test]
async fn one_look_tells_a_rate_that_the_hosts_have_counted_in_the_last_seconds() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let none = eventually("the host to have counted for a second", SOON, async || {
        let (_, status) = status(&mesh).await;
        status["handlers"][0]["rate"].as_object().cloned()
    })
    .await;
    assert_eq!((&none["done"], &none["failed"]), (&json!(0.0), &json!(0.0)));
    for _ in 0..20 {
        mesh.order(json!({ "op": "ok" })).await;
    }
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    mesh.wait_decisions("probe", 21).await;
    let (_, status) = status(&mesh).await;
    let rate = |name: &str| status["handlers"][0]["rate"][name].as_f64().expect("a number");
    let (done, seconds) = (rate("done") * rate("seconds"), rate("seconds"));
    assert!((19.9..20.1).contains(&done), "20 were done in {seconds} s: {done}");
    assert!((0.9..=12.0).contains(&seconds), "{seconds}");
    let failed = rate("failed") * seconds;
    assert!((0.9..1.1).contains(&failed), "{failed}");
}

#[tokio::test]
async fn one_that_watches_shows_what_changes_and_goes_on_when_nats_comes_again() {
    let mut mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host(&[]).await;
    let file = mesh.write_config();
    let args = [
        "status",
        "--watch=500ms",
        "--json",
        "--config",
        file.to_str().expect("UTF-8"),
    ];
    let watch = Host::start_command(&args, mesh.dir.path(), &[]);
    watch
        .wait_for_line(says(&["\"serves\":true", "\"dead\":0"]), SOON)
        .await;
    mesh.order(json!({ "op": "reject", "code": "c", "message": "m" })).await;
    watch
        .wait_for_line(says(&["\"serves\":true", "\"dead\":1"]), SOON)
        .await;
    mesh.server.kill9();
    watch.wait_for_line(|line| line.starts_with("error: "), SOON).await;
    let mark = watch.lines().len();
    mesh.server.restart().await;
    watch
        .wait_for_line_after(mark, says(&["\"serves\":true", "\"dead\":1"]), PATIENT)
        .await;
    watch.signal(Signal::INT);
    assert_eq!(watch.wait_exit(SOON).await.code(), Some(130));
    drop(host);
    for (pause, why) in [("100ms", "it is at least 500ms"), ("2", "for instance 2s")] {
        let (code, _, stderr) = mesh.jetmesh(&["status", &format!("--watch={pause}")]).await;
        assert!(code.code() == Some(2) && stderr.contains(why), "{stderr}");
    }
    // On a terminal each look begins an empty screen.
    let shell = format!(
        "exec '{}' status --watch=500ms --config commands.toml",
        env!("CARGO_BIN_EXE_jetmesh")
    );
    let mut terminal = host::program(Path::new("script"), mesh.dir.path());
    terminal.args(["-qec", &shell, "/dev/null"]);
    let terminal = Host::start_program(terminal);
    terminal
        .wait_for_line(|line| line.starts_with("\x1b[H\x1b[2J2"), SOON)
        .await;
    let mark = terminal.lines().len();
    terminal
        .wait_for_line_after(mark, |line| line.starts_with("\x1b[H\x1b[2J2"), SOON)
        .await;
}
