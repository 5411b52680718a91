//! JetStream in another domain or account: what a host does over a leafnode, and through imports.

use serde_json::json;

use crate::mesh::{Config, Mesh};
use crate::support::server::Options;
use crate::support::{NatsServer, cli};

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
