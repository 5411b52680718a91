//! What lies under the streams: a disk without room, backups that come back, and targets that keep nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::RetentionPolicy;
use futures_util::StreamExt;
use serde_json::json;
use tempfile::TempDir;

use crate::audit::{judge, publish_work, work};
use crate::mesh::{Config, Mesh, PATIENT};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{NatsServer, cli, eventually, skipped};

/// A small file system of its own, in memory. It goes with this.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, with a line that says so, where this user may not mount.
    fn new(mebibytes: u32) -> Option<SmallDisk> {
        let dir = TempDir::with_prefix("jetmesh-disk-").expect("a temporary folder");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(dir)),
            _ => {
                skipped("a small file system cannot be mounted here, so a full disk is not tried");
                None
            }
        }
    }

    /// Takes all the room that is left but so much.
    fn fill_but(&self, left: u64) -> PathBuf {
        let file = self.0.path().join("filler");
        let room = rustix::fs::statvfs(self.0.path()).expect("it is mounted");
        let bytes = (room.f_bavail * room.f_frsize).saturating_sub(left);
        fs::write(&file, vec![0u8; usize::try_from(bytes).expect("it is small")]).expect("there is room");
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_server_whose_disk_was_full_loses_nothing_and_repeats_nothing() {
    let Some(disk) = SmallDisk::new(64) else { return };
    let options = Options {
        store: Some(disk.0.path().join("store")),
        ..Options::default()
    };
    let server = NatsServer::start_with(&options).await;
    let mut mesh = Mesh::over(server, Config::probe()).await;
    let _host = mesh.host(&[]).await;
    publish_work(&mesh, 5, 3).await;
    let filler = disk.fill_but(96 * 1024);
    // Whichever stream finds no room first: the source, or the bucket in the middle of a batch. What the server does not
    // confirm has not been published, or so its publisher must think.
    let mut taken = 5;
    let mut refused = 0;
    while refused < 3 && taken < 2000 {
        let order = json!({ "do": work(taken, 3) }).to_string();
        let sent = mesh.js.publish("orders.probe", order.into()).await.expect("it is sent");
        match tokio::time::timeout(Duration::from_secs(2), sent).await {
            Ok(Ok(_)) => taken += 1,
            _ => refused += 1,
        }
    }
    let log = mesh.server.log_end();
    assert!(refused > 0 && log.contains("no space left on device"), "{log}");
    fs::remove_file(filler).expect("it is ours");
    mesh.server.kill9();
    mesh.server.restart().await;
    // One that was not confirmed may be there anyway, and then its work is there twice.
    let there = mesh.messages("ORDERS", "orders.probe").await.len();
    assert!(there >= taken, "{there} of {taken} confirmed orders are there");
    judge_stored(&mesh).await;
}

/// The judge where publishes were not confirmed: by what the source stream holds, event by event.
async fn judge_stored(mesh: &Mesh) {
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    let orders = mesh.messages("ORDERS", "orders.probe").await;
    for order in &orders {
        let key = order.json()["do"][1]["key"].as_str().expect("it has a key").to_owned();
        *numbers.entry(key).or_default() += 1;
    }
    // An answer that went down with the server costs a redelivery, after the ack wait.
    eventually("every event to be settled", PATIENT, async || {
        mesh.settled("ORDERS", "probe").await
    })
    .await;
    eventually("every event to be decided and emitted", PATIENT, async || {
        let decided = mesh.decisions("probe").await.len();
        (decided >= orders.len() && mesh.emitted().await.len() >= orders.len()).then_some(())
    })
    .await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), orders.len(), "each is decided once");
    assert!(decisions.iter().all(|d| d["verdict"] == "done"));
    for (key, count) in numbers {
        assert_eq!(mesh.value("probe", &key).await, Some(count.to_string()), "{key}");
    }
    let mut causes: Vec<_> = mesh
        .emitted()
        .await
        .iter()
        .map(|e| e.header("Mesh-Cause-Event").expect("it names its cause").to_owned())
        .collect();
    causes.sort();
    causes.dedup();
    assert_eq!(
        causes.len(),
        mesh.emitted().await.len(),
        "one emitted event for each cause"
    );
    assert_eq!(causes.len(), orders.len());
}

