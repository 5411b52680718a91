//! `jetmesh check --connect`: what would make a host refuse, or an event die, is found before.

use async_nats::jetstream::stream::{self, RetentionPolicy, SubjectTransform};
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::server::Options;
use crate::support::{NatsServer, modules};

/// The output of the command, and its code.
async fn check(mesh: &Mesh) -> (Option<i32>, String) {
    let (status, stdout, stderr) = mesh.jetmesh(&["check", "--connect"]).await;
    (status.code(), stdout + &stderr)
}

/// A handler on a stream, with nothing else in the configuration.
fn only(lines: &str) -> Config {
    Config::new().handler("probe", &modules::handler("probe"), lines)
}

#[tokio::test]
async fn a_subject_that_no_stream_captures_and_a_stream_that_overlaps_are_found_before_a_start() {
    let config = only("bucket = \"probe\"\npublish = [\"events.>\", \"nowhere.at.all\"]");
    let mesh = Mesh::new(config).await;
    mesh.add_stream("OLD", &["orders.eu.*"], RetentionPolicy::Limits).await;
    let (code, said) = check(&mesh).await;
    assert_eq!(code, Some(4), "{said}");
    for wanted in [
        "no stream captures `nowhere.at.all`, which it may publish",
        "stream ORDERS cannot be created: its subject `orders.>` overlaps with stream OLD",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
    assert!(!said.contains("`events.>`"), "{said}");
    // And a host refuses it at once.
    let (status, _, stderr) = mesh.jetmesh(&["run"]).await;
    assert!(
        status.code() == Some(4) && stderr.contains("stream ORDERS cannot be created"),
        "{status} {stderr}"
    );
}

#[tokio::test]
async fn a_ledger_that_its_consumer_knows_of_and_that_is_gone_or_moved_is_found() {
    let (mut mesh, host) = Mesh::start(Config::probe()).await;
    mesh.order(json!({ "op": "ok" })).await;
    mesh.wait_decisions("probe", 1).await;
    drop(host);
    let (code, said) = check(&mesh).await;
    assert_eq!(code, Some(0), "{said}");
    mesh.config = Config::new().handler(
        "probe",
        &modules::handler("probe"),
        "bucket = \"moved\"\npublish = [\"events.>\"]",
    );
    let (code, said) = check(&mesh).await;
    assert!(
        code == Some(4) && said.contains("handler probe: ") && said.contains("moved"),
        "{said}"
    );
    mesh.config = Config::probe();
    mesh.js.delete_stream("KV_probe").await.expect("it goes");
    let (code, said) = check(&mesh).await;
    assert!(
        code == Some(4) && said.contains("bucket probe does not exist any more, and its keys and the decisions"),
        "{said}"
    );
}

#[tokio::test]
async fn subjects_are_compared_as_the_stream_stores_them() {
    let handler = |subject: &str, stream: &str| {
        let lines = format!("stream = \"{stream}\"\nsubjects = [\"{subject}\"]\nstart = \"all\"");
        only(&lines)
    };
    let mut mesh = Mesh::new(handler("in.>", "PARTS")).await;
    mesh.add_stream("PARTS", &["in.created", "in.updated.*"], RetentionPolicy::Limits)
        .await;
    let transformed = stream::Config {
        name: "CHANGED".to_owned(),
        subjects: vec!["raw.>".to_owned()],
        subject_transform: Some(SubjectTransform {
            source: "raw.*.*".to_owned(),
            destination: "done.{{wildcard(2)}}.{{wildcard(1)}}".to_owned(),
        }),
        ..stream::Config::default()
    };
    mesh.js.create_stream(transformed).await.expect("it can be made");
    let mirror = stream::Config {
        name: "COPY".to_owned(),
        mirror: Some(stream::Source {
            name: "PARTS".to_owned(),
            ..stream::Source::default()
        }),
        ..stream::Config::default()
    };
    mesh.js.create_stream(mirror).await.expect("it can be made");
    // Each with its code, and whether it is warned of.
    for (subject, stream, wanted, warned) in [
        ("in.>", "PARTS", 0, false),
        ("in.*", "PARTS", 0, false),
        ("out.>", "PARTS", 4, false),
        ("done.a.b", "CHANGED", 0, false),
        ("in.x", "COPY", 0, true),
    ] {
        mesh.config = handler(subject, stream);
        let (code, said) = check(&mesh).await;
        assert_eq!(code, Some(wanted), "{subject}: {said}");
        assert_eq!(said.contains("copies from other streams"), warned, "{subject}: {said}");
    }
    // What a transform takes away entirely.
    let whole = stream::Config {
        name: "WHOLE".to_owned(),
        subjects: vec!["w.>".to_owned()],
        subject_transform: Some(SubjectTransform {
            source: "w.>".to_owned(),
            destination: "v.>".to_owned(),
        }),
        ..stream::Config::default()
    };
    mesh.js.create_stream(whole).await.expect("it can be made");
    for (subject, wanted) in [("w.a", 4), ("v.a", 0)] {
        mesh.config = handler(subject, "WHOLE");
        let (code, said) = check(&mesh).await;
        assert_eq!(code, Some(wanted), "{subject}: {said}");
    }
}

/// What the mesh stores would lie where it is not looked for.
#[tokio::test]
async fn a_subject_transform_on_a_stream_of_the_mesh_is_named_and_a_host_removes_it_if_nothing_rests_on_it() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    drop(host);
    let transform = async |stream: &str| {
        let info: Value = mesh
            .js
            .request(format!("STREAM.INFO.{stream}"), &json!({}))
            .await
            .expect("JSON");
        let mut config = info["config"].clone();
        let own = config["subjects"][0].as_str().expect("a subject").to_owned();
        config["subject_transform"] = json!({ "src": own, "dest": "moved.>" });
        let edited: Value = mesh
            .js
            .request(format!("STREAM.UPDATE.{stream}"), &config)
            .await
            .expect("JSON");
        assert!(edited["error"].is_null(), "{edited}");
    };
    let own = [
        "MESH_DEAD",
        "MESH_DELAYED",
        "MESH_REPLAY",
        "MESH_AUDIT",
        "KV_mesh_attempts",
    ];
    for stream in own {
        transform(stream).await;
    }
    let (code, said) = check(&mesh).await;
    assert_eq!(code, Some(4), "{said}");
    for stream in own {
        let told = format!("stream {stream} has a subject transform");
        let mend = format!("`nats stream edit {stream} --no-transform`");
        assert!(said.contains(&told) && said.contains(&mend), "{said}");
    }
    let host = mesh.host(&[]).await;
    for stream in own {
        let told = [
            "WARN",
            "the subject transform of a stream of the mesh is removed",
            stream,
        ];
        host.wait_for_line(says(&told), PATIENT).await;
    }
    let (code, said) = check(&mesh).await;
    assert_eq!(code, Some(0), "{said}");
    drop(host);
    // A ledger rests on its subjects: a person looks at it first.
    transform("KV_probe").await;
    let (code, said) = check(&mesh).await;
    let told = "it has a subject transform; correct it with `nats stream edit KV_probe --no-transform`";
    assert!(code == Some(4) && said.contains(told), "{said}");
}

