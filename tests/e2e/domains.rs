//! JetStream in another domain or account: what a host does over a leafnode, and through imports.

use serde_json::json;

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, cli};

/// A server whose JetStream has a domain, and that takes leafnodes.
async fn hub() -> NatsServer {
    NatsServer::start_with(&Options {
        jetstream: "domain: hub".to_owned(),
        config: "leafnodes { listen: \"127.0.0.1:-1\" }".to_owned(),
        ..Options::default()
    })
    .await
}

async fn leaf_of(hub: &NatsServer, jetstream: &str) -> NatsServer {
    NatsServer::start_with(&Options {
        jetstream: jetstream.to_owned(),
        config: format!("leafnodes {{ remotes: [{{ url: \"nats://{}\" }}] }}", hub.leaf_addr()),
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn a_host_on_a_leafnode_works_in_the_domain_that_it_names() {
    let hub = hub().await;
    // One with a JetStream of its own, and one without any.
    let leaves = [
        leaf_of(&hub, "domain: leaf").await,
        leaf_of(&hub, "enabled: false").await,
    ];
    let config = Config::probe().nats("js_domain = \"hub\"");
    let mesh = Mesh::over(hub, config.clone()).await;
    for (n, leaf) in leaves.iter().enumerate() {
        let host = mesh.host_of(&config, &leaf.url(), &[]).await;
        // Keys and events, in one batch each; a letter; and its replay, asked for from here.
        mesh.order(json!([
            { "op": "set", "key": format!("k{n}"), "value": "v" },
            { "op": "emit", "subject": "events.done", "payload": n },
        ]))
        .await;
        mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
            .await;
        let letters = mesh.wait_letters(n + 1).await;
        mesh.wait_emitted(n + 1).await;
        assert_eq!(mesh.value("probe", &format!("k{n}")).await.as_deref(), Some("v"));
        let file = mesh.dir.path().join("leaf.toml");
        std::fs::write(&file, config.text(&leaf.url())).expect("a writable folder");
        let file = file.to_str().expect("UTF-8");
        for args in [
            &["check", "--connect"][..],
            &["status"],
            &["dlq", "show", letters[n].letter_id()],
        ] {
            let (status, stdout, stderr) = cli::jetmesh(&[args, &["--config", file]].concat()).await;
            assert!(status.success(), "{args:?}: {stdout}{stderr}");
        }
        drop(host);
    }
    mesh.wait_decisions("probe", 4).await;
}

#[tokio::test]
async fn before_the_first_start_a_check_over_a_leafnode_finds_nothing_wrong() {
    let hub = hub().await;
    let leaf = leaf_of(&hub, "enabled: false").await;
    let config = Config::probe().nats("js_domain = \"hub\"");
    let mesh = Mesh::over(leaf, config).await;
    let (status, stdout, stderr) = mesh.jetmesh(&["check", "--connect"]).await;
    assert_eq!(status.code(), Some(0), "{stdout}{stderr}");
    assert!(
        stdout.contains("everything fits") && !stdout.contains("may not publish"),
        "{stdout}"
    );
    assert!(
        stdout.contains("streams that are not there, and that a start makes: MESH_ADVISORIES"),
        "{stdout}"
    );
}

#[tokio::test]
async fn a_domain_or_prefix_that_leads_nowhere_is_named_with_its_setting() {
    let server = NatsServer::start_with(&accounts(&["$JS.ACK.>", "$KV.>", "$MESH.>", "events.>"])).await;
    let wrong = [
        (
            "js_domain = \"elsewhere\"",
            "no server answers the JetStream API on `$JS.elsewhere.API.>`",
            "Set nats.js_domain to",
        ),
        (
            "js_api_prefix = \"JS.other.API\"",
            "no server answers the JetStream API on `JS.other.API.>`",
            "Set nats.js_api_prefix to",
        ),
    ];
    let config = Config::probe().nats("user = \"host\"").nats("password = \"pw\"");
    let mut mesh = Mesh::over(server, config.clone()).await;
    for (line, what, fix) in wrong {
        mesh.config = config.clone().nats(line);
        for args in [
            &["check", "--connect"][..],
            &["status"],
            &["dlq", "ls"],
            &["run", "--wait", "1s"],
        ] {
            let (status, stdout, stderr) = mesh.jetmesh(args).await;
            assert_eq!(status.code(), Some(4), "{args:?} {stdout}{stderr}");
            assert!(
                stderr.contains(what) && stderr.contains(fix),
                "{args:?} {stdout}{stderr}"
            );
        }
        // A host may be waiting for a leafnode connection: it goes on, and calls a person.
        let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
        host.wait_for_line(
            says(&["ERROR", "waiting for jetstream, in vain so far", what, fix]),
            SOON,
        )
        .await;
        assert_eq!(host.ended(), None);
    }
}

#[tokio::test]
async fn a_host_that_waits_for_the_jetstream_api_serves_when_it_is_there() {
    let mesh_subjects = ["$JS.ACK.>", "$KV.>", "$MESH.>", "events.>"];
    let other = Options {
        config: accounts(&mesh_subjects).config.replace("JS.app.API", "JS.other.API"),
        ..Options::default()
    };
    let config = Config::probe()
        .nats("js_api_prefix = \"JS.app.API\"")
        .nats("user = \"host\"")
        .nats("password = \"pw\"");
    let mut mesh = Mesh::over(NatsServer::start_with(&other).await, config).await;
    let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    host.wait_for_line(says(&["waiting for jetstream, in vain so far"]), SOON)
        .await;
    mesh.server.restart_with(&accounts(&mesh_subjects)).await;
    host.wait_for_line(says(&["serving", "handler=probe "]), PATIENT).await;
}

/// An account with JetStream, and one that imports from it these subjects besides the API.
fn accounts(imports: &[&str]) -> Options {
    let exports = ["$JS.ACK.>", "$KV.>", "$MESH.>", "events.>"].map(|s| format!("{{ service: \"{s}\" }}"));
    let imports = imports
        .iter()
        .map(|s| format!("{{ service: {{ account: APP, subject: \"{s}\" }} }}"));
    Options {
        config: format!(
            "no_auth_user: app\naccounts {{\n\
             APP: {{ jetstream: enabled, users: [{{ user: app, password: pw }}], exports: [\n\
             {{ service: \"$JS.API.>\", response_type: stream }}, {} ] }}\n\
             HOST: {{ users: [{{ user: host, password: pw }}], imports: [\n\
             {{ service: {{ account: APP, subject: \"$JS.API.>\" }}, to: \"JS.app.API.>\" }}, {} ] }}\n}}",
            exports.join(", "),
            imports.collect::<Vec<_>>().join(", ")
        ),
        ..Options::default()
    }
}

#[tokio::test]
async fn behind_an_api_prefix_a_host_refuses_to_start_where_what_it_publishes_does_not_arrive() {
    let server = NatsServer::start_with(&accounts(&["$JS.ACK.>", "events.>"])).await;
    let config = Config::probe()
        .nats("js_api_prefix = \"JS.app.API\"")
        .nats("user = \"host\"")
        .nats("password = \"pw\"");
    let mesh = Mesh::over(server, config).await;
    let told = "the streams behind JS.app.API are there, but what is published on $KV.probe.>";
    let (status, _, stderr) = mesh.jetmesh(&["run"]).await;
    assert!(status.code() == Some(4) && stderr.contains(told), "{status} {stderr}");
    let (status, stdout, _) = mesh.jetmesh(&["check", "--connect"]).await;
    assert!(status.code() == Some(4) && stdout.contains(told), "{status} {stdout}");
}
