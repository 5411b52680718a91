//! What happens once in a year: all hosts are down for long, a person edits a bucket that is in use, a leader is lost.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream;
use serde_json::{Value, json};

use crate::audit::{judge, publish_work, work};
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{NatsServer, cli, eventually};

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn all_hosts_may_be_away_for_longer_than_targets_remember_ids() {
    let mesh = Mesh::new(Config::probe()).await;
    let window = Duration::from_secs(1);
    let target = stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        duplicate_window: window,
        ..Default::default()
    };
    mesh.js.create_stream(target).await.expect("the stream can be made");
    let killed = mesh.host_with_fault("relay-published:kill:7").await;
    publish_work(&mesh, 15, 3).await;
    assert_eq!(killed.wait_exit(PATIENT).await.signal(), Some(9));
    let since = Instant::now();
    eventually("the target to forget", SOON, async || {
        (since.elapsed() > window * 2).then_some(())
    })
    .await;
    let _host = mesh.host(&[]).await;
    judge(&mesh, 15, 3).await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    assert_eq!(mesh.emitted().await.len(), 15);
}

/// The `nats` command line drops what it does not know of: the ledger's subjects and its right to atomic batches.
#[tokio::test]
async fn a_bucket_that_is_edited_at_work_loses_nothing_and_goes_on_when_it_is_mended() {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    publish_work(&mesh, 5, 2).await;
    mesh.wait_decisions("probe", 5).await;
    let info = async || -> Value {
        let answer = mesh.js.request("STREAM.INFO.KV_probe", &json!({})).await;
        answer.expect("the stream is there")
    };
    let before = info().await["config"].clone();
    if cli::nats(&mesh.server, &["kv", "edit", "probe", "--marker-ttl", "1h"])
        .await
        .is_none()
    {
        return;
    }
    assert_ne!(
        info().await["config"]["subjects"],
        before["subjects"],
        "the edit does its harm"
    );
    for number in 5..10 {
        mesh.order(work(number, 2)).await;
    }
    let told = [
        "the ledger is stopped",
        "bucket=probe",
        "correct it with `nats stream edit KV_probe",
    ];
    host.wait_for_line(says(&told), PATIENT).await;
    let mut mended = info().await["config"].clone();
    for key in ["subjects", "allow_atomic"] {
        mended[key] = before[key].clone();
    }
    let answer: Value = mesh
        .js
        .request("STREAM.UPDATE.KV_probe", &mended)
        .await
        .expect("JetStream answers");
    assert!(answer["error"].is_null(), "{answer}");
    judge(&mesh, 10, 2).await;
}

/// Three servers that are one; the first one's client knows of all.
async fn three() -> (Vec<NatsServer>, String) {
    let free: Vec<_> = (0..3)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free"))
        .collect();
    let ports: Vec<u16> = free
        .iter()
        .map(|one| one.local_addr().expect("it is bound").port())
        .collect();
    drop(free);
    let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let options = |number: usize| Options {
        config: format!(
            "server_name: n{number}\ncluster {{ name: three, listen: \"127.0.0.1:{}\", routes: {routes:?} }}",
            ports[number]
        ),
        ..Options::default()
    };
    let options = [options(0), options(1), options(2)];
    let starts = options.iter().map(NatsServer::start_with);
    let servers = futures_util::future::join_all(starts).await;
    let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
    (servers, urls.join(","))
}

#[tokio::test]
async fn a_bucket_whose_leader_steps_down_or_dies_loses_nothing_and_repeats_nothing() {
    let (mut servers, urls) = three().await;
    let first = servers.remove(0);
    let options = async_nats::ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(20));
    let addresses: Vec<&str> = urls.split(',').collect();
    let client = options.connect(addresses).await.expect("the servers take connections");
    let mut mesh = Mesh::with_client(first, client, Config::probe().top("replicas = 3"));
    let js = mesh.js.clone();
    for (name, subjects) in [("ORDERS", "orders.>"), ("EVENTS", "events.>")] {
        eventually("the cluster to have a leader", PATIENT, async || {
            let config = stream::Config {
                name: name.to_owned(),
                subjects: vec![subjects.to_owned()],
                num_replicas: 3,
                ..Default::default()
            };
            js.create_stream(config).await.ok()
        })
        .await;
    }
    let _host = mesh.host_of(&mesh.config, &urls, &[]).await;
    let publish = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let orders = json!({ "do": work(number, 3) }).to_string();
            eventually("an order to be taken", PATIENT, async || {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Msg-Id", number.to_string());
                let sent = js.publish_with_headers("orders.probe", headers, orders.clone().into());
                sent.await.ok()?.await.ok()
            })
            .await;
        }
    };
    let leader = async || {
        let info: Value = js.request("STREAM.INFO.KV_probe", &json!({})).await.ok()?;
        info["cluster"]["leader"].as_str().map(str::to_owned)
    };
    publish(0..10).await;
    let step_down: Result<Value, _> = js.request("STREAM.LEADER.STEPDOWN.KV_probe", &json!({})).await;
    assert!(step_down.expect("JetStream answers")["error"].is_null());
    publish(10..20).await;
    let name = eventually("a leader of the bucket", PATIENT, leader).await;
    let killed = match name.as_str() {
        "n0" => &mut mesh.server,
        "n1" => &mut servers[0],
        _ => &mut servers[1],
    };
    killed.kill9();
    publish(20..30).await;
    killed.restart().await;
    eventually("the cluster to answer again", PATIENT, async || {
        let orders: Value = js.request("CONSUMER.INFO.ORDERS.probe", &json!({})).await.ok()?;
        let ledger: Value = js.request("STREAM.INFO.KV_probe", &json!({})).await.ok()?;
        (orders["error"].is_null() && ledger["cluster"]["leader"].is_string()).then_some(())
    })
    .await;
    judge(&mesh, 30, 3).await;
}
