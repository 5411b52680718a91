//! What the console answers to requests as they are on the wire.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{PASSWORD, admin_address, with_users};
use crate::mesh::{Config, Mesh, says};
use crate::support::http::{self, Answer};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer};

/// Sends a request with these header lines and this body.
pub async fn send(address: SocketAddr, line: &str, headers: &[&str], body: &str) -> Answer {
    let mut lines: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        lines.push(format!("Host: {address}"));
    }
    lines.push(format!("Content-Length: {}", body.len()));
    http::ask(
        address,
        &format!("{line} HTTP/1.1\r\n{}\r\n\r\n{body}", lines.join("\r\n")),
    )
    .await
}

/// As a page of the console sends it.
pub async fn post(address: SocketAddr, path: &str, more: &[&str], body: &Value) -> Answer {
    let origin = format!("Origin: http://{address}");
    send(
        address,
        &format!("POST /api/{path}"),
        &[more, &[origin.as_str()]].concat(),
        &body.to_string(),
    )
    .await
}

/// Asks as a page does.
pub async fn get(address: SocketAddr, path: &str, cookie: &str) -> Answer {
    send(address, &format!("GET /api/{path}"), &[cookie], "").await
}

/// Logs in; returns the header with the cookie, and that with the token.
pub async fn log_in(address: SocketAddr, form: &Value) -> (String, String) {
    let answer = post(address, "login", &[], form).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let cookie = cookie(&answer);
    let csrf = answer.json()["csrf"].as_str().expect("a token").to_owned();
    let pair = cookie.split(';').next().expect("a pair");
    (format!("Cookie: {pair}"), format!("X-Jetmesh-Csrf: {csrf}"))
}

fn cookie(answer: &Answer) -> String {
    let line = answer
        .headers
        .lines()
        .find(|line| line.to_lowercase().starts_with("set-cookie: "));
    line.unwrap_or_else(|| panic!("no cookie: {answer:?}"))["set-cookie: ".len()..].to_owned()
}

/// How the mesh stands, which comes in lines.
async fn status(address: SocketAddr, cookie: &str) -> Value {
    let answer = get(address, "status", cookie).await;
    let mut lines = answer.body.lines().filter(|line| line.starts_with('{'));
    let last: Value = serde_json::from_str(lines.next_back().expect("a line")).expect("JSON");
    last["status"].clone()
}

