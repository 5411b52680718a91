//! A service with an outbox, in the rounds whose point is in the code that publishes outboxes. Its auditor knows only what the
//! database has committed.

mod postgres;
mod sqlite;

use std::time::Duration;

use self::postgres::PostgresService;
pub use self::postgres::{DatabaseTrouble, Source};
use self::sqlite::SqliteService;
use crate::mesh::{Found, Mesh};
use crate::points::Database;

/// It forgets message ids at once: nothing may rest on them.
pub const STREAM: &str = "[streams.ROWS]\nsubjects = [\"rows.>\"]\nduplicate_window = \"100ms\"";
/// Dead letters of its rows name it as their handler.
pub const NAME: &str = "rows";
/// Between two transactions.
const EVERY: Duration = Duration::from_millis(15);
/// One transaction of so many is rolled back, and one has a row that no stream captures.
const UNDONE: usize = 5;
const NOWHERE: usize = 9;

/// What the database has committed, in this order.
#[derive(Debug, Default)]
pub struct Written {
    events: Vec<String>,
    /// Rows that must become dead letters.
    dead: Vec<String>,
}

/// A service that writes transactions from its beginning to its end.
pub enum Service {
    Sqlite(SqliteService),
    Postgres(PostgresService),
}

impl Service {
    /// Its database is there.
    pub async fn new(database: Database) -> Service {
        match database {
            Database::Sqlite => Service::Sqlite(SqliteService::default()),
            Database::Postgres(source) => Service::Postgres(PostgresService::new(source).await),
        }
    }

    /// The outbox in the configuration of hosts.
    pub fn table(&self) -> String {
        match self {
            Service::Sqlite(_) => sqlite::OUTBOX.to_owned(),
            Service::Postgres(service) => service.table(),
        }
    }

    /// Its tables are made, and nothing is written yet.
    pub async fn open(&mut self, mesh: &Mesh) {
        match self {
            Service::Sqlite(service) => service.open(mesh).await,
            Service::Postgres(service) => service.open(mesh).await,
        }
    }

    pub fn begin(&mut self) {
        match self {
            Service::Sqlite(service) => service.begin(),
            Service::Postgres(service) => service.begin(),
        }
    }

    /// Something happens to its database.
    pub async fn suffer(&mut self, trouble: DatabaseTrouble) {
        match self {
            Service::Sqlite(_) => unreachable!("no server has this database"),
            Service::Postgres(service) => service.suffer(trouble).await,
        }
    }

    /// Ends, and waits until all that is committed is published. What the database has committed.
    pub async fn end(&mut self, mesh: &Mesh) -> Written {
        match self {
            Service::Sqlite(service) => service.end().await,
            Service::Postgres(service) => service.end(mesh).await,
        }
    }
}

/// The rows of a transaction: subjects and payloads.
fn rows(number: usize) -> Vec<(&'static str, String)> {
    let taken = (0..=number % 3).map(|row| ("rows.created", format!("{number}-{row}")));
    let dead = (number.is_multiple_of(NOWHERE)).then(|| ("nowhere.rows", format!("{number}-nowhere")));
    taken.chain(dead).collect()
}

impl Written {
    /// A row is committed.
    fn add(&mut self, subject: &str, payload: String) {
        match subject {
            "rows.created" => self.events.push(payload),
            _ => self.dead.push(payload),
        }
    }
}

/// What is wrong: each committed row is one event, in the order of the commits, or one dead letter, and nothing else is there.
pub async fn judge(mesh: &Mesh, written: &Written) -> Vec<String> {
    let mut problems = Vec::new();
    let texts = |found: Vec<Found>| -> Vec<String> {
        let text = |one: &Found| String::from_utf8_lossy(&one.payload).into_owned();
        found.iter().map(text).collect()
    };
    let events = texts(mesh.messages("ROWS", "rows.>").await);
    if let Some(at) = (0..events.len().max(written.events.len())).find(|at| events.get(*at) != written.events.get(*at))
    {
        problems.push(format!(
            "event {at} of the outbox is {:?} where {:?} was committed; {} events, {} rows",
            events.get(at),
            written.events.get(at),
            events.len(),
            written.events.len()
        ));
    }
    let letters = mesh.messages("MESH_DEAD", ">").await.into_iter();
    let mut letters = texts(
        letters
            .filter(|letter| letter.header("Mesh-Handler") == Some(NAME))
            .collect(),
    );
    letters.sort_unstable();
    let mut dead = written.dead.clone();
    dead.sort_unstable();
    if letters != dead {
        problems.push(format!(
            "rows that no stream takes are {dead:?}, and the dead letters are {letters:?}"
        ));
    }
    problems
}