#[tokio::test]
async fn what_the_user_may_not_publish_is_found_without_publishing_anything() {
    let deny = "permissions: { publish: { deny: [\"$KV.probe.>\", \"$JS.API.CONSUMER.CREATE.>\"] } }";
    let config = format!(
        "no_auth_user: test\nauthorization {{ users: [{{ user: test, password: pw }}, {{ user: host, password: pw, {deny} }}] }}"
    );
    let server = NatsServer::start_with(&Options {
        config,
        ..Options::default()
    })
    .await;
    let mut mesh = Mesh::over(server, Config::probe()).await;
    // Everything is there.
    let host = mesh.host(&[]).await;
    drop(host);
    let before = mesh.messages_left("KV_probe").await;
    mesh.config = Config::probe()
        .nats("user = \"host\"")
        .nats("password = \"pw\"")
        .nats("timeout = \"1s\"");
    let (code, said) = check(&mesh).await;
    assert_eq!(code, Some(4), "{said}");
    let told = "this user may not publish on $JS.API.CONSUMER.CREATE.ORDERS.probe, $KV.probe.check:";
    assert!(said.contains(told), "{said}");
    assert_eq!(mesh.messages_left("KV_probe").await, before);
}

#[tokio::test]
async fn limits_of_the_account_are_named_with_the_figure_that_is_wanted() {
    let account = |limits: &str| {
        let user = "users: [{ user: a, password: a }]";
        format!("accounts {{ A: {{ jetstream: {{ {limits} }}, {user} }} }}\nno_auth_user: a")
    };
    for (limits, wanted) in [
        (
            "max_streams: 3",
            "the account may have 3 streams (max_streams) and has 0; 10 will be created",
        ),
        (
            "max_ack_pending: 100",
            "ack_pending_max = 1000 is above the account's max_ack_pending, 100",
        ),
        (
            "max_bytes_required: true",
            "the account demands max_bytes of every stream (max_bytes_required)",
        ),
    ] {
        let config = account(limits);
        let server = NatsServer::start_with(&Options {
            config,
            ..Options::default()
        })
        .await;
        let mesh = Mesh::over(server, Config::probe()).await;
        let (code, said) = check(&mesh).await;
        assert!(code == Some(4) && said.contains(wanted), "{limits}: {said}");
        if limits.starts_with("max_ack_pending") {
            continue;
        }
        let (status, _, stderr) = mesh.jetmesh(&["run"]).await;
        assert!(
            status.code() == Some(4) && stderr.contains("cannot be created: "),
            "{limits}: {status} {stderr}"
        );
    }
}

