//! `jetmesh dev`: a mesh with a server of its own.

use std::fs::File;
use std::path::Path;

use async_nats::jetstream;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use tempfile::TempDir;

use crate::console::wire::{log_in, post};
use crate::mesh::{Config, says};
use crate::shop::{self, Shop};
use crate::support::cli::jetmesh_with;
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, http, modules, path_with_tools};

/// Starts it in a folder, and returns it with a client of its server.
async fn start(dir: &TempDir, args: &[&str]) -> (Host, jetstream::Context) {
    let path = path_with_tools();
    let args = [&["dev", "--config", "dev.toml", "--port", "0"], args].concat();
    let host = Host::start_command(&args, dir.path(), &[("PATH", path.to_str().expect("UTF-8"))]);
    let line = host.wait_for_line(says(&["nats-server at "]), SOON).await;
    let url = line.split_whitespace().nth(2).expect("it tells where").to_owned();
    host.wait_for_line(says(&["try next"]), SOON).await;
    let client = async_nats::connect(url).await.expect("the server takes connections");
    (host, jetstream::new(client))
}

#[tokio::test]
async fn a_program_beside_the_host_is_told_where_nats_is_and_ends_with_it() {
    let dir = TempDir::with_prefix("jetmesh-dev-").expect("a temporary folder");
    let text = shop::config().text("nats://127.0.0.1:1");
    std::fs::write(dir.path().join("dev.toml"), text).expect("a writable folder");
    // The tables of the outbox are there before the program begins.
    let script = "test -f orders.db && echo beside $$ $NATS_URL; exec sleep 1000";
    let (host, js) = start(&dir, &["--", "sh", "-c", script]).await;
    let line = host.wait_for_line(says(&["beside "]), SOON).await;
    let words: Vec<&str> = line.split(' ').collect();
    let &[_, pid, url] = words.as_slice() else {
        panic!("{line}");
    };
    let shop = Shop::at(&dir.path().join("orders.db"));
    shop.orders(&["one"]);
    eventually("its event", SOON, async || {
        (held(&js, "ORDERS").await > 0).then_some(())
    })
    .await;
    // The configuration leads elsewhere, and so does the default of `nats`; the line that is printed leads here.
    let line = host.wait_for_line(says(&["export NATS_URL="]), SOON).await;
    assert_eq!(line.trim().strip_prefix("export NATS_URL="), Some(url));
    for (variables, code) in [(&[][..], 3), (&[("NATS_URL", url)], 0)] {
        let args = ["dlq", "ls", "--config", "dev.toml", "--wait", "0s"];
        let (status, stdout, stderr) = jetmesh_with(dir.path(), &args, variables).await;
        assert_eq!(status.code(), Some(code), "{stdout}{stderr}");
    }
    let lines = host.lines();
    assert!(
        lines.iter().any(|line| line.contains("jetmesh -c dev.toml -s nats://")),
        "{lines:?}"
    );
    let health = host.wait_for_line(says(&["metrics and health at http://"]), SOON).await;
    let address = http::address(&health);
    assert_eq!(http::get(address, "/livez").await.status, 200);
    // In its console a person can publish events, to try things out.
    let (cookie, csrf) = log_in(address, &json!({ "way": "nothing" })).await;
    let before = held(&js, "ORDERS").await;
    for (subject, status) in [("orders.created", 200), ("orders.*", 400), ("$KV.a.b", 400)] {
        let event = json!({ "subject": subject, "payload": "{}" });
        let answer = post(address, "publish", &[&cookie, &csrf], &event).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(held(&js, "ORDERS").await, before + 1);
    let runs = || Path::new("/proc").join(pid).exists();
    assert!(runs());
    host.stop().await;
    assert!(!runs());
    let lines = host.lines();
    assert!(
        !lines.iter().any(|line| line.contains("the program beside the host")),
        "it was to end: {lines:#?}"
    );
    // Also if it is killed.
    let (host, _) = start(&dir, &["--", "sh", "-c", script]).await;
    let line = host.wait_for_line(says(&["beside "]), SOON).await;
    let pid = line.split(' ').nth(1).expect("it tells").to_owned();
    host.signal(Signal::KILL);
    host.wait_exit(SOON).await;
    eventually("the program to end", SOON, async || {
        (!Path::new("/proc").join(&pid).exists()).then_some(())
    })
    .await;
    // The log tells how it fails.
    let (host, _) = start(&dir, &["--", "sh", "-c", "exit 3"]).await;
    let failed = ["ERROR", "the program beside the host has failed", "exit status: 3"];
    host.wait_for_line(says(&failed), SOON).await;
    assert!(host.ended().is_none());
}

/// How many messages a stream holds.
async fn held(js: &jetstream::Context, stream: &str) -> u64 {
    let mut stream = js.get_stream(stream).await.expect("it is there");
    stream.info().await.expect("it tells").state.messages
}

#[tokio::test]
async fn a_second_dev_on_the_folder_is_refused_and_no_acknowledged_order_is_lost() {
    let dir = TempDir::with_prefix("jetmesh-dev-").expect("a temporary folder");
    let text = Config::probe().text("nats://127.0.0.1:1");
    std::fs::write(dir.path().join("dev.toml"), text).expect("a writable folder");
    let (first, js) = start(&dir, &["--no-samples"]).await;
    first.wait_for_line(says(&["serving", "handler=probe"]), SOON).await;
    let order = async |js: &jetstream::Context| {
        let sent = js
            .publish("orders.probe", "{\"op\":\"ok\"}".into())
            .await
            .expect("connected");
        sent.await.expect("it is acknowledged").sequence
    };
    assert_eq!(order(&js).await, 1);
    let path = path_with_tools();
    let env = [("PATH", path.to_str().expect("UTF-8"))];
    let again = ["dev", "--config", "dev.toml", "--port", "0"];
    let (status, stdout, stderr) = jetmesh_with(dir.path(), &again, &env).await;
    assert_eq!(status.code(), Some(1), "{stdout}{stderr}");
    let named = [
        format!("is in use by process {}", first.pid()),
        "--dir FOLDER".to_owned(),
    ];
    assert!(named.iter().all(|text| stderr.contains(text)), "{stderr}");
    assert_eq!(order(&js).await, 2);
    // Another folder is free, and so is this one when its holder has ended, in whatever way.
    let (other, _) = start(&dir, &["--no-samples", "--dir", "other"]).await;
    other.stop().await;
    first.signal(Signal::KILL);
    first.wait_exit(SOON).await;
    // The kernel ends its server, and the lock goes with that.
    eventually("the lock to be free", SOON, async || {
        let lock = File::open(dir.path().join(".jetmesh/dev.lock")).expect("it is there");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()
    })
    .await;
    let (_second, js) = start(&dir, &["--no-samples"]).await;
    assert_eq!(held(&js, "ORDERS").await, 2);
}

#[tokio::test]
async fn a_handler_begins_anew_under_dev_whose_server_ends_with_it() {
    let dir = TempDir::with_prefix("jetmesh-dev-").expect("a temporary folder");
    let write = |lines: &str| {
        let lines = format!("publish = [\"events.>\"]\nstart = \"all\"\n{lines}");
        let config = Config::new().handler("probe", &modules::handler("probe"), &lines);
        std::fs::write(dir.path().join("dev.toml"), config.text("nats://127.0.0.1:1")).expect("a writable folder");
    };
    let _stop = async |host: Host| {
        host.stop().await;
    };
    write("");
    let (host, _) = start(&dir, &["--no-samples"]).await;
    host.wait_for_line(says(&["serving", "handler=probe"]), SOON).await;
    host.stop().await;
    // Its ledger is another one now.
    write("bucket = \"probe\"");
    let (host, _) = start(&dir, &["--no-samples"]).await;
    host.wait_for_line(says(&["the handler is stopped until this is corrected"]), SOON)
        .await;
    host.stop().await;
    let (host, _) = start(&dir, &["--no-samples", "--reset", "probe"]).await;
    host.wait_for_line(says(&["handler probe: this will be deleted"]), SOON)
        .await;
    host.wait_for_line(says(&["serving", "handler=probe"]), SOON).await;
    host.stop().await;
}