#[tokio::test]
async fn a_viewer_is_let_in_with_credentials_of_nats_and_can_do_what_these_can_and_no_more() {
    let (_mesh, host, address) = with_users().await;
    // A page asks first who it is. Without a session, and where NATS needs credentials, it is told so, which is no error.
    let enter = async |headers: &[&str]| post(address, "enter", headers, &json!({})).await;
    let without_session = enter(&[]).await;
    assert_eq!(
        (without_session.status, &without_session.json()["session"]),
        (200, &Value::Null),
        "{without_session:?}"
    );
    assert!(without_session.body.contains("none are given"), "{without_session:?}");
    assert!(
        !without_session.headers.to_lowercase().contains("set-cookie"),
        "{without_session:?}"
    );
    assert_eq!(
        send(address, "POST /api/enter", &[], "{}").await.status,
        403,
        "another site's page"
    );
    // The host's own are not used for a viewer.
    let without = post(address, "login", &[], &json!({ "way": "nothing" })).await;
    assert!(
        without.status == 422 && without.body.contains("none are given"),
        "{without:?}"
    );
    let wrong = json!({ "way": "user", "user": "anna", "password": "hunter2-is-wrong" });
    let wrong = post(address, "login", &[], &wrong).await;
    assert!(wrong.status == 422 && wrong.body.contains("user anna"), "{wrong:?}");
    assert!(!wrong.body.contains("hunter2"), "{wrong:?}");
    let seed = post(address, "login", &[], &json!({ "way": "nkey", "seed": "SUNOSEED" })).await;
    assert!(seed.status == 400 && !seed.body.contains("SUNOSEED"), "{seed:?}");
    let odd = post(address, "login", &[], &json!({ "way": "user", "user": PASSWORD })).await;
    assert!(odd.status == 400 && !odd.body.contains(PASSWORD), "{odd:?}");
    let form = json!({ "way": "user", "user": "anna", "password": PASSWORD });
    let answer = post(address, "login", &[], &form).await;
    let session = answer.json();
    assert_eq!((&session["who"], &session["mesh"]), (&json!("anna"), &json!("jetmesh")));
    assert!(!answer.body.contains(PASSWORD), "{answer:?}");
    let cookie = cookie(&answer);
    assert!(cookie.starts_with(&format!("jetmesh-{}=", address.port())), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    let (cookie, csrf) = log_in(address, &form).await;
    let own = enter(&[&cookie]).await.json();
    assert_eq!(own["session"]["who"], "anna");
    assert!(
        csrf.ends_with(own["session"]["csrf"].as_str().expect("a token")),
        "{own}"
    );
    // Events are published only where a mesh is for trying things out.
    let event = json!({ "subject": "orders.probe", "payload": "{}" });
    assert_eq!(post(address, "publish", &[&cookie, &csrf], &event).await.status, 404);
    let standing = status(address, &cookie).await;
    assert_eq!(standing["handlers"][0]["state"], "serving", "{standing}");
    let mesh = send(address, "GET /api/mesh", &[&cookie], "").await.json();
    assert_eq!(mesh["handlers"][0]["publish"], json!(["events.>"]));
    // One who may do little is told what is missing.
    let (cookie, _) = log_in(address, &json!({ "way": "user", "user": "few", "password": "pw" })).await;
    let standing = status(address, &cookie).await;
    let unknown = standing["unknown"].to_string();
    assert!(unknown.contains("not allowed to publish to"), "{standing}");
    assert_eq!(standing["handlers"][0]["pending"], json!(null), "{standing}");
    let lines = host.lines().join("\n");
    assert!(!lines.contains("hunter2") && !lines.contains("SUNOSEED"), "{lines}");
}

#[tokio::test]
async fn what_a_viewer_may_not_order_is_known_by_order_and_handler_before_it_is_ordered() {
    let (mesh, _host, address) = with_users().await;
    let rights = async |user: &str, query: &str| {
        let (cookie, _) = log_in(address, &json!({ "way": "user", "user": user, "password": "pw" })).await;
        get(address, &format!("rights{query}"), &cookie).await.json()
    };
    let nothing = |orders: &[&str]| -> Value { orders.iter().map(|&order| (order.to_owned(), Value::Null)).collect() };
    let all = [
        "replay",
        "rehearse-upload",
        "discard",
        "edit",
        "retry-now",
        "give-up",
        "delayed-now",
        "delayed-cancel",
        "pause",
        "resume",
    ];
    assert_eq!(rights("host", "?handler=probe").await, nothing(&all));
    let mut probe = nothing(&all);
    probe["pause"] = json!("$MESH.audit.pause.probe.check.begin");
    assert_eq!(rights("part", "?handler=probe").await, probe);
    // Of one that the configuration does not have, letters can be there.
    let mut other = nothing(&all);
    other["pause"] = json!("$MESH.audit.pause.other.check.begin");
    other["replay"] = json!("$MESH.replay.other.list.check");
    other["rehearse-upload"] = other["replay"].clone();
    assert_eq!(rights("part", "?handler=other").await, other);
    let steps = ["schedule-pause", "schedule-resume", "schedule-run"];
    assert_eq!(rights("part", "?schedule=a").await, nothing(&steps));
    assert_eq!(
        rights("part", "?schedule=b").await["schedule-run"],
        "$KV.mesh.schedule.b"
    );
    assert_eq!(rights("part", "").await, nothing(&["note"]));
    let reader = rights("reader", "?handler=probe").await;
    for order in all.iter().filter(|order| **order != "retry-now") {
        assert!(reader[order].is_string(), "{order}: {reader}");
    }
    assert_eq!(reader["retry-now"], "$MESH.audit.retrying-now.probe.check.begin");
    // Nothing of that was stored.
    assert_eq!(mesh.value("mesh", "paused").await, None);
    for stream in ["MESH_AUDIT", "MESH_DEAD", "MESH_REPLAY", "KV_mesh_attempts"] {
        assert_eq!(mesh.messages_left(stream).await, 0, "{stream}");
    }
}

#[tokio::test]
async fn a_key_or_a_credentials_file_lets_its_user_in_and_names_it() {
    let user = nkeys::KeyPair::new_user();
    let account = nkeys::KeyPair::new_account();
    let (operator, system) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account());
    // By an nkey.
    let server = NatsServer::start_with(&Options {
        config: format!(
            "authorization {{ users: [{{ user: host, password: pw }}, {{ nkey: {} }}] }}",
            user.public_key()
        ),
        ..Options::default()
    })
    .await;
    let login = async_nats::ConnectOptions::with_user_and_password("host".to_owned(), "pw".to_owned());
    let client = server.client_with(login).await;
    let config = Config::probe().nats("user = \"host\"").nats("password = \"pw\"");
    let mesh = Mesh::with_client(server, client, config);
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = admin_address(&host).await;
    let seed = user.seed().expect("it has one");
    let answer = post(address, "login", &[], &json!({ "way": "nkey", "seed": seed })).await;
    assert_eq!(
        (answer.status, &answer.json()["who"]),
        (200, &json!(user.public_key())),
        "{answer:?}"
    );
    assert!(!answer.body.contains(&seed), "{answer:?}");
    assert_eq!(recorded_user(address, &answer).await, json!(user.public_key()));
    let stranger = nkeys::KeyPair::new_user().seed().expect("it has one");
    let refused = post(address, "login", &[], &json!({ "way": "nkey", "seed": stranger })).await;
    assert!(
        refused.status == 422 && !refused.body.contains(&stranger),
        "{refused:?}"
    );
    drop((mesh, host));
    // By a credentials file, of an account of an operator.
    let jwt = |signer: &nkeys::KeyPair, subject: &nkeys::KeyPair, name: &str, of: Value| {
        let claims = json!({ "jti": name, "iat": 1, "iss": signer.public_key(), "name": name, "sub": subject.public_key(), "nats": of });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let head = format!(
            "{}.{}",
            part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })),
            part(&claims)
        );
        let sign = signer.sign(head.as_bytes()).expect("it can sign");
        format!("{head}.{}", URL_SAFE_NO_PAD.encode(sign))
    };
    let unlimited = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 });
    // The system's account has no JetStream.
    let mut without_streams = unlimited.clone();
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        without_streams[limit] = json!(0);
    }
    let of_account = json!({ "type": "account", "version": 2, "limits": unlimited });
    let of_user = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let creds = |pair: &nkeys::KeyPair, name: &str| {
        let (token, seed) = (
            jwt(&account, pair, name, of_user.clone()),
            pair.seed().expect("it has one"),
        );
        format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        jwt(&operator, &operator, "op", json!({ "type": "operator", "version": 2 })),
        system.public_key(),
        account.public_key(),
        jwt(&operator, &account, "mesh", of_account),
        system.public_key(),
        jwt(
            &operator,
            &system,
            "SYS",
            json!({ "type": "account", "version": 2, "limits": without_streams })
        ),
    );
    let server = NatsServer::start_with(&Options {
        config,
        ..Options::default()
    })
    .await;
    let own = creds(&nkeys::KeyPair::new_user(), "host");
    let login = async_nats::ConnectOptions::with_credentials(&own).expect("credentials");
    let client = server.client_with(login).await;
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("host.creds");
    std::fs::write(&file, &own).expect("the test's folder is writable");
    let mesh = Mesh::with_client(server, client, Config::probe().nats(&format!("creds = {file:?}")));
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = admin_address(&host).await;
    let anna = creds(&user, "anna");
    let answer = post(address, "login", &[], &json!({ "way": "creds", "creds": anna })).await;
    assert_eq!(
        (answer.status, &answer.json()["who"]),
        (200, &json!("anna")),
        "{answer:?}"
    );
    assert!(!answer.body.contains(&seed), "{answer:?}");
    assert_eq!(recorded_user(address, &answer).await, json!(user.public_key()));
    // One whose seed is not that of its token is refused.
    let forged = creds(&user, "anna").replace(&seed, &stranger);
    let refused = post(address, "login", &[], &json!({ "way": "creds", "creds": forged })).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(!host.lines().join("\n").contains(&seed), "the seed is in the log");
}

