//! What an outbox of a PostgreSQL does when hosts, servers, networks and the database fail: each committed row is one event, in order,
//! and nothing else is.

use crate::mesh::{Mesh, PATIENT, says};
use crate::pg_shop::{PgShop, Source, audited};
use crate::pg_trials::{self, Cut};
use crate::shop::{events, texts};
use crate::support::postgres::PostgresServer;
use crate::support::wait::SOON;
use crate::support::{Direction, eventually};

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_host_that_is_killed_between_any_two_steps_loses_and_repeats_no_row_of_postgres() {
    pg_trials::killed_at_each_step(Source::Table).await;
}

#[tokio::test]
async fn of_two_hosts_one_publishes_an_outbox_of_postgres_and_the_other_one_takes_over() {
    drop(pg_trials::taken_over(Source::Table).await);
}

#[tokio::test]
async fn a_postgres_that_is_killed_while_its_outbox_publishes_loses_and_repeats_no_row() {
    pg_trials::database_killed(Source::Table).await;
}

#[tokio::test]
async fn after_an_older_copy_of_postgres_is_restored_no_row_is_published_twice_and_what_is_undone_is_named() {
    let Some(mut server) = PostgresServer::own().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(&server, Source::Table).await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a", "b"]).await;
    audited(&mesh, &shop).await;
    // The copy has a row that is published later.
    mesh.jetmesh_ok(&["outbox", "pause", "orders"]).await;
    shop.orders(&["c"]).await;
    server.stop().await;
    let copy = server.back_up();
    server.start().await;
    let shop = shop.again(&server).await;
    mesh.jetmesh_ok(&["outbox", "resume", "orders"]).await;
    audited(&mesh, &shop).await;
    shop.orders(&["undone-1"]).await;
    audited(&mesh, &shop).await;
    shop.orders(&["undone-2"]).await;
    audited(&mesh, &shop).await;
    // The host runs on, as it would while a database is failed over.
    server.stop().await;
    server.restore(&copy);
    server.start().await;
    let shop = shop.again(&server).await;
    // It gets the id of a row that is undone.
    shop.orders(&["new"]).await;
    let named = [
        "is older than its stream",
        "2 events of the stream",
        "have no row any more",
    ];
    host.wait_for_line(says(&named), PATIENT).await;
    eventually("the new row", SOON, async || {
        (texts(&events(&mesh).await) == ["a", "b", "c", "undone-1", "undone-2", "new"]).then_some(())
    })
    .await;
    assert_eq!(shop.committed().await, ["a", "b", "c", "new"]);
}

#[tokio::test]
async fn another_postgres_in_the_place_of_one_is_refused_until_a_person_says_so() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mut mesh, shop) = PgShop::open(server, Source::Table).await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a"]).await;
    audited(&mesh, &shop).await;
    host.stop().await;
    let (other, shop) = PgShop::open(server, Source::Table).await;
    mesh.config = other.config.clone();
    drop::<Mesh>(other);
    shop.orders(&["b"]).await;
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["ERROR", "from another database", "--new-database"]), PATIENT)
        .await;
    assert_eq!(texts(&events(&mesh).await), ["a"]);
    mesh.jetmesh_ok(&["outbox", "resume", "orders", "--new-database"]).await;
    eventually("the new database's row", SOON, async || {
        (texts(&events(&mesh).await) == ["a", "b"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_network_that_is_cut_or_silent_between_host_and_postgres_loses_and_repeats_no_row() {
    let Some(Cut {
        mesh,
        shop,
        host,
        network,
    }) = pg_trials::network_cut(Source::Table).await
    else {
        return;
    };
    // Neither side hears that the other one is away.
    network.pause(Direction::FromServer);
    shop.orders(&["silent"]).await;
    host.wait_for_line(says(&["an outbox does not publish", "no answer in 15 s"]), PATIENT)
        .await;
    network.resume(Direction::FromServer);
    shop.orders(&["after"]).await;
    audited(&mesh, &shop).await;
}
