//! The admin address, and what a service manager is told.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::mesh::{Config, Mesh, says};
use crate::support::http::{self, Answer};
use crate::support::wait::SOON;
use crate::support::{Host, Proxy, Signal, eventually};

const LISTEN: (&str, &str) = ("JETMESH_ADMIN__LISTEN", "127.0.0.1:0");

/// The admin address of a host.
async fn admin(host: &Host) -> SocketAddr {
    http::address(&host.wait_for_line(says(&["the admin address answers"]), SOON).await)
}

/// Asks until this is the answer's status.
async fn until(address: SocketAddr, path: &str, status: u16) -> Answer {
    eventually(format!("{path} to answer {status}"), SOON, async || {
        let answer = http::get(address, path).await;
        (answer.status == status).then_some(answer)
    })
    .await
}

/// A service manager in the test's folder.
struct Manager {
    socket: UnixDatagram,
    path: String,
    lines: Vec<String>,
}

impl Manager {
    fn new(mesh: &Mesh) -> Manager {
        let path = mesh.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket in the test's folder");
        socket.set_nonblocking(true).expect("a socket can");
        let path = path.to_str().expect("UTF-8").to_owned();
        let lines = Vec::new();
        Manager { socket, path, lines }
    }

    fn env(&self) -> [(&str, &str); 3] {
        [LISTEN, ("NOTIFY_SOCKET", &self.path), ("WATCHDOG_USEC", "2000000")]
    }

    /// Takes in what it has been told meanwhile.
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]);
            self.lines.extend(text.lines().map(str::to_owned));
        }
    }

    /// What it was told before the next line that begins so.
    async fn until(&mut self, line: &str) -> Vec<String> {
        eventually(format!("the manager to be told {line}"), SOON, async || {
            self.read();
            let at = self.lines.iter().position(|told| told.starts_with(line))?;
            let before = self.lines.drain(..=at).collect();
            Some(before)
        })
        .await
    }
}

#[tokio::test]
async fn a_host_is_alive_from_its_start_to_its_end_and_ready_while_its_handlers_serve() {
    let mesh = Mesh::new(Config::probe()).await;
    let proxy = Proxy::start(mesh.server.addr());
    proxy.refuse();
    let mut manager = Manager::new(&mesh);
    let host = Host::start(&mesh.config.text(&proxy.url()), mesh.dir.path(), &manager.env());
    let address = admin(&host).await;
    let alive = async || http::get(address, "/livez").await;
    // It waits for NATS.
    eventually("what the start waits for", SOON, async || {
        let waits = until(address, "/readyz", 503).await.json();
        (waits["reasons"][0]["why"]
            == "it waits for NATS, prepares its streams, or waits for the first version of a module in the registry")
            .then_some(())
    })
    .await;
    assert_eq!(alive().await.json(), json!({ "ok": true, "reasons": [] }));
    let before = manager.until("STATUS=host: it waits for NATS").await;
    assert!(!before.contains(&"READY=1".to_owned()), "{before:?}");
    // It is there.
    proxy.accept();
    let ready = until(address, "/readyz", 200).await;
    assert_eq!(ready.json(), json!({ "ok": true, "reasons": [] }));
    assert!(
        ready.headers.to_lowercase().contains("content-type: application/json"),
        "{ready:?}"
    );
    manager.until("READY=1").await;
    manager.until("STATUS=all handlers serve").await;
    // What is asked wrongly is told so. A client that says nothing holds the others in nothing.
    let silent = futures_util::future::join_all((0..20).map(|_| TcpStream::connect(address))).await;
    let head = http::ask(address, "HEAD /livez HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let post = http::ask(
        address,
        "POST /livez HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert!(
        post.status == 405 && post.headers.to_lowercase().contains("allow: get, head"),
        "{post:?}"
    );
    // What is not told to all is the console, which has no other name.
    assert_eq!(http::get(address, "/").await.status, 421);
    assert_eq!(http::ask(address, "nonsense\r\n\r\n").await.status, 400);
    drop(silent);
    // Another host cannot have its address.
    let taken = address.to_string();
    let (status, _, stderr) = mesh.jetmesh(&["run", "--admin", &taken]).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    let named = [&format!("admin.listen, {taken}"), "choose another address with --admin"];
    assert!(named.iter().all(|text| stderr.contains(*text)), "{stderr}");
    let (status, _, stderr) = mesh.jetmesh(&["run", "--admin", "0.0.0.0:0"]).await;
    assert!(
        status.code() == Some(2) && stderr.contains("(from --admin)"),
        "{stderr}"
    );
    // NATS goes: it is alive, and not ready.
    proxy.refuse();
    proxy.cut();
    let gone = until(address, "/readyz", 503).await.json();
    assert_eq!(gone["reasons"][0]["what"], "handler probe");
    assert_eq!(alive().await.status, 200);
    manager.until("STATUS=handler probe: connecting").await;
    proxy.accept();
    until(address, "/readyz", 200).await;
    manager.until("STATUS=all handlers serve").await;
    // It drains.
    mesh.order(json!({ "op": "sleep", "ms": 3000 })).await;
    host.wait_for_line(says(&["handler=probe"]), SOON).await;
    eventually("the event to run", SOON, async || {
        let status = mesh.jetmesh(&["status", "--json"]).await.1;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        (status.to_string().contains("\"in_flight\":1")).then_some(())
    })
    .await;
    host.signal(Signal::TERM);
    let draining = until(address, "/readyz", 503).await.json();
    assert_eq!(
        draining["reasons"],
        json!([{ "what": "host", "why": "it is draining" }])
    );
    assert_eq!(alive().await.status, 200);
    manager.until("STOPPING=1").await;
    manager.until("STATUS=host: it is draining").await;
    let ended = host.wait_exit(SOON).await;
    assert_eq!(ended.code(), Some(0));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_host_with_a_stuck_thread_is_not_alive_and_its_watchdog_gets_no_sign() {
    let mesh = Mesh::new(Config::probe()).await;
    let mut manager = Manager::new(&mesh);
    let fault = [("MESH_FAULT", "before-run:hang")];
    let host = mesh.host(&[&manager.env()[..], &fault].concat()).await;
    let address = admin(&host).await;
    manager.until("WATCHDOG=1").await;
    mesh.order(json!({ "op": "ok" })).await;
    let stuck = until(address, "/livez", 503).await.json();
    let what = stuck["reasons"][0]["what"].as_str().unwrap_or_default();
    assert!(what.starts_with("thread lanes-"), "{stuck}");
    // The status is told with every sign of life, so two later ones are enough to see that none comes.
    manager.until("STATUS=thread lanes-").await;
    let mut silence = Vec::new();
    for _ in 0..2 {
        silence.extend(manager.until("STATUS=thread lanes-").await);
    }
    assert!(silence.iter().all(|line| line.starts_with("STATUS=")), "{silence:?}");
}
