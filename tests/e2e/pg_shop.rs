//! A service whose database is a PostgreSQL. Its hosts log in as a role that may do no more than the documentation says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio_postgres::Client;

use crate::mesh::{Config, Found, Mesh, PATIENT};
use crate::shop::{published, stream};
use crate::support::postgres::PostgresServer;
use crate::support::wait::SOON;
use crate::support::{eventually, modules};

/// What of the database the outbox reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Table,
    Log,
}

impl Source {
    /// What the documentation has the owner of the database grant.
    fn grants(self, role: &str) -> String {
        match self {
            Source::Table => {
                format!("GRANT SELECT, DELETE ON outbox TO {role}; GRANT SELECT, UPDATE ON outbox_position TO {role}")
            }
            Source::Log => format!("ALTER ROLE {role} REPLICATION; GRANT SELECT, UPDATE ON outbox_position TO {role}"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Source::Table => "table",
            Source::Log => "log",
        }
    }
}

pub struct PgShop {
    pub database: String,
    pub db: Client,
    pub source: Source,
}

/// Where the hosts of a database's mesh log in.
pub fn url(address: SocketAddr, database: &str) -> String {
    format!("postgres://host_{database}@{address}/{database}")
}

/// A mesh with an outbox of the database at this address.
pub fn config(url: &str) -> Config {
    config_with(url, Source::Table, "")
}

/// The same with another source, and more lines of its table.
pub fn config_with(url: &str, source: Source, more: &str) -> Config {
    let lines = "bucket = \"probe\"\npublish = [\"events.>\"]\nsubjects = [\"orders.probe\"]";
    let keys = |url: &str| format!("url = \"{url}\"\npassword = \"secret\"\nstream = \"ORDERS\"");
    let outbox = format!("[outbox.orders]\n{}\nsource = \"{}\"\n{more}", keys(url), source.word());
    Config::new()
        .handler("probe", &modules::handler("probe"), lines)
        .table(&outbox)
}

impl PgShop {
    /// Waits until a host that cannot publish has tried again: it connects for each try, and for what it then tells of the rows.
    pub async fn tried_again(&self) {
        let newest =
            "SELECT coalesce(max(extract(epoch FROM backend_start) * 1000000), 0)::bigint FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name LIKE 'jetmesh outbox%'";
        let mut seen = BTreeSet::new();
        // A stopped one tries every five seconds, and a connection is short: not each is seen.
        eventually("further connections of the host", PATIENT, async || {
            seen.extend(Some(self.number(newest).await).filter(|began| *began > 0));
            (seen.len() >= 3).then_some(())
        })
        .await;
    }

    /// Writes 20 MB that no outbox reads into the log of the database.
    pub async fn filler(&self) {
        self.run(
            "CREATE TABLE IF NOT EXISTS filler (text text);
             INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000)",
        )
        .await;
    }

    /// The database with its tables and the role of the hosts, and a mesh whose stream forgets message ids at once.
    pub async fn open(server: &PostgresServer, source: Source) -> (Mesh, PgShop) {
        PgShop::behind(server, server.addr(), source, "").await
    }

    /// The same for hosts that reach the database at another address, with more lines of the outbox's configuration.
    pub async fn behind(server: &PostgresServer, address: SocketAddr, source: Source, more: &str) -> (Mesh, PgShop) {
        let database = server.database().await;
        let mesh = Mesh::new(config_with(&url(address, &database), source, more)).await;
        stream(&mesh, |config| config.duplicate_window = Duration::from_millis(100)).await;
        let shop = PgShop::at(server, &database, source).await;
        let role = format!("host_{database}");
        let made = format!("CREATE ROLE {role} LOGIN PASSWORD 'secret';");
        shop.run(&made).await;
        shop.init(&mesh).await;
        shop.run(&source.grants(&role)).await;
        shop.run("CREATE TABLE orders (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event text)")
            .await;
        (mesh, shop)
    }

