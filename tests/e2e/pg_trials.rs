//! What is done to outboxes of a PostgreSQL, whether they are read from a table or from the log: after each, what is committed is in
//! the stream, each once and in order, and nothing else is.

use crate::mesh::Mesh;
use crate::pg_shop::{PgShop, Source, audited};
#[cfg(feature = "failpoints")]
use crate::shop::KILLED_AT;
use crate::shop::events;
use crate::support::postgres::PostgresServer;
use crate::support::wait::SOON;
use crate::support::{Host, Proxy, Signal, eventually};

/// A host is killed between any two steps.
#[cfg(feature = "failpoints")]
pub async fn killed_at_each_step(source: Source) {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    for fault in KILLED_AT {
        let (mesh, shop) = PgShop::open(server, source).await;
        let killed = mesh.host_with_fault(fault).await;
        shop.poison().await;
        shop.orders(&["a", "b", "c"]).await;
        eventually("events in the stream", SOON, async || {
            shop.orders(&["more"]).await;
            killed.ended()
        })
        .await;
        shop.orders(&["d", "e"]).await;
        let _next = mesh.host(&[]).await;
        audited(&mesh, &shop).await;
        assert_eq!(mesh.wait_letters(1).await.len(), 1, "{fault}");
    }
}

/// Of two hosts, the one that publishes is killed, each in its turn. `None`: there is no PostgreSQL.
pub async fn taken_over(source: Source) -> Option<(Mesh, Vec<Host>)> {
    let server = PostgresServer::shared().await?;
    let (mesh, shop) = PgShop::open(server, source).await;
    let mut hosts = vec![mesh.host(&[]).await, mesh.host(&[]).await];
    for round in 0..3 {
        for n in 0..60 {
            shop.orders(&[&format!("{round}-{n}"), &format!("{round}-{n}-b")]).await;
            if n == 30 {
                // While it may be at work.
                hosts.remove(0).signal(Signal::KILL);
            }
        }
        audited(&mesh, &shop).await;
        hosts.push(mesh.host(&[]).await);
    }
    Some((mesh, hosts))
}

/// The database is killed while the outbox publishes.
pub async fn database_killed(source: Source) {
    let Some(mut server) = PostgresServer::own().await else {
        return;
    };
    let (mesh, mut shop) = PgShop::open(&server, source).await;
    let _host = mesh.host(&[]).await;
    for _ in 0..2 {
        let before = events(&mesh).await.len();
        tokio::join!(shop.orders_until_refused(), async {
            eventually("some events", SOON, async || {
                (events(&mesh).await.len() > before + 50).then_some(())
            })
            .await;
            server.kill().await;
        });
        server.start().await;
        shop = shop.again(&server).await;
        audited(&mesh, &shop).await;
        shop.orders(&["after"]).await;
        audited(&mesh, &shop).await;
    }
}

/// A mesh whose host reaches the database through a network, which was cut again and again.
pub struct Cut {
    pub mesh: Mesh,
    pub shop: PgShop,
    pub host: Host,
    pub network: Proxy,
}

/// `None`: there is no PostgreSQL.
pub async fn network_cut(source: Source) -> Option<Cut> {
    let server = PostgresServer::shared().await?;
    let network = Proxy::start(server.addr());
    let (mesh, shop) = PgShop::behind(server, network.addr(), source, "").await;
    let host = mesh.host(&[]).await;
    for round in 0..5 {
        for n in 0..20 {
            shop.orders(&[&format!("{round}-{n}"), &format!("{round}-{n}-b")]).await;
            if n == 10 {
                network.cut();
            }
        }
        audited(&mesh, &shop).await;
    }
    Some(Cut {
        mesh,
        shop,
        host,
        network,
    })
}
