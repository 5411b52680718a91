//! A service that commits events, in each kind of database.

use std::ops::Range;
use std::path::Path;

use tokio_postgres::Client;

use crate::support::postgres::PostgresServer;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Table,
    Log,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sqlite => "rows of SQLite",
            Kind::Table => "rows of PostgreSQL",
            Kind::Log => "log of PostgreSQL",
        }
    }
}

pub enum Service {
    Sqlite(rusqlite::Connection),
    Postgres(Kind, Client),
}

impl Service {
    /// The service, and the table of its outbox in a configuration.
    pub async fn open(kind: Kind, folder: &Path, postgres: Option<&PostgresServer>) -> (Service, String) {
        let outbox = |url: &str, source: &str| {
            format!("[outbox.orders]\nurl = \"{url}\"\nsource = \"{source}\"\nstream = \"ORDERS\"\n")
        };
        match (kind, postgres) {
            (Kind::Table | Kind::Log, Some(server)) => {
                let database = server.database().await;
                let url = format!("postgres://postgres@{}/{database}", server.addr());
                let source = if kind == Kind::Log { "log" } else { "table" };
                (
                    Service::Postgres(kind, server.client(&database).await),
                    outbox(&url, source),
                )
            }
            _ => {
                let db = rusqlite::Connection::open(folder.join("orders.db")).expect("it opens");
                db.busy_timeout(std::time::Duration::from_secs(20)).expect("it is set");
                (Service::Sqlite(db), outbox("sqlite:orders.db", "table"))
            }
        }
    }

    pub async fn init(&mut self, sql: &str) {
        match self {
            Service::Sqlite(db) => db.execute_batch(sql).expect("it is SQL"),
            Service::Postgres(_, db) => {
                // As psql runs it: each statement by itself.
                for statement in sql.split_inclusive(";\n") {
                    db.batch_execute(statement).await.expect("it is SQL");
                }
            }
        }
    }

    /// One transaction with an event for each number.
    pub async fn commit(&mut self, numbers: Range<u64>) {
        match self {
            Service::Sqlite(db) => {
                let transaction = db.transaction().expect("it begins");
                for number in numbers {
                    transaction
                        .prepare_cached("INSERT INTO outbox (subject, payload) VALUES ('orders.created', ?1)")
                        .and_then(|mut insert| insert.execute([number.to_string()]))
                        .expect("it is written");
                }
                transaction.commit().expect("it is committed");
            }
            Service::Postgres(kind, db) => {
                let (first, last) = (numbers.start, numbers.end - 1);
                let sql = match kind {
                    Kind::Log => format!(
                        "SELECT count(pg_logical_emit_message(true, 'jetmesh', '{{\"subject\":\"orders.created\",\"payload\":' || n || '}}')) \
                         FROM generate_series({first}, {last}) n"
                    ),
                    Kind::Table | Kind::Sqlite => format!(
                        "INSERT INTO outbox (subject, payload) \
                         SELECT 'orders.created', convert_to(n::text, 'UTF8') FROM generate_series({first}, {last}) n"
                    ),
                };
                db.batch_execute(&sql).await.expect("it is committed");
            }
        }
    }
}
