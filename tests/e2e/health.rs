//! `jetmesh health`, with which a container that has no other program checks its host.

use std::fs;
use std::path::Path;

use tokio::net::TcpListener;

use crate::mesh::{Config, Mesh, says};
use crate::support::wait::SOON;
use crate::support::{Host, Proxy, cli, eventually, http};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The address that a host answers at, and this machine reaches.
async fn port(host: &Host) -> u16 {
    http::address(&host.wait_for_line(says(&["the admin address answers"]), SOON).await).port()
}

#[tokio::test]
async fn health_says_by_its_exit_code_whether_the_host_lives_and_is_ready() {
    let mesh = Mesh::new(Config::probe()).await;
    let proxy = Proxy::start(mesh.server.addr());
    proxy.refuse();
    let env = [("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")];
    let host = Host::start(&mesh.config.text(&proxy.url()), mesh.dir.path(), &env);
    let admin = format!("127.0.0.1:{}", port(&host).await);
    let health = async |what: &str| mesh.jetmesh(&["health", what, "--admin", &admin]).await;
    // It waits for NATS: that is no reason to restart it.
    let (status, text, _) = health("ready").await;
    assert!(
        status.code() == Some(6) && text.contains("\"ok\":false") && text.contains("\"what\":\"host\""),
        "{text}"
    );
    let (status, text, error) = health("live").await;
    assert_eq!(
        (status.code(), text.as_str()),
        (Some(0), "{\"ok\":true,\"reasons\":[]}\n"),
        "{error}"
    );
    proxy.accept();
    eventually("the host to be ready", SOON, async || {
        // Without a word it asks whether the host is ready.
        let (status, _, _) = mesh.jetmesh(&["health", "--admin", &admin]).await;
        status.success().then_some(())
    })
    .await;
    host.stop().await;
    // The host has ended. Something else that listens is no host, either.
    let (status, text, error) = health("live").await;
    assert!(
        status.code() == Some(1) && text.is_empty() && error.contains(&admin),
        "{error}"
    );
    let silent = TcpListener::bind(&admin).await.expect("the port is free again");
    let (status, _, error) = health("live").await;
    assert!(
        status.code() == Some(1) && error.contains("no answer within 5 s"),
        "{error}"
    );
    drop(silent);
    // What cannot be asked at all is told with what to change.
    for (more, told) in [
        (&[][..], "set admin.listen"),
        (&["--admin", "127.0.0.1:0"], "any free port"),
    ] {
        let (status, _, error) = mesh.jetmesh(&[&["health"], more].concat()).await;
        assert!(status.code() == Some(2) && error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn health_knows_an_encrypted_host_by_its_certificate_and_brings_the_token() {
    let lines = "[admin]\nlisten = \"0.0.0.0:0\"\ntls_cert = \"admin.pem\"\ntls_key = \"admin.key\"\nmetrics_token_file = \"token\"";
    let mesh = Mesh::new(Config::probe().table(lines)).await;
    let fixture = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/fixtures/tls")
            .join(name)
    };
    let file = |name: &str| mesh.dir.path().join(name);
    for (from, to) in [("server.pem", "admin.pem"), ("server.key", "admin.key")] {
        fs::copy(fixture(from), file(to)).expect("the test's folder is writable");
    }
    fs::write(file("token"), TOKEN).expect("the test's folder is writable");
    let proxy = Proxy::start(mesh.server.addr());
    let host = Host::start(&mesh.config.text(&proxy.url()), mesh.dir.path(), &[]);
    // Of the address that is listened at, the command takes the one that reaches it.
    let admin = format!("0.0.0.0:{}", port(&host).await);
    eventually("the host to be ready", SOON, async || {
        let (status, _, _) = mesh.jetmesh(&["health", "--admin", &admin]).await;
        status.success().then_some(())
    })
    .await;
    proxy.refuse();
    proxy.cut();
    eventually(
        "the reason why it is not ready, for which the token is needed",
        SOON,
        async || {
            let (status, text, _) = mesh.jetmesh(&["health", "--admin", &admin]).await;
            (status.code() == Some(6) && text.contains("handler probe")).then_some(())
        },
    )
    .await;
    // Another server than the host that the configuration describes is not believed.
    let other = fixture("client.pem");
    let env = [("JETMESH_ADMIN__TLS_CERT", other.to_str().expect("UTF-8"))];
    let config = mesh.write_config();
    let args = [
        "health",
        "live",
        "--admin",
        &admin,
        "--config",
        config.to_str().expect("UTF-8"),
    ];
    let (status, _, error) = cli::jetmesh_with(mesh.dir.path(), &args, &env).await;
    assert!(
        status.code() == Some(1) && error.contains("is not the one of admin.tls_cert"),
        "{error}"
    );
    host.stop().await;
}
