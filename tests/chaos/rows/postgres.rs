//! A service whose database is a PostgreSQL. Hosts reach it through a network of their own. What became of a transaction whose answer
//! is lost, the database says when the round is over.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;

use super::{EVERY, NAME, UNDONE, Written, judge, rows};
use crate::mesh::{Mesh, PATIENT};
use crate::stage::pass;
use crate::support::postgres::{self, PostgresServer};
use crate::support::{Direction, Proxy, eventually};

/// What of the database the outbox reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Table,
    Log,
}

/// What happens to the database when the point is hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DatabaseTrouble {
    /// It is killed, and started again after this.
    Killed(Duration),
    /// It is stopped in order, and started again after this.
    Stopped(Duration),
    /// The connections between hosts and database are cut.
    Cut,
    /// What the database sends to hosts comes so late.
    Silent(Duration),
}

impl fmt::Display for DatabaseTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseTrouble::Killed(down) => write!(f, "killed and down for {down:?}"),
            DatabaseTrouble::Stopped(down) => write!(f, "stopped and down for {down:?}"),
            DatabaseTrouble::Cut => write!(f, "cut off"),
            DatabaseTrouble::Silent(time) => write!(f, "silent for {time:?}"),
        }
    }
}

pub struct PostgresService {
    server: PostgresServer,
    network: Proxy,
    source: Source,
    database: String,
    /// It writes until this is dropped.
    going_on: Option<oneshot::Sender<()>>,
    writing: Option<JoinHandle<()>>,
}

impl PostgresService {
    /// # Panics
    /// When this machine has no PostgreSQL.
    pub async fn new(source: Source) -> Self {
        let server = PostgresServer::own().await.expect("this machine has a PostgreSQL");
        let network = Proxy::start(server.addr());
        let database = server.database().await;
        Self {
            server,
            network,
            source,
            database,
            going_on: None,
            writing: None,
        }
    }

    pub fn table(&self) -> String {
        let source = match self.source {
            Source::Table => "table",
            Source::Log => "log",
        };
        let (address, database) = (self.network.addr(), &self.database);
        format!(
            "[outbox.{NAME}]\nurl = \"postgres://host@{address}/{database}\"\npassword = \"secret\"\nstream = \"ROWS\"\n\
             source = \"{source}\""
        )
    }

    /// Runs what the command prints, as `psql` does, and what the documentation has the owner of the database grant.
    pub async fn open(&mut self, mesh: &Mesh) {
        let db = self.server.client(&self.database).await;
        let run = async |sql: &str| db.batch_execute(sql).await.expect("it is SQL");
        run("CREATE ROLE host LOGIN PASSWORD 'secret'").await;
        let sql = mesh.jetmesh_ok(&["outbox", "init", NAME]).await;
        for statement in sql.split_inclusive(";\n") {
            run(statement).await;
        }
        run(match self.source {
            Source::Table => "GRANT SELECT, DELETE ON outbox TO host; GRANT SELECT, UPDATE ON outbox_position TO host",
            Source::Log => "ALTER ROLE host REPLICATION; GRANT SELECT, UPDATE ON outbox_position TO host",
        })
        .await;
        run("CREATE TABLE written (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, subject text, payload text)")
            .await;
    }

    pub fn begin(&mut self) {
        let (going_on, over) = oneshot::channel();
        let (port, database, source) = (self.server.addr().port(), self.database.clone(), self.source);
        self.going_on = Some(going_on);
        self.writing = Some(tokio::task::spawn_local(async move {
            tokio::select! {
                _ = over => {}
                () = write(port, &database, source) => {}
            }
        }));
    }

    pub async fn suffer(&mut self, trouble: DatabaseTrouble) {
        let down = match trouble {
            DatabaseTrouble::Cut => return self.network.cut(),
            DatabaseTrouble::Silent(time) => {
                self.network.pause(Direction::FromServer);
                pass(time).await;
                return self.network.resume(Direction::FromServer);
            }
            DatabaseTrouble::Killed(down) => {
                self.server.kill().await;
                down
            }
            DatabaseTrouble::Stopped(down) => {
                self.server.stop().await;
                down
            }
        };
        pass(down).await;
        self.server.start().await;
    }

    /// What is not published after a long time, the auditor finds.
    pub async fn end(&mut self, mesh: &Mesh) -> Written {
        self.going_on = None;
        let writing = self.writing.take().expect("it has begun, and ends once");
        writing.await.expect("the service does not panic");
        let db = self.server.client(&self.database).await;
        // It may still be about to commit what it was sent last.
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND usename = current_user AND pid <> pg_backend_pid()";
        eventually("the service's connection to end", PATIENT, async || {
            let busy: i64 = db.query_one(busy, &[]).await.expect("it is read").get(0);
            (busy == 0).then_some(())
        })
        .await;
        let mut written = Written::default();
        let all = db.query("SELECT subject, payload FROM written ORDER BY n", &[]).await;
        for row in all.expect("it is read") {
            written.add(row.get(0), row.get(1));
        }
        let began = Instant::now();
        eventually("the rows to be published", PATIENT * 2, async || {
            (judge(mesh, &written).await.is_empty() || began.elapsed() > PATIENT).then_some(())
        })
        .await;
        written
    }
}

/// Writes transactions for as long as it is polled, over another connection when one is lost.
async fn write(port: u16, database: &str, source: Source) {
    let mut pace = interval(EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut db: Option<Client> = None;
    for number in 1.. {
        pace.tick().await;
        if db.as_ref().is_none_or(Client::is_closed) {
            db = postgres::try_client(port, database).await;
        }
        let Some(db) = &db else { continue };
        // If it fails, the connection is lost or the database ends.
        let _ = db.batch_execute(&transaction(number, source)).await;
    }
}

/// A transaction that notes its rows and publishes them.
fn transaction(number: usize, source: Source) -> String {
    let note = |(subject, payload): (&str, String)| {
        let published = match source {
            Source::Table => {
                format!("INSERT INTO outbox (subject, payload) VALUES ('{subject}', convert_to('{payload}', 'UTF8'))")
            }
            Source::Log => {
                let message = format!("{{\"subject\": \"{subject}\", \"payload\": \"{payload}\"}}");
                format!("SELECT pg_logical_emit_message(true, 'jetmesh', '{message}')")
            }
        };
        format!("INSERT INTO written (subject, payload) VALUES ('{subject}', '{payload}'); {published};\n")
    };
    let rows: String = rows(number).into_iter().map(note).collect();
    let end = if number.is_multiple_of(UNDONE) {
        "ROLLBACK"
    } else {
        "COMMIT"
    };
    format!("BEGIN;\n{rows}{end}")
}
