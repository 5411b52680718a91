//! A service with a database of its own and an outbox, and an auditor that knows only what the database says is committed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream::stream;
use rusqlite::Connection;

use crate::mesh::{Config, Found, Mesh};
use crate::support::wait::SOON;
use crate::support::{eventually, modules};

/// The lines of a configuration with an outbox `orders`.
pub const OUTBOX: &str = "[outbox.orders]\nurl = \"sqlite:orders.db\"\nstream = \"ORDERS\"";

/// The steps of an outbox at which tests kill a host.
#[cfg(feature = "failpoints")]
pub const KILLED_AT: [&str; 6] = [
    "outbox-before:kill",
    "batch-part-sent:kill:2",
    "outbox-stored:kill",
    "outbox-stored:kill:2",
    "outbox-lettered:kill",
    "outbox-confirmed:kill",
];

/// A mesh with an outbox, and a handler on other subjects than its events.
pub fn config() -> Config {
    config_of(OUTBOX)
}

/// The same with other lines of the outbox.
pub fn config_of(outbox: &str) -> Config {
    let lines = "bucket = \"probe\"\npublish = [\"events.>\"]\nsubjects = [\"orders.probe\"]";
    Config::new()
        .handler("probe", &modules::handler("probe"), lines)
        .table(outbox)
}

/// A service that saves orders and publishes them, both in one transaction.
pub struct Shop {
    pub file: PathBuf,
    pub db: Connection,
}

impl Shop {
    /// In the folder of a mesh's hosts; the tables are made by the command.
    pub async fn open(mesh: &Mesh) -> Shop {
        Shop::open_empty(mesh).await.with_orders()
    }

    /// The same without a table of orders.
    pub async fn open_empty(mesh: &Mesh) -> Shop {
        mesh.jetmesh_ok(&["outbox", "init", "orders", "--yes"]).await;
        Shop::file(&mesh.dir.path().join("orders.db"))
    }

    pub fn at(file: &Path) -> Shop {
        Shop::file(file).with_orders()
    }

    fn file(file: &Path) -> Shop {
        let db = Connection::open(file).expect("it opens");
        db.busy_timeout(Duration::from_secs(20)).expect("it is set");
        Shop {
            file: file.to_owned(),
            db,
        }
    }

    fn with_orders(self) -> Shop {
        let orders = "CREATE TABLE IF NOT EXISTS orders (n INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT)";
        self.db.execute_batch(orders).expect("it can be made");
        self
    }

    /// One transaction with as many orders, which is committed.
    pub fn orders(&self, names: &[&str]) {
        self.transaction(names, "COMMIT");
    }

    pub fn transaction(&self, names: &[&str], end: &str) {
        self.db.execute_batch("BEGIN IMMEDIATE").expect("it begins");
        for name in names {
            self.db
                .execute("INSERT INTO orders (event) VALUES (?1)", [name])
                .expect("it is saved");
            self.row("orders.created", None, name);
        }
        self.db.execute_batch(end).expect("it ends");
    }

    /// A row of the outbox.
    pub fn row(&self, subject: &str, headers: Option<&str>, payload: &str) {
        let sql = "INSERT INTO outbox (subject, headers, payload) VALUES (?1, ?2, ?3)";
        self.db
            .execute(sql, (subject, headers, payload))
            .expect("it is written");
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.db.query_row(sql, [], |row| row.get(0)).expect("it is a number")
    }

    /// What the database says is ordered.
    pub fn committed(&self) -> Vec<String> {
        let mut all = self
            .db
            .prepare("SELECT event FROM orders ORDER BY n")
            .expect("it is SQL");
        let all = all.query_map([], |row| row.get(0)).expect("it is read");
        all.collect::<Result<_, _>>().expect("texts")
    }

    /// A copy of the database as it is now.
    pub fn back_up(&self, name: &str) -> PathBuf {
        let copy = self.file.with_file_name(name);
        let sql = format!("VACUUM INTO '{}'", copy.display());
        self.db.execute_batch(&sql).expect("it is copied");
        copy
    }
}

/// The events of the outbox in a stream, in its order.
pub async fn events(mesh: &Mesh) -> Vec<Found> {
    mesh.messages("ORDERS", "orders.created").await
}

pub fn texts(events: &[Found]) -> Vec<String> {
    events
        .iter()
        .map(|event| String::from_utf8_lossy(&event.payload).into_owned())
        .collect()
}

/// Waits until what is committed is in the stream: each order exactly once, in order, and nothing else; and until the table is
/// empty.
#[track_caller]
pub fn audited<'a>(mesh: &'a Mesh, shop: &'a Shop) -> impl Future<Output = Vec<Found>> + 'a {
    eventually("the orders to be published", SOON * 2, async move || {
        let left = shop.number("SELECT count(*) FROM outbox");
        published(mesh, &shop.committed(), left).await
    })
}

/// The events, if all that are wanted are there, in order and nothing else; and if no row is left.
pub async fn published(mesh: &Mesh, wanted: &[String], left: i64) -> Option<Vec<Found>> {
    let found = events(mesh).await;
    assert!(found.len() <= wanted.len(), "{:?}", texts(&found));
    if found.len() < wanted.len() || left > 0 {
        return None;
    }
    assert_eq!(texts(&found), wanted);
    Some(found)
}

/// A mesh and a service. The stream forgets message ids at once, so that nothing rests on it.
pub async fn forgetful() -> (Mesh, Shop) {
    let mesh = Mesh::new(config()).await;
    stream(&mesh, |config| config.duplicate_window = Duration::from_millis(100)).await;
    let shop = Shop::open(&mesh).await;
    (mesh, shop)
}

/// Makes the stream as a host would, with other settings.
pub async fn stream(mesh: &Mesh, change: impl FnOnce(&mut stream::Config)) {
    let mut config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned(), "$MESH.outbox.orders".to_owned()],
        allow_atomic_publish: true,
        ..stream::Config::default()
    };
    change(&mut config);
    mesh.js.create_stream(config).await.expect("it can be made");
}