#[tokio::test]
async fn a_stream_is_made_with_its_max_bytes_and_refuses_what_is_too_much() {
    let config = only("").table("[streams.SMALL]\nsubjects = [\"small.>\"]\nmax_bytes = \"1MiB\"");
    let (mesh, _host) = Mesh::start(config).await;
    let stream = mesh.js.get_stream("SMALL").await.expect("it was made");
    let made = &stream.cached_info().config;
    assert_eq!((made.max_bytes, made.discard), (1 << 20, stream::DiscardPolicy::New));
}

#[tokio::test]
async fn streams_that_are_gone_and_targets_that_are_full_are_found() {
    let (mesh, host) = Mesh::start(only("bucket = \"probe\"\npublish = [\"events.>\", \"full.>\"]")).await;
    drop(host);
    let full = stream::Config {
        name: "FULL".to_owned(),
        subjects: vec!["full.>".to_owned()],
        max_messages: 1,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    mesh.js.create_stream(full).await.expect("it is made");
    let (code, said) = check(&mesh).await;
    assert!(code == Some(0) && !said.contains("not there"), "{said}");
    mesh.publish("full.a", "it is full now").await;
    for name in ["ORDERS", "EVENTS", "MESH_DEAD"] {
        mesh.js.delete_stream(name).await.expect("it goes");
    }
    let (code, said) = check(&mesh).await;
    assert_eq!(code, Some(4), "{said}");
    for wanted in [
        "streams that are not there, and that a start makes: MESH_DEAD, EVENTS, ORDERS\n",
        "warning: stream MESH_DEAD is not there, and others of this mesh are",
        "warning: stream ORDERS is not there, and others of this mesh are",
        "error: handler probe: stream FULL, which captures `full.>`, may hold 1 messages and holds 1: full, it refuses",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}
