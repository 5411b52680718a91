//! An admin address that other machines can reach: encrypted, and for those who bring credentials.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::mesh::{Config, Mesh, says};
use crate::support::http::{self, Answer, Encrypted};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, eventually};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/tls")
        .join(name)
}

/// The certificate of this name, in the files of the configuration. The key goes first: for a moment they do not belong together.
fn renew(mesh: &Mesh, name: &str) {
    for (kind, file) in [("key", "admin.key"), ("pem", "admin.pem")] {
        fs::copy(fixture(&format!("{name}.{kind}")), mesh.dir.path().join(file))
            .expect("the test's folder is writable");
    }
}

fn lines(more: &str) -> String {
    format!("[admin]\nlisten = \"0.0.0.0:0\"\ntls_cert = \"admin.pem\"\ntls_key = \"admin.key\"\n{more}")
}

/// Where a host, or the command, answers, as this machine reaches it.
async fn reached(host: &Host, line: &[&str]) -> SocketAddr {
    let address = http::address(&host.wait_for_line(says(line), SOON).await);
    (Ipv4Addr::LOCALHOST, address.port()).into()
}

async fn users() -> NatsServer {
    let config = "authorization { users: [{ user: host, password: pw }, { user: anna, password: pw }] }";
    NatsServer::start_with(&Options {
        config: config.to_owned(),
        ..Options::default()
    })
    .await
}

fn login(form: &serde_json::Value, host: &str) -> String {
    let body = form.to_string();
    format!(
        "POST /api/login HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn an_address_that_others_reach_is_encrypted_and_answers_those_who_bring_what_is_needed() {
    let server = users().await;
    let client = async_nats::ConnectOptions::with_user_and_password("host".to_owned(), "pw".to_owned());
    let client = server.client_with(client).await;
    let config = Config::probe().nats("user = \"host\"").nats("password = \"pw\"");
    let config = config.table(&lines("metrics_token_file = \"token\"\nnames = [\"mesh.example.com\"]"));
    let mesh = Mesh::with_client(server, client, config);
    renew(&mesh, "server");
    let token = mesh.dir.path().join("token");
    fs::write(&token, format!("{TOKEN}\n")).expect("the test's folder is writable");
    let host = mesh.host(&[]).await;
    let address = reached(&host, &["the admin address answers"]).await;
    let trust = Encrypted::trusting(&fixture("ca.pem"));
    let get = async |path: &str, host: &str, more: &str| -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
        trust.ask(address, &request).await.0
    };
    // A probe is answered, and not told of handlers; metrics need the token as the file has it now.
    eventually("the host to be ready", SOON, async || {
        (get("/readyz", "10.0.0.7", "").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(get("/livez", "10.0.0.7", "").await.status, 200);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for wrong in ["", &bearer("0"), "Authorization: Basic eDp5\r\n", &bearer(&TOKEN[1..])] {
        let refused = get("/metrics", "localhost", wrong).await;
        assert_eq!(refused.status, 401, "{wrong}");
        assert!(
            refused.headers.to_lowercase().contains("www-authenticate: bearer"),
            "{refused:?}"
        );
    }
    let metrics = get("/metrics", "localhost", &bearer(TOKEN)).await;
    assert!(
        metrics.status == 200 && metrics.body.contains("jetmesh_"),
        "{metrics:?}"
    );
    fs::write(&token, TOKEN.replace('0', "9")).expect("the test's folder is writable");
    assert_eq!(get("/metrics", "localhost", &bearer(TOKEN)).await.status, 401);
    assert_eq!(
        get("/metrics", "localhost", &bearer(&TOKEN.replace('0', "9")))
            .await
            .status,
        200
    );
    // The console answers to the names of the certificate and of the configuration, and to no other.
    for (name, status) in [
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("Mesh.example.com:9464", 200),
        ("evil.example", 421),
        ("10.0.0.7", 421),
    ] {
        assert_eq!(get("/", name, "").await.status, status, "{name}");
    }
    // Without credentials no viewer is let in. The cookie is for encrypted connections to this machine.
    let (none, _) = trust
        .ask(address, &login(&json!({ "way": "nothing" }), "localhost"))
        .await;
    assert!(
        none.status == 403 && none.body.contains("other machines can reach"),
        "{none:?}"
    );
    let form = json!({ "way": "user", "user": "anna", "password": "pw" });
    let (foreign, _) = trust
        .ask(address, &login(&form, "localhost").replace("https:", "http:"))
        .await;
    assert_eq!(foreign.status, 403, "{foreign:?}");
    let (anna, _) = trust.ask(address, &login(&form, "localhost")).await;
    assert_eq!(anna.status, 200, "{anna:?}");
    let cookie = format!("set-cookie: __Host-jetmesh-{}=", address.port());
    let line = anna
        .headers
        .lines()
        .find(|line| line.starts_with(&cookie))
        .expect("a cookie");
    assert!(line.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"), "{line}");
    let pair = line["set-cookie: ".len()..].split(';').next().expect("a pair");
    assert_eq!(
        get("/api/session", "localhost", &format!("Cookie: {pair}\r\n"))
            .await
            .status,
        200
    );
    // What is not encrypted is not answered.
    let plain = http::read(address, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    // The certificate is renewed without a restart.
    let before = trust
        .ask(address, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .1;
    renew(&mesh, "client");
    eventually("the other certificate", SOON, async || {
        let (answer, now) = trust
            .ask(address, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        (answer.status == 200 && now != before).then_some(())
    })
    .await;
    // One that cannot be used changes nothing.
    fs::write(mesh.dir.path().join("admin.key"), "none").expect("the test's folder is writable");
    eventually("a line about the key", SOON, async || {
        trust
            .ask(address, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let told = says(&["a certificate that has changed cannot be used", "admin.key"]);
        host.lines().iter().any(|line| told(line)).then_some(())
    })
    .await;
    host.stop().await;
}

#[tokio::test]
async fn where_nats_takes_any_credentials_an_address_that_others_reach_lets_no_viewer_in() {
    let config = Config::probe().table(&lines("metrics_token_file = \"token\""));
    let mesh = Mesh::new(config).await;
    renew(&mesh, "server");
    fs::write(mesh.dir.path().join("token"), TOKEN).expect("the test's folder is writable");
    let file = mesh.write_config();
    let file = file.to_str().expect("UTF-8");
    let command = ["console", "--listen", "0.0.0.0:0", "--config", file];
    let console = Host::start_command(&command, mesh.dir.path(), &[]);
    let address = reached(&console, &["console at https://0.0.0.0:"]).await;
    let trust = Encrypted::trusting(&fixture("ca.pem"));
    for form in [
        json!({ "way": "nothing" }),
        json!({ "way": "user", "user": "anna", "password": "pw" }),
        json!({ "way": "token", "token": "x" }),
    ] {
        let (refused, _) = trust.ask(address, &login(&form, "localhost")).await;
        assert!(
            refused.status == 403 && refused.body.contains("Give NATS users"),
            "{refused:?}"
        );
    }
    // The right of the command is not for those who reach the address.
    let (invited, _) = trust
        .ask(
            address,
            &login(&json!({ "way": "invitation", "token": "0" }), "localhost"),
        )
        .await;
    assert_eq!(invited.status, 400, "{invited:?}");
    let (status, _, stderr) = {
        let bare = Mesh {
            config: Config::probe(),
            ..mesh
        };
        bare.jetmesh(&["console", "--listen", "0.0.0.0:0"]).await
    };
    assert!(
        status.code() == Some(2) && stderr.contains("other machines can reach") && stderr.contains("admin.tls_cert"),
        "{stderr}"
    );
}
