//! A service whose database is a PostgreSQL. Its hosts log in as a role that may do no more than the documentation says.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_postgres::Client;

use crate::mesh::{Config, Found, Mesh};
use crate::shop::{published, stream};
use crate::support::postgres::PostgresServer;
use crate::support::wait::SOON;
use crate::support::{eventually, modules};

/// What the documentation has the owner of the database grant.
const GRANTS: &str = "GRANT SELECT, DELETE ON outbox TO {role};\nGRANT SELECT, UPDATE ON outbox_position TO {role};";

pub struct PgShop {
    pub database: String,
    pub db: Client,
}

/// Where the hosts of a database's mesh log in.
pub fn url(address: SocketAddr, database: &str) -> String {
    format!("postgres://host_{database}@{address}/{database}")
}

/// A mesh with an outbox of the database at this address.
pub fn config(url: &str) -> Config {
    let lines = "bucket = \"probe\"\npublish = [\"events.>\"]\nsubjects = [\"orders.probe\"]";
    let outbox = format!("[outbox.orders]\nurl = \"{url}\"\npassword = \"secret\"\nstream = \"ORDERS\"");
    Config::new()
        .handler("probe", &modules::handler("probe"), lines)
        .table(&outbox)
}

impl PgShop {
    /// The database with its tables and the role of the hosts, and a mesh whose stream forgets message ids at once.
    pub async fn open(server: &PostgresServer) -> (Mesh, PgShop) {
        PgShop::behind(server, server.addr()).await
    }

    /// The same for hosts that reach the database at another address.
    pub async fn behind(server: &PostgresServer, address: SocketAddr) -> (Mesh, PgShop) {
        let database = server.database().await;
        let mesh = Mesh::new(config(&url(address, &database))).await;
        stream(&mesh, |config| config.duplicate_window = Duration::from_millis(100)).await;
        let shop = PgShop::at(server, &database).await;
        let role = format!("host_{database}");
        let made = format!("CREATE ROLE {role} LOGIN PASSWORD 'secret';");
        shop.run(&made).await;
        let sql = mesh.jetmesh_ok(&["outbox", "init", "orders"]).await;
        shop.run(&sql).await;
        shop.run(&GRANTS.replace("{role}", &role)).await;
        shop.run("CREATE TABLE orders (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event text)")
            .await;
        (mesh, shop)
    }

    /// A database that is there.
    pub async fn at(server: &PostgresServer, database: &str) -> PgShop {
        PgShop {
            database: database.to_owned(),
            db: server.client(database).await,
        }
    }

    pub async fn run(&self, sql: &str) {
        self.db.batch_execute(sql).await.expect("it is SQL");
    }

    /// One transaction with as many orders, which is committed.
    pub async fn orders(&self, names: &[&str]) {
        self.run(&format!("BEGIN; {} COMMIT", saved(names))).await;
    }

    /// The same, if the database takes it.
    pub async fn try_orders(&self, names: &[&str]) -> bool {
        let sql = format!("BEGIN; {} COMMIT", saved(names));
        self.db.batch_execute(&sql).await.is_ok()
    }

    pub async fn row(&self, subject: &str, headers: Option<&str>, payload: &str) {
        let sql = "INSERT INTO outbox (subject, headers, payload) VALUES ($1, $2::text::jsonb, convert_to($3, 'UTF8'))";
        self.db
            .execute(sql, &[&subject, &headers, &payload])
            .await
            .expect("it is written");
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.db.query_one(sql, &[]).await.expect("it is SQL").get(0)
    }

    /// What the database says is ordered.
    pub async fn committed(&self) -> Vec<String> {
        let rows = self.db.query("SELECT event FROM orders ORDER BY n", &[]).await;
        rows.expect("it is read").iter().map(|row| row.get(0)).collect()
    }
}

/// The statements of a service that saves orders and publishes them.
pub fn saved(names: &[&str]) -> String {
    let one = |name: &&str| {
        format!(
            "INSERT INTO orders (event) VALUES ('{name}'); \
             INSERT INTO outbox (subject, payload) VALUES ('orders.created', convert_to('{name}', 'UTF8'));"
        )
    };
    names.iter().map(one).collect()
}

/// Waits until what is committed is in the stream: each order exactly once, in order, and nothing else; and until the table is
/// empty.
#[track_caller]
pub fn audited<'a>(mesh: &'a Mesh, shop: &'a PgShop) -> impl Future<Output = Vec<Found>> + 'a {
    eventually("the orders to be published", SOON * 2, async move || {
        let left = shop.number("SELECT count(*) FROM outbox").await;
        published(mesh, &shop.committed().await, left).await
    })
}
