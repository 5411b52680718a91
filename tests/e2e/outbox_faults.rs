//! What an outbox does when hosts, servers and databases fail: each committed row is one event, in order, and nothing else is.

use std::fs;
use std::path::Path;
#[cfg(feature = "failpoints")]
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::RetentionPolicy;
use futures_util::StreamExt;

use crate::mesh::{Mesh, PATIENT, says};
#[cfg(feature = "failpoints")]
use crate::shop::KILLED_AT;
use crate::shop::{Shop, audited, config, events, forgetful, stream, texts};
use crate::support::wait::SOON;
use crate::support::{Signal, eventually};

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_is_killed_between_any_two_steps_of_an_outbox_loses_and_repeats_no_row() {
    for fault in KILLED_AT {
        let (mesh, shop) = forgetful().await;
        let killed = mesh.host_with_fault(fault).await;
        shop.row("stock.moved", None, "poison");
        shop.orders(&["a", "b", "c"]);
        eventually("rows in the stream", SOON, async || {
            shop.orders(&["more"]);
            killed.ended()
        })
        .await;
        shop.orders(&["d", "e"]);
        let _next = mesh.host(&[]).await;
        audited(&mesh, &shop).await;
        assert_eq!(mesh.wait_letters(1).await.len(), 1, "{fault}");
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_row_whose_event_a_work_queue_has_given_away_already_is_not_published_again() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    stream(&mesh, |config| {
        config.retention = RetentionPolicy::WorkQueue;
        config.duplicate_window = Duration::from_millis(100);
    })
    .await;
    let worker = pull::Config {
        durable_name: Some("worker".to_owned()),
        filter_subject: "orders.created".to_owned(),
        ..pull::Config::default()
    };
    let orders = mesh.js.get_stream("ORDERS").await.expect("it is there");
    let worker = orders.create_consumer(worker).await.expect("it can be made");
    let mut given = worker.messages().await.expect("it answers");
    let killed = mesh.host_with_fault("outbox-stored:kill").await;
    shop.orders(&["a", "b"]);
    killed.wait_exit(SOON).await;
    let mut names = Vec::new();
    let mut take = async |count: usize| {
        for _ in 0..count {
            let message = given.next().await.expect("one more").expect("it is read");
            message.ack().await.expect("it is sent");
            names.push(String::from_utf8_lossy(&message.payload).into_owned());
        }
    };
    take(2).await;
    eventually("the queue to hold the marker alone", SOON, async || {
        (mesh.messages_left("ORDERS").await == 1).then_some(())
    })
    .await;
    let _next = mesh.host(&[]).await;
    shop.orders(&["c"]);
    take(1).await;
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn of_two_hosts_one_publishes_an_outbox_and_the_other_one_takes_over() {
    let (mesh, shop) = forgetful().await;
    let mut hosts = vec![mesh.host(&[]).await, mesh.host(&[]).await];
    for round in 0..4 {
        for n in 0..100 {
            shop.orders(&[&format!("{round}-{n}"), &format!("{round}-{n}-b")]);
            if n == 50 {
                // Each in its turn, while it may be at work.
                hosts.remove(0).signal(Signal::KILL);
            }
        }
        audited(&mesh, &shop).await;
        hosts.push(mesh.host(&[]).await);
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_is_frozen_at_any_step_of_an_outbox_and_wakes_late_changes_nothing() {
    for fault in ["outbox-before:stop", "outbox-stored:stop", "batch-part-sent:stop:2"] {
        let (mesh, shop) = forgetful().await;
        let frozen = mesh.host_with_fault(fault).await;
        shop.orders(&["a", "b", "c"]);
        let next = mesh.host(&[]).await;
        audited(&mesh, &shop).await;
        shop.orders(&["d"]);
        audited(&mesh, &shop).await;
        frozen.signal(Signal::CONT);
        for n in 0..20 {
            shop.orders(&[&format!("after-{n}")]);
        }
        audited(&mesh, &shop).await;
        // The one that was frozen publishes as well as before.
        next.signal(Signal::TERM);
        assert!(next.wait_exit(PATIENT).await.success());
        shop.orders(&["last"]);
        audited(&mesh, &shop).await;
        assert!(frozen.ended().is_none(), "{fault}");
    }
}

#[tokio::test]
async fn a_server_that_is_killed_while_an_outbox_publishes_loses_and_repeats_no_row() {
    let (mut mesh, shop) = forgetful().await;
    let _host = mesh.host(&[]).await;
    for round in 0..3 {
        for n in 0..60 {
            shop.orders(&[&format!("{round}-{n}"), &format!("{round}-{n}-b")]);
            if n == 30 {
                mesh.server.kill9();
            }
        }
        mesh.server.restart().await;
        audited(&mesh, &shop).await;
    }
}

/// Puts a copy in the place of the database, as a person does with its service stopped.
fn restore(copy: &Path, file: &Path) {
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", file.display()));
    }
    fs::copy(copy, file).expect("it is ours");
}

#[tokio::test]
async fn after_an_older_copy_of_the_database_is_restored_no_row_is_published_twice_and_what_is_undone_is_named() {
    let (mesh, shop) = forgetful().await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a", "b"]);
    audited(&mesh, &shop).await;
    // The copy has a row that is published later.
    mesh.jetmesh_ok(&["outbox", "pause", "orders"]).await;
    shop.orders(&["c"]);
    let copy = shop.back_up("copy.db");
    mesh.jetmesh_ok(&["outbox", "resume", "orders"]).await;
    audited(&mesh, &shop).await;
    shop.orders(&["undone-1"]);
    audited(&mesh, &shop).await;
    shop.orders(&["undone-2"]);
    audited(&mesh, &shop).await;
    host.stop().await;
    let file = shop.file.clone();
    drop(shop);
    restore(&copy, &file);
    let shop = Shop::at(&file);
    // It gets the id of a row that is undone.
    shop.orders(&["new"]);
    let host = mesh.host(&[]).await;
    let named = [
        "is older than its stream",
        "2 events of the stream, ids 4 to 5, have no row any more",
    ];
    host.wait_for_line(says(&named), SOON).await;
    eventually("the new row", SOON, async || {
        (texts(&events(&mesh).await) == ["a", "b", "c", "undone-1", "undone-2", "new"]).then_some(())
    })
    .await;
    shop.orders(&["newer"]);
    eventually("one more", SOON, async || {
        let found = texts(&events(&mesh).await);
        assert!(found.len() <= 7, "{found:?}");
        (found.last().is_some_and(|last| last == "newer")).then_some(())
    })
    .await;
    assert_eq!(shop.committed(), ["a", "b", "c", "new", "newer"]);
    let status = mesh.jetmesh_ok(&["status"]).await;
    assert!(status.contains("have no row any more"), "{status}");
}

#[tokio::test]
async fn a_stream_that_is_made_again_gets_further_rows_and_its_loss_is_named() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a"]);
    audited(&mesh, &shop).await;
    host.stop().await;
    mesh.js.delete_stream("ORDERS").await.expect("it goes");
    shop.orders(&["b"]);
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["the stream of outbox orders is older than its database"]), SOON)
        .await;
    for name in ["c", "d"] {
        shop.orders(&[name]);
    }
    eventually("further rows", SOON, async || {
        (texts(&events(&mesh).await) == ["b", "c", "d"]).then_some(())
    })
    .await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_outbox_whose_task_panics_is_begun_again() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    shop.orders(&["a"]);
    let host = mesh.host_with_fault("outbox-stored:panic").await;
    host.wait_for_line(says(&["a task has panicked", "outbox orders"]), SOON)
        .await;
    shop.orders(&["b"]);
    audited(&mesh, &shop).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn rows_that_are_published_while_a_service_holds_its_database_are_deleted_afterwards_and_not_published_again() {
    let (mesh, shop) = forgetful().await;
    let host = mesh.host_with_fault("outbox-stored:stop").await;
    shop.orders(&["a"]);
    eventually("the event", SOON, async || {
        (events(&mesh).await.len() == 1).then_some(())
    })
    .await;
    // The service writes for longer than the host waits to delete the row.
    shop.db.execute_batch("BEGIN IMMEDIATE").expect("it begins");
    host.signal(Signal::CONT);
    host.wait_for_line(says(&["an outbox does not publish", "database is locked"]), PATIENT)
        .await;
    assert!(events(&mesh).await.len() <= 1);
    shop.db
        .execute("INSERT INTO orders (event) VALUES ('b')", [])
        .expect("it is saved");
    shop.row("orders.created", None, "b");
    shop.db.execute_batch("COMMIT").expect("it ends");
    audited(&mesh, &shop).await;
    shop.orders(&["c"]);
    audited(&mesh, &shop).await;
}

#[tokio::test]
async fn a_copy_that_takes_the_place_of_the_database_under_a_running_host_is_found() {
    let (mesh, shop) = forgetful().await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a"]);
    audited(&mesh, &shop).await;
    let copy = shop.back_up("copy.db");
    shop.orders(&["undone"]);
    audited(&mesh, &shop).await;
    let file = shop.file.clone();
    drop(shop);
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", file.display()));
    }
    fs::rename(&copy, &file).expect("it is ours");
    let shop = Shop::at(&file);
    shop.orders(&["new"]);
    host.wait_for_line(
        says(&["is older than its stream", "1 events of the stream, ids 2 to 2"]),
        SOON,
    )
    .await;
    eventually("the new row", SOON, async || {
        (texts(&events(&mesh).await) == ["a", "undone", "new"]).then_some(())
    })
    .await;
}
