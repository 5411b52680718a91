//! The example of a service: it saves orders with their events, and shows what has become of them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mesh::{Config, Mesh, says};
use crate::shop::{self, OUTBOX, Shop};
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, modules};

fn program() -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/order-service");
    let path = PathBuf::from(folder).join("target/debug/order-service");
    assert!(
        path.is_file(),
        "{} is missing: run `make test`, which builds it first",
        path.display()
    );
    path
}

/// The service as a process.
struct OrderService {
    process: Host,
    address: String,
}

impl OrderService {
    async fn start(mesh: &Mesh) -> OrderService {
        let database = format!("sqlite:{}", mesh.dir.path().join("orders.db").display());
        let mut command = Command::new(program());
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--database",
            &database,
            "--nats",
            &mesh.server.url(),
        ]);
        let process = Host::start_program(command);
        let line = process.wait_for_line(says(&["order service: http://"]), SOON).await;
        let (_, address) = line.split_once("http://").expect("it tells where");
        OrderService {
            address: address.to_owned(),
            process,
        }
    }

    /// Sends a request; the connection on which the answer comes.
    async fn send(&self, request: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        let length = body.len();
        let text = format!(
            "{request}\r\nHost: shop\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.expect("it takes a request");
        stream
    }

    /// The status and the body that it answers.
    async fn ask(&self, request: &str, body: &str) -> (u16, Value) {
        let mut answer = String::new();
        let mut stream = self.send(request, body).await;
        stream.read_to_string(&mut answer).await.expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = serde_json::from_str(body).unwrap_or_default();
        (status.expect("a status"), body)
    }

    async fn order(&self, key: &str, qty: u32) -> (u16, Value) {
        self.ask(&post(key), &body(qty)).await
    }
}

fn post(key: &str) -> String {
    format!("POST /orders HTTP/1.1\r\nIdempotency-Key: {key}")
}

fn body(qty: u32) -> String {
    let line = json!({ "sku": "sku-1", "qty": qty, "price_cents": 1250 });
    json!({ "user_id": "u-7", "locale": "en", "lines": [line] }).to_string()
}

/// The sample's handlers.
fn handlers() -> Config {
    let add = |config: Config, (name, more): (&str, &str)| {
        let lines = format!("subjects = [\"orders.created\"]\n{more}");
        config.handler(name, &modules::handler(name), &lines)
    };
    let all = [
        ("inventory", "bucket = \"inventory\"\npublish = [\"inventory.*\"]"),
        ("points", "bucket = \"points\"\npublish = [\"points.*\"]"),
        ("notify", "publish = [\"notifications.*\"]"),
    ];
    all.into_iter().fold(Config::new(), add).table(OUTBOX)
}

#[tokio::test]
async fn an_order_that_is_posted_while_no_host_runs_is_done_once_by_each_handler_and_shows_it() {
    let mesh = Mesh::new(handlers()).await;
    mesh.jetmesh_ok(&["outbox", "init", "orders", "--yes"]).await;
    let first = mesh.host(&[]).await;
    mesh.put("inventory", "stock.sku-1", "10").await;
    first.stop().await;
    let service = OrderService::start(&mesh).await;
    assert_eq!(service.order("k-1", 2).await, (201, json!({ "id": "o-1" })));
    let show = async |id: &str| service.ask(&format!("GET /orders/{id} HTTP/1.1"), "").await;
    let (status, shown) = show("o-1").await;
    assert_eq!((status, &shown["order"]["lines"][0]["qty"]), (200, &json!(2)));
    let unknown = shown["tasks_unknown"].as_str().expect("it says why");
    assert!(unknown.starts_with("no host of the mesh answers"), "{unknown}");

    let _second = mesh.host(&[]).await;
    let shown = eventually("every task to be decided", SOON, async || {
        let (_, shown) = show("o-1").await;
        let tasks = shown["tasks"].as_object()?;
        (tasks.len() == 3 && tasks.values().all(|task| task["state"] == "done")).then_some(shown)
    })
    .await;
    let done = json!({ "state": "done" });
    assert_eq!(
        shown["tasks"],
        json!({ "inventory": done, "notify": done, "points": done })
    );
    // There is not as much in stock.
    assert_eq!(service.order("k-2", 99).await, (201, json!({ "id": "o-2" })));
    eventually("the order to be rejected", SOON, async || {
        let (_, shown) = show("o-2").await;
        (shown["tasks"]["inventory"]["code"] == "out-of-stock").then_some(())
    })
    .await;
    mesh.wait_emitted(5).await;
    assert_eq!(mesh.value("inventory", "stock.sku-1").await.as_deref(), Some("8"));
    assert_eq!(mesh.value("points", "balance.u-7").await.as_deref(), Some("20"));
    assert_eq!(shop::events(&mesh).await.len(), 2);

    assert_eq!(service.order("k-3", 1).await, (201, json!({ "id": "o-3" })));
    the_readme_orders_as_it_is_shown(&mesh, &service).await;
    assert_eq!(show("o-9").await.0, 404);
    assert_eq!(
        service.ask("POST /orders HTTP/1.1", &body(1)).await.0,
        400,
        "it has no key"
    );
    assert_eq!(service.order("k-1", 3).await.0, 422, "another order has the key");
}