/// The user that the server has authenticated, as the record of an action of a session has it.
async fn recorded_user(address: SocketAddr, login: &Answer) -> Value {
    let pair = cookie(login).split(';').next().expect("a pair").to_owned();
    let csrf = login.json()["csrf"].as_str().expect("a token").to_owned();
    let (cookie, csrf) = (format!("Cookie: {pair}"), format!("X-Jetmesh-Csrf: {csrf}"));
    let done = post(address, "resume", &[&cookie, &csrf], &json!({ "handler": "probe" })).await;
    assert_eq!(done.status, 200, "{done:?}");
    get(address, "audit", &cookie).await.json()["records"][0]["user"].clone()
}

#[tokio::test]
async fn a_token_lets_in_and_names_no_user() {
    const TOKEN: &str = "t0ken-of-the-mesh";
    let server = NatsServer::start_with(&Options {
        config: format!("authorization {{ token: {TOKEN:?} }}"),
        ..Options::default()
    })
    .await;
    let client = server
        .client_with(async_nats::ConnectOptions::with_token(TOKEN.to_owned()))
        .await;
    let mesh = Mesh::with_client(server, client, Config::probe().nats(&format!("token = {TOKEN:?}")));
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = admin_address(&host).await;
    let refused = post(address, "login", &[], &json!({ "way": "token", "token": "another" })).await;
    assert!(
        refused.status == 422 && !refused.body.contains("another"),
        "{refused:?}"
    );
    // The host's own token is not used for a viewer.
    let none = post(address, "login", &[], &json!({ "way": "nothing" })).await;
    assert_eq!(none.status, 422, "{none:?}");
    let answer = post(address, "login", &[], &json!({ "way": "token", "token": TOKEN })).await;
    assert_eq!(
        (answer.status, &answer.json()["who"]),
        (200, &json!("a viewer with the token")),
        "{answer:?}"
    );
    assert_eq!(recorded_user(address, &answer).await, Value::Null);
    let records = mesh.messages("MESH_AUDIT", ">").await;
    let text: String = records
        .iter()
        .map(|one| String::from_utf8_lossy(&one.payload).into_owned())
        .collect();
    assert!(!text.is_empty() && !text.contains(TOKEN), "{text}");
    assert!(!host.lines().join("\n").contains(TOKEN), "the token is in the log");
}

