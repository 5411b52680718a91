//! What happens once in a year: all hosts are down for long, a person edits a bucket that is in use, a leader is lost.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream;
use serde_json::{Value, json};

use crate::audit::{judge, publish_work, work};
use crate::cluster;
use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{cli, eventually};

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

#[tokio::test]
async fn a_bucket_whose_leader_steps_down_or_dies_loses_nothing_and_repeats_nothing() {
    let (mut cluster, mut mesh) = cluster::mesh(Config::probe()).await;
    let js = mesh.js.clone();
    let _host = mesh.host_of(&mesh.config, &cluster.urls, &[]).await;
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
    publish(0..10).await;
    let step_down: Result<Value, _> = js.request("STREAM.LEADER.STEPDOWN.KV_probe", &json!({})).await;
    assert!(step_down.expect("JetStream answers")["error"].is_null());
    publish(10..20).await;
    let killed = cluster.kill_leader(&mut mesh, "KV_probe").await;
    publish(20..30).await;
    cluster.server(&mut mesh, killed).restart().await;
    eventually("the cluster to answer again", PATIENT, async || {
        let orders: Value = js.request("CONSUMER.INFO.ORDERS.probe", &json!({})).await.ok()?;
        let ledger: Value = js.request("STREAM.INFO.KV_probe", &json!({})).await.ok()?;
        (orders["error"].is_null() && ledger["cluster"]["leader"].is_string()).then_some(())
    })
    .await;
    judge(&mesh, 30, 3).await;
}
