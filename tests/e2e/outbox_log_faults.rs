//! What an outbox of a log does when hosts, networks and the database fail: what the database says is committed is there, each once, in
//! the order of commits, and nothing else is.

use crate::mesh::{Mesh, PATIENT, says};
use crate::pg_shop::{PgShop, Source, audited};
use crate::pg_trials;
use crate::shop::{events, texts};
#[cfg(feature = "failpoints")]
use crate::support::Signal;
use crate::support::eventually;
use crate::support::postgres::PostgresServer;
use crate::support::wait::SOON;

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_is_killed_between_any_two_steps_loses_and_repeats_nothing_of_a_log() {
    pg_trials::killed_at_each_step(Source::Log).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_is_frozen_with_a_log_and_wakes_late_changes_nothing() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    for fault in ["outbox-before:stop", "outbox-stored:stop"] {
        let (mesh, shop) = PgShop::open(server, Source::Log).await;
        let frozen = mesh.host_with_fault(fault).await;
        shop.orders(&["a", "b", "c"]).await;
        eventually("the slot to be held", SOON, async || {
            let held = "SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()";
            (shop.number(held).await == 1).then_some(())
        })
        .await;
        let _next = mesh.host(&[]).await;
        // The server takes the slot from a host that is silent for ten seconds.
        audited(&mesh, &shop).await;
        frozen.signal(Signal::CONT);
        for n in 0..20 {
            shop.orders(&[&format!("after-{n}")]).await;
        }
        audited(&mesh, &shop).await;
        assert!(frozen.ended().is_none(), "{fault}");
    }
}

#[tokio::test]
async fn of_two_hosts_one_publishes_a_log_and_the_other_one_takes_over() {
    let Some((mesh, _hosts)) = pg_trials::taken_over(Source::Log).await else {
        return;
    };
    let status = mesh.jetmesh_ok(&["outbox", "status"]).await;
    assert!(status.contains("publishing"), "{status}");
}

#[tokio::test]
async fn a_postgres_that_is_killed_while_its_log_is_published_loses_and_repeats_nothing() {
    pg_trials::database_killed(Source::Log).await;
}

#[tokio::test]
async fn after_a_postgres_is_set_back_the_same_places_of_its_log_hold_other_transactions_and_these_are_published() {
    // The files of a server that was stopped go on in the same history, and a restored backup in another one.
    for (recovered, timeline) in [(false, "1"), (true, "2")] {
        let Some(mut server) = PostgresServer::own().await else {
            return;
        };
        let (mesh, shop) = PgShop::open(&server, Source::Log).await;
        let host = mesh.host(&[]).await;
        shop.orders(&["a", "b"]).await;
        audited(&mesh, &shop).await;
        // The copy has one that is published later.
        mesh.jetmesh_ok(&["outbox", "pause", "orders"]).await;
        shop.orders(&["c"]).await;
        host.stop().await;
        server.stop().await;
        let copy = server.back_up();
        server.start().await;
        let shop = shop.again(&server).await;
        mesh.jetmesh_ok(&["outbox", "resume", "orders"]).await;
        let host = mesh.host(&[]).await;
        audited(&mesh, &shop).await;
        for n in 1..=3 {
            shop.orders(&[&format!("undone-{n}")]).await;
        }
        audited(&mesh, &shop).await;
        server.stop().await;
        server.restore(&copy);
        if recovered {
            server.recover();
        }
        server.start().await;
        let shop = shop.again(&server).await;
        for n in 1..=3 {
            shop.orders(&[&format!("new-{n}")]).await;
        }
        host.wait_for_line(says(&["is older than its stream", "3 events of the stream"]), PATIENT)
            .await;
        let all = [
            "a", "b", "c", "undone-1", "undone-2", "undone-3", "new-1", "new-2", "new-3",
        ];
        eventually("the new ones", SOON, async || {
            (texts(&events(&mesh).await) == all).then_some(())
        })
        .await;
        assert_eq!(shop.committed().await, ["a", "b", "c", "new-1", "new-2", "new-3"]);
        let marker = mesh
            .messages("ORDERS", "$MESH.outbox.orders")
            .await
            .pop()
            .expect("there is one");
        assert_eq!(marker.json()["log"]["timeline"], timeline);
        drop::<Mesh>(mesh);
    }
}

#[tokio::test]
async fn after_a_postgres_is_restored_by_pg_basebackup_the_lost_slot_is_named_and_what_is_undone_as_well() {
    let Some(mut server) = PostgresServer::own().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(&server, Source::Log).await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a", "b"]).await;
    audited(&mesh, &shop).await;
    let copy = server.base_backup();
    for n in 1..=3 {
        shop.orders(&[&format!("undone-{n}")]).await;
    }
    audited(&mesh, &shop).await;
    server.stop().await;
    server.restore(&copy);
    server.recover();
    server.start().await;
    // Such a copy has no slots.
    host.wait_for_line(says(&["there is no slot", "A lost slot"]), PATIENT)
        .await;
    let shop = shop.again(&server).await;
    assert_eq!(shop.committed().await, ["a", "b"]);
    shop.orders(&["before-the-slot"]).await;
    shop.init(&mesh).await;
    shop.orders(&["new"]).await;
    host.wait_for_line(says(&["is older than its stream", "3 events of the stream"]), PATIENT)
        .await;
    let all = ["a", "b", "undone-1", "undone-2", "undone-3", "new"];
    eventually("what is new", SOON, async || {
        (texts(&events(&mesh).await) == all).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_network_that_is_cut_between_host_and_log_loses_and_repeats_nothing() {
    drop(pg_trials::network_cut(Source::Log).await);
}