#[tokio::test]
async fn another_site_gets_nothing_and_orders_nothing() {
    let (_mesh, _host, address) = with_users().await;
    let form = json!({ "way": "user", "user": "anna", "password": PASSWORD });
    let (cookie, csrf) = log_in(address, &form).await;
    let here = format!("Origin: http://{address}");
    let get = async |headers: &[&str]| send(address, "GET /api/session", headers, "").await.status;
    assert_eq!(get(&[&cookie]).await, 200);
    assert_eq!(get(&[]).await, 401);
    assert_eq!(get(&["Cookie: jetmesh-1=0"]).await, 401);
    // A name of a foreign site that leads here.
    for name in ["evil.example", "localhost.evil.example:80", "10.0.0.1", ""] {
        assert_eq!(get(&[&cookie, &format!("Host: {name}")]).await, 421, "{name}");
    }
    for name in ["localhost", "localhost:1", "127.0.0.1:9", "[::1]:9"] {
        assert_eq!(get(&[&cookie, &format!("Host: {name}")]).await, 200, "{name}");
    }
    for headers in [
        &["Sec-Fetch-Site: cross-site"][..],
        &["Sec-Fetch-Site: same-site"],
        &["Origin: http://evil.example"],
        &["Origin: null"],
    ] {
        assert_eq!(get(&[&[cookie.as_str()], headers].concat()).await, 403, "{headers:?}");
    }
    let order = async |headers: &[&str]| send(address, "POST /api/logout", headers, "{}").await.status;
    for headers in [
        &[cookie.as_str(), &here][..],
        &[&cookie, &csrf],
        &[&cookie, &here, "X-Jetmesh-Csrf: 0"],
        &[&cookie, &csrf, "Origin: http://evil.example"],
        &[&cookie, &csrf, &here, "Sec-Fetch-Site: cross-site"],
    ] {
        assert_eq!(order(headers).await, 403, "{headers:?}");
    }
    assert_eq!(order(&[&here, &csrf]).await, 401);
    // Every answer, also one that refuses, tells the browser what it may do with it.
    for (path, status) in [("/", 200), ("/main.js", 200), ("/api/session", 401), ("/nothing", 404)] {
        let answer = send(address, &format!("GET {path}"), &[], "").await;
        let headers = answer.headers.to_lowercase();
        assert_eq!(answer.status, status, "{path}");
        for wanted in [
            "content-security-policy: default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(headers.contains(wanted), "{path}: {wanted} is not in {headers}");
        }
    }
    let script = send(address, "GET /main.js", &[], "").await.headers.to_lowercase();
    assert!(script.contains("content-type: text/javascript"), "{script}");
    assert_eq!(send(address, "DELETE /api/session", &[&cookie], "").await.status, 405);
    // There are 64 sessions at most, and the place of one that has ended is free.
    for _ in 1..64 {
        log_in(address, &form).await;
    }
    let full = post(address, "login", &[], &form).await;
    assert!(
        full.status == 503 && full.body.contains("64 sessions are open"),
        "{full:?}"
    );
    // The session ends for good.
    assert_eq!(order(&[&cookie, &csrf, &here]).await, 200);
    assert_eq!(get(&[&cookie]).await, 401);
    log_in(address, &form).await;
}