/// Runs the commands with which the README orders, after three orders: each prints what is shown.
async fn the_readme_orders_as_it_is_shown(mesh: &Mesh, service: &OrderService) {
    let readme = include_str!("../../README.md");
    let blocks = readme
        .split("```console\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let session = blocks.into_iter().find(|block| block.contains("curl "));
    let session = session.expect("the README orders").replace("\\\n", "");
    let mut commands: Vec<(&str, String)> = Vec::new();
    for line in session.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, String::new())),
            (None, Some((_, printed))) => *printed += line,
            (None, None) => panic!("a session begins with a command: {line}"),
        }
    }
    assert_eq!(commands.len(), 2);
    for (command, printed) in commands {
        let command = command
            .replace("127.0.0.1:8080", &service.address)
            .replace("curl ", "curl -sS ");
        eventually("what the README shows", SOON, async || {
            let mut shell = tokio::process::Command::new("sh");
            let output = shell.args(["-c", &command]).current_dir(mesh.dir.path()).output();
            let output = output.await.expect("there is a shell");
            let (stdout, stderr) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            eprintln!("{command}: {stdout}{stderr}");
            (stdout == printed).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_because_the_service_was_killed_makes_one_order_and_one_event() {
    let mesh = Mesh::new(shop::config()).await;
    let shop = Shop::open_empty(&mesh).await;
    let mut service = OrderService::start(&mesh).await;
    for round in 0..8 {
        let (key, before) = (format!("k-{round}"), shop.number("SELECT count(*) FROM orders"));
        let unheard = service.send(&post(&key), &body(1)).await;
        match round {
            // Killed between its commit and what the client hears of it.
            0..4 => {
                eventually("the order to be saved", SOON, async || {
                    (shop.number("SELECT count(*) FROM orders") > before).then_some(())
                })
                .await;
            }
            // Killed at any moment.
            _ => tokio::time::sleep(Duration::from_micros(round * 200)).await,
        }
        service.process.signal(Signal::KILL);
        service.process.wait_exit(SOON).await;
        drop(unheard);
        service = OrderService::start(&mesh).await;
        let (status, order) = service.order(&key, 1).await;
        assert_eq!(status, 201, "{order}");
        assert_eq!(service.order(&key, 1).await, (201, order), "it is the same order");
    }
    assert_eq!(shop.number("SELECT count(*) FROM orders"), 8);
    let _host = mesh.host(&[]).await;
    let events = eventually("the orders to be published", SOON, async || {
        let left = shop.number("SELECT count(*) FROM outbox");
        (left == 0).then_some(())?;
        Some(shop::events(&mesh).await)
    })
    .await;
    let mut ids: Vec<Value> = events.iter().map(|event| event.json()["order_id"].clone()).collect();
    let count = ids.len();
    ids.dedup();
    assert_eq!((count, ids.len()), (8, 8), "{ids:?}");
}