/// A mesh that has done some work, whose host has ended, and a backup of one of its streams. `None`: there is no `nats`.
async fn backed_up(stream: &str) -> Option<(Mesh, TempDir)> {
    let (mesh, host) = Mesh::start(Config::probe()).await;
    publish_work(&mesh, 10, 3).await;
    judge(&mesh, 10, 3).await;
    host.stop().await;
    let backups = TempDir::with_prefix("jetmesh-backup-").expect("a temporary folder");
    let folder = backups.path().join(stream);
    let folder = folder.to_str().expect("it is text");
    let args = ["stream", "backup", stream, folder, "--no-progress", "--consumers"];
    cli::nats(&mesh.server, &args).await?;
    Some((mesh, backups))
}

async fn restore(mesh: &Mesh, stream: &str, from: &Path) {
    mesh.js.delete_stream(stream).await.expect("it is there");
    let folder = from.join(stream);
    let folder = folder.to_str().expect("it is text");
    cli::nats(&mesh.server, &["stream", "restore", folder, "--no-progress"]).await;
}

#[tokio::test]
async fn a_source_stream_that_is_restored_from_a_backup_is_known_again() {
    let Some((mesh, backups)) = backed_up("ORDERS").await else {
        return;
    };
    restore(&mesh, "ORDERS", backups.path()).await;
    let _host = mesh.host(&[]).await;
    for number in 10..20 {
        mesh.order(work(number, 3)).await;
    }
    judge(&mesh, 20, 3).await;
}

/// State and memory are one stream: what has happened since the backup is forgotten as a whole, and done again as a whole.
#[tokio::test]
async fn a_bucket_that_is_restored_from_a_backup_does_again_what_it_has_forgotten() {
    let Some((mesh, backups)) = backed_up("KV_probe").await else {
        return;
    };
    let host = mesh.host(&[]).await;
    for number in 10..20 {
        mesh.order(work(number, 3)).await;
    }
    judge(&mesh, 20, 3).await;
    host.stop().await;
    restore(&mesh, "KV_probe", backups.path()).await;
    assert_eq!(mesh.value("probe", "own.15").await, None, "it is forgotten");
    let _host = mesh.host(&[]).await;
    judge(&mesh, 20, 3).await;
}

/// Reading such a target removes its messages, and after a restart the server does not recognise the id of a message that was
/// removed. What it stored without having answered can come again then, under the same id.
#[tokio::test]
async fn a_work_queue_as_target_gets_every_event_over_a_server_restart_and_its_reader_can_tell_copies() {
    let mut mesh = Mesh::new(Config::probe()).await;
    mesh.add_stream("EVENTS", &["events.>"], RetentionPolicy::WorkQueue)
        .await;
    let _host = mesh.host(&[]).await;
    let config = pull::Config {
        durable_name: Some("reader".to_owned()),
        ..Default::default()
    };
    let reader = mesh
        .js
        .create_consumer_on_stream(config, "EVENTS")
        .await
        .expect("it is made");
    let mut seen: BTreeMap<String, Vec<bytes::Bytes>> = BTreeMap::new();
    let mut published = 0;
    for round in 0..3 {
        for _ in 0..20 {
            mesh.order(work(published, 3)).await;
            published += 1;
        }
        if round == 1 {
            mesh.server.kill9();
            mesh.server.restart().await;
        }
        eventually("the events to be read", PATIENT, async || {
            let batch = reader.fetch().max_messages(100).expires(SOON / 20).messages().await;
            let mut batch = batch.ok()?;
            while let Some(Ok(message)) = batch.next().await {
                let headers = message.headers.clone().expect("it has headers");
                let id = headers.get("Nats-Msg-Id").expect("it has an id").to_string();
                seen.entry(id).or_default().push(message.payload.clone());
                let _ = message.ack().await;
            }
            (seen.len() >= published).then_some(())
        })
        .await;
    }
    mesh.wait_settled("ORDERS", "probe").await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    assert_eq!(seen.len(), published, "an id for each event");
    let decisions = mesh.decisions("probe").await;
    assert_eq!(decisions.len(), published, "each is decided once");
    for number in 0..published {
        let own = mesh.value("probe", &format!("own.{number}")).await;
        assert_eq!(own.as_deref(), Some("1"), "the write of event {number}");
    }
    for (id, copies) in seen {
        assert!(
            copies.iter().all(|copy| *copy == copies[0]),
            "the copies of {id} are the same"
        );
    }
}