#[tokio::test]
async fn the_command_lets_in_one_browser_for_each_address_that_it_prints_and_needs_no_host() {
    let mesh = Mesh::new(Config::probe()).await;
    let file = mesh.write_config();
    let file = file.to_str().expect("UTF-8");
    let console = Host::start_command(&["console", "--config", file], mesh.dir.path(), &[]);
    let line = console.wait_for_line(says(&["console at http://"]), SOON).await;
    let address = http::address(&line);
    let token = line.rsplit('/').next().expect("a token").trim().to_owned();
    assert_eq!(token.len(), 64, "{line}");
    let login = async |token: &str| post(address, "login", &[], &json!({ "way": "invitation", "token": token })).await;
    assert_eq!(login("0").await.status, 403);
    let none = post(address, "login", &[], &json!({ "way": "nothing" })).await;
    assert!(
        none.status == 403 && none.body.contains("the address that it prints"),
        "{none:?}"
    );
    let (cookie, _) = log_in(address, &json!({ "way": "invitation", "token": token })).await;
    let standing = status(address, &cookie).await;
    assert_eq!(standing["handlers"][0]["why"], "no host answers", "{standing}");
    assert_eq!(login(&token).await.status, 403);
    let line = console
        .wait_for_line(says(&["for another browser: http://"]), SOON)
        .await;
    let next = line.rsplit('/').next().expect("a token").trim().to_owned();
    assert_eq!(login(&next).await.status, 200);
    let (status, _, stderr) = mesh.jetmesh(&["console", "--listen", "0.0.0.0:0"]).await;
    assert!(
        status.code() == Some(2) && stderr.contains("other machines can reach"),
        "{stderr}"
    );
}
