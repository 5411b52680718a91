//! What the mesh makes with a limit of its size: an account that demands it is served, and what is full loses nothing.

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{NatsServer, cli, eventually};

/// The limits of the streams that the configuration has without.
const SOURCES: [(&str, &str); 2] = [
    ("JETMESH_STREAMS__ORDERS__MAX_BYTES", "4MiB"),
    ("JETMESH_STREAMS__EVENTS__MAX_BYTES", "4MiB"),
];

#[tokio::test]
async fn an_account_that_demands_max_bytes_of_every_stream_is_served() {
    let limits = "max_file: 100MB, max_bytes_required: true";
    let options = Options {
        config: format!(
            "accounts {{ A: {{ jetstream: {{ {limits} }}, users: [{{ user: a, password: a }}] }} }}\nno_auth_user: a"
        ),
        ..Options::default()
    };
    let config = |ledgers: &str| {
        let limits = format!("mesh_max_bytes = \"4MiB\"\nledger_max_bytes = \"{ledgers}\"");
        Config::probe().top(&limits)
    };
    let mut mesh = Mesh::over(NatsServer::start_with(&options).await, config("1GiB")).await;
    let check = async |mesh: &Mesh| {
        let file = mesh.write_config();
        let args = [
            "check",
            "--connect",
            "--config",
            file.to_str().expect("its path is UTF-8"),
        ];
        let (status, stdout, stderr) = cli::jetmesh_with(mesh.dir.path(), &args, &SOURCES).await;
        (status.code(), stdout + &stderr)
    };
    let (code, said) = check(&mesh).await;
    let wanted = "the account has 104857600 bytes of disk (max_file) and has set aside 0; the streams that will be created can \
                  take 2181038080 by their max_bytes";
    assert!(code == Some(4) && said.contains(wanted), "{said}");
    mesh.config = config("8MiB");
    let (code, said) = check(&mesh).await;
    assert_eq!(code, Some(0), "{said}");
    let _host = mesh.host(&SOURCES).await;
    mesh.order(json!([
        { "op": "add", "key": "n", "by": 1 },
        { "op": "emit", "subject": "events.now", "payload": 1 },
        { "op": "emit_later", "subject": "events.later", "payload": 2, "after_ms": 500 },
        { "op": "fail_until", "attempt": 2 },
    ]))
    .await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "no" }))
        .await;
    mesh.wait_value("probe", "n", "1").await;
    mesh.wait_emitted(2).await;
    let letters = mesh.wait_letters(1).await;
    mesh.jetmesh_ok(&["dlq", "discard", letters[0].letter_id(), "--yes"])
        .await;
    for (stream, discard) in [
        ("MESH_DEAD", "New"),
        ("MESH_REPLAY", "New"),
        ("KV_mesh_attempts", "New"),
        ("KV_probe", "New"),
        ("MESH_DELAYED", "Old"),
        ("MESH_ADVISORIES", "Old"),
        ("MESH_AUDIT", "Old"),
    ] {
        let made = mesh.js.get_stream(stream).await.expect("it is made");
        let made = &made.cached_info().config;
        let most = if stream == "KV_probe" { 8 << 20 } else { 4 << 20 };
        assert_eq!(
            (made.max_bytes, format!("{:?}", made.discard)),
            (most, discard.to_owned()),
            "{stream}"
        );
    }
}

/// Sets `max_bytes` of a stream, and leaves everything else as it is.
async fn set_max_bytes(mesh: &Mesh, stream: &str, bytes: i64) {
    let info: Value = mesh
        .js
        .request(format!("STREAM.INFO.{stream}"), &json!({}))
        .await
        .expect("JetStream answers");
    let mut config = info["config"].clone();
    config["max_bytes"] = json!(bytes);
    let set: Value = mesh
        .js
        .request(format!("STREAM.UPDATE.{stream}"), &config)
        .await
        .expect("JetStream answers");
    assert!(set["error"].is_null(), "{set}");
}