    /// A database that is there.
    pub async fn at(server: &PostgresServer, database: &str, source: Source) -> PgShop {
        PgShop {
            database: database.to_owned(),
            db: server.client(database).await,
            source,
        }
    }

    /// Another connection to its database.
    pub async fn again(&self, server: &PostgresServer) -> PgShop {
        PgShop::at(server, &self.database, self.source).await
    }

    /// Runs what the command prints, as `psql` does: each statement by itself.
    pub async fn init(&self, mesh: &Mesh) {
        let sql = mesh.jetmesh_ok(&["outbox", "init", "orders"]).await;
        for statement in sql.split_inclusive(";\n") {
            self.run(statement).await;
        }
    }

    pub async fn run(&self, sql: &str) {
        self.db.batch_execute(sql).await.expect("it is SQL");
    }

    /// One transaction with as many orders, which is committed.
    pub async fn orders(&self, names: &[&str]) {
        self.run(&format!("BEGIN; {} COMMIT", self.saved(names))).await;
    }

    /// The same, if the database takes it.
    pub async fn try_orders(&self, names: &[&str]) -> bool {
        let sql = format!("BEGIN; {} COMMIT", self.saved(names));
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

    /// Commits orders until one is refused, because the database has ended.
    pub async fn orders_until_refused(&self) {
        for n in 0.. {
            if !self.try_orders(&[&format!("{n}"), &format!("{n}-b")]).await {
                return;
            }
        }
    }

    /// Writes a message into the log; its place.
    pub async fn emit(&self, content: &str) -> String {
        let sql = "SELECT pg_logical_emit_message(true, 'jetmesh', $1)::text";
        self.db.query_one(sql, &[&content]).await.expect("it is written").get(0)
    }

    /// Publishes an event that no stream takes.
    pub async fn poison(&self) {
        match self.source {
            Source::Table => self.row("stock.moved", None, "poison").await,
            Source::Log => drop(
                self.emit("{\"subject\": \"stock.moved\", \"payload\": \"poison\"}")
                    .await,
            ),
        }
    }

    /// Waits until no row is left in the table.
    pub async fn settled(&self) {
        eventually("the rows to be settled", SOON, async || {
            (self.left().await == 0).then_some(())
        })
        .await;
    }

    /// How many rows of a table are left.
    async fn left(&self) -> i64 {
        match self.source {
            Source::Table => self.number("SELECT count(*) FROM outbox").await,
            Source::Log => 0,
        }
    }

    /// The statements of a service that saves orders and publishes them.
    pub fn saved(&self, names: &[&str]) -> String {
        let published = |name: &str| match self.source {
            Source::Table => {
                format!(
                    "INSERT INTO outbox (subject, payload) VALUES ('orders.created', convert_to('{name}', 'UTF8'));"
                )
            }
            Source::Log => {
                let message = format!("{{\"subject\": \"orders.created\", \"payload\": \"{name}\"}}");
                format!("SELECT pg_logical_emit_message(true, 'jetmesh', '{message}');")
            }
        };
        let saved = |name: &&str| format!("INSERT INTO orders (event) VALUES ('{name}'); {}", published(name));
        names.iter().map(saved).collect()
    }

    /// What the database says is ordered.
    pub async fn committed(&self) -> Vec<String> {
        let rows = self.db.query("SELECT event FROM orders ORDER BY n", &[]).await;
        rows.expect("it is read").iter().map(|row| row.get(0)).collect()
    }
}

/// Waits until what is committed is in the stream: each order exactly once, in order, and nothing else; and until the table is
/// empty.
#[track_caller]
pub fn audited<'a>(mesh: &'a Mesh, shop: &'a PgShop) -> impl Future<Output = Vec<Found>> + 'a {
    eventually("the orders to be published", SOON * 2, async move || {
        published(mesh, &shop.committed().await, shop.left().await).await
    })
}
