//! `jetmesh dev`: a mesh with a server of its own.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer::pull};
use tempfile::TempDir;

use crate::mesh::{Config, says};
use crate::support::wait::SOON;
use crate::support::{Host, Signal, eventually, modules, path_with_tools};

/// Starts it in a folder, and returns it with a client of its server.
async fn start(dir: &TempDir, args: &[&str]) -> (Host, jetstream::Context) {
    let path = path_with_tools();
    let args = [&["dev", "--config", "dev.toml", "--port", "24222"], args].concat();
    let host = Host::start_command(&args, dir.path(), &[("PATH", path.to_str().expect("UTF-8"))]);
    let line = host.wait_for_line(says(&["nats-server at "]), SOON).await;
    let url = line.split_whitespace().nth(2).expect("it tells where").to_owned();
    host.wait_for_line(says(&["try next"]), SOON).await;
    let client = async_nats::connect(url).await.expect("the server takes connections");
    (host, jetstream::new(client))
}

#[tokio::test]
async fn sample_orders_come_when_the_handlers_can_take_them() {
    let dir = TempDir::with_prefix("jetmesh-dev-").expect("a temporary folder");
    let write = |config: Config| {
        std::fs::write(dir.path().join("dev.toml"), config.text("nats://127.0.0.1:1")).expect("a writable folder");
    };
    // A first life, in which somebody else makes the consumer that the handler wants.
    write(Config::new().handler("other", &modules::handler("probe"), "subjects = [\"orders.other\"]"));
    let (host, js) = start(&dir, &["--no-samples"]).await;
    host.wait_for_line(says(&["serving", "handler=other"]), SOON).await;
    let foreign = pull::Config {
        durable_name: Some("inventory".to_owned()),
        ..pull::Config::default()
    };
    let orders = js.get_stream("ORDERS").await.expect("it is there");
    orders.create_consumer(foreign).await.expect("it can be made");
    host.signal(Signal::TERM);
    assert_eq!(host.wait_exit(SOON).await.code(), Some(0));

    let lines = "bucket = \"inventory\"\npublish = [\"inventory.*\"]";
    write(Config::new().handler("inventory", &modules::handler("inventory"), lines));
    let (host, js) = start(&dir, &[]).await;
    host.wait_for_line(says(&["the handler is stopped until this is mended"]), SOON)
        .await;
    let stopped = Instant::now();
    eventually("a second in which the orders could come", SOON, async || {
        (stopped.elapsed() > Duration::from_secs(1)).then_some(())
    })
    .await;
    let mut orders = js.get_stream("ORDERS").await.expect("it is there");
    assert_eq!(orders.info().await.expect("it tells").state.messages, 0);
    // It says nothing of its start, so it would refuse a stream that holds some.
    orders.delete_consumer("inventory").await.expect("it goes");
    host.wait_for_line(says(&["serving", "handler=inventory"]), SOON).await;
    eventually("the sample orders", SOON, async || {
        (orders.info().await.ok()?.state.messages == 3).then_some(())
    })
    .await;
    host.signal(Signal::TERM);
    assert_eq!(host.wait_exit(SOON).await.code(), Some(0));
}