#[tokio::test]
async fn a_full_ledger_decides_nothing_and_says_so_and_goes_on_when_it_is_raised() {
    let mesh = Mesh::new(Config::probe().top("ledger_max_bytes = \"1MiB\"")).await;
    let host = mesh.host(&[]).await;
    const ORDERS: usize = 14;
    const FIT: usize = 9;
    for n in 0..ORDERS {
        if n <= FIT {
            // One append each: of a larger one that finds no room, nothing is stored.
            eventually("those before to be decided", SOON, async || {
                (mesh.decisions("probe").await.len() == n).then_some(())
            })
            .await;
        }
        let value = "x".repeat(100_000);
        mesh.order(json!([
            { "op": "set", "key": format!("k{n}"), "value": value },
            { "op": "add", "key": "n", "by": 1 },
            { "op": "emit", "subject": "events.worked", "payload": n },
        ]))
        .await;
    }
    let stopped = says(&["the ledger is stopped", "bucket probe: ", "maximum bytes exceeded"]);
    host.wait_for_line(stopped, SOON).await;
    let done = mesh.decisions("probe").await.len();
    assert!((FIT..ORDERS).contains(&done), "{done}");
    let (status, text, _) = mesh.jetmesh(&["status"]).await;
    assert_eq!(status.code(), Some(6), "{text}");
    assert!(text.contains("maximum bytes exceeded"), "{text}");
    eventually("a warning that there is little room", SOON, async || {
        let (_, text, _) = mesh.jetmesh(&["status"]).await;
        let warned = text.contains("warning: stream KV_probe may hold 1048576 bytes and holds ");
        warned.then_some(())
    })
    .await;
    // It is a ledger's stream anyway: nothing of it is removed, and no host refuses it.
    set_max_bytes(&mesh, "KV_probe", 16 << 20).await;
    // What has waited in vain was handed back, and comes again after its delay.
    eventually("every order to be decided", PATIENT, async || {
        (mesh.decisions("probe").await.len() == ORDERS).then_some(())
    })
    .await;
    mesh.wait_value("probe", "n", &ORDERS.to_string()).await;
    mesh.wait_settled("ORDERS", "probe").await;
    mesh.wait_emitted(ORDERS).await;
    let decisions = mesh.decisions("probe").await;
    assert!(decisions.iter().all(|d| d["verdict"] == "done"), "{decisions:?}");
    assert_eq!(decisions.len(), ORDERS, "each is decided once");
    host.wait_for_line(says(&["the ledger works again"]), SOON).await;
}

#[tokio::test]
async fn a_full_stream_of_delayed_events_removes_none_and_the_next_ones_become_letters() {
    let mesh = Mesh::new(Config::probe().top("mesh_max_bytes = \"1MiB\"")).await;
    let _host = mesh.host(&[]).await;
    for n in 0..12 {
        let payload = format!("{n} {}", "x".repeat(100_000));
        mesh.order(json!({ "op": "emit_later", "subject": "events.later", "payload": payload, "after_ms": 3_600_000 }))
            .await;
    }
    mesh.wait_settled("ORDERS", "probe").await;
    let letters = eventually("letters of what found no room", PATIENT, async || {
        let letters = mesh.letters().await;
        (letters.len() == 3).then_some(letters)
    })
    .await;
    for letter in &letters {
        assert_eq!(letter.header("Mesh-Cause"), Some("undeliverable"));
        let why = letter.header("Mesh-Error").unwrap_or_default();
        assert!(why.contains("maximum bytes exceeded"), "{:?}", letter.headers);
    }
    let filter = json!({ "subjects_filter": "$MESH.delay.>" });
    let info: Value = mesh
        .js
        .request("STREAM.INFO.MESH_DELAYED", &filter)
        .await
        .expect("JetStream answers");
    let waiting = info["state"]["subjects"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(waiting, 9, "{info}");
}
