//! A service with an outbox, in the rounds whose point is in the code that publishes outboxes. Its auditor knows only what the
//! database has committed.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::mesh::{Mesh, PATIENT};
use crate::support::eventually;

/// It forgets message ids at once: nothing may rest on them.
pub const STREAM: &str = "[streams.ROWS]\nsubjects = [\"rows.>\"]\nduplicate_window = \"100ms\"";
pub const OUTBOX: &str = "[outbox.rows]\nurl = \"sqlite:rows.db\"\nstream = \"ROWS\"";
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
pub struct Service {
    file: PathBuf,
    /// It writes until this is dropped.
    going_on: Option<Sender<()>>,
    writing: Option<JoinHandle<Written>>,
    /// When it has ended.
    pub written: Option<Written>,
}

impl Service {
    /// Its tables are made, and nothing is written yet.
    pub async fn open(mesh: &Mesh) -> Service {
        mesh.jetmesh_ok(&["outbox", "init", NAME, "--yes"]).await;
        Service {
            file: mesh.dir.path().join("rows.db"),
            going_on: None,
            writing: None,
            written: None,
        }
    }

    pub fn begin(&mut self) {
        // A database may make it wait, which must not keep the round from going on.
        let (going_on, over) = mpsc::channel();
        let file = self.file.clone();
        self.going_on = Some(going_on);
        self.writing = Some(std::thread::spawn(move || write(&file, &over)));
    }

    /// Ends, and waits until no row is left in the table.
    ///
    /// # Panics
    /// When rows are left.
    pub async fn end(&mut self) {
        self.going_on = None;
        let writing = self.writing.take().expect("it has begun, and ends once");
        eventually("the service to end", PATIENT, async || {
            writing.is_finished().then_some(())
        })
        .await;
        let db = open(&self.file);
        eventually("the rows to be published", PATIENT, async || {
            let left: i64 = db
                .query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
                .expect("it is a number");
            (left == 0).then_some(())
        })
        .await;
        self.written = Some(writing.join().expect("the service does not panic"));
    }
}

fn open(file: &Path) -> Connection {
    let db = Connection::open(file).expect("it opens");
    db.busy_timeout(PATIENT).expect("it is set");
    db
}

fn write(file: &Path, over: &Receiver<()>) -> Written {
    let db = open(file);
    let mut written = Written::default();
    for number in 1.. {
        // A pace, not a wait: so that rows are under way whenever the point is hit.
        if over.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
        let rows: Vec<String> = (0..=number % 3).map(|row| format!("{number}-{row}")).collect();
        let dead = (number % NOWHERE == 0).then(|| format!("{number}-nowhere"));
        db.execute_batch("BEGIN IMMEDIATE").expect("it begins");
        let subjects = rows
            .iter()
            .map(|row| ("rows.created", row))
            .chain(dead.iter().map(|row| ("nowhere.rows", row)));
        for (subject, row) in subjects {
            db.execute("INSERT INTO outbox (subject, payload) VALUES (?1, ?2)", (subject, row))
                .expect("it is written");
        }
        if number % UNDONE == 0 {
            db.execute_batch("ROLLBACK").expect("it is undone");
        } else {
            db.execute_batch("COMMIT").expect("it is committed");
            written.events.extend(rows);
            written.dead.extend(dead);
        }
    }
    written
}

/// What is wrong: each committed row is one event, in the order of the commits, or one dead letter, and nothing else is there.
pub async fn judge(mesh: &Mesh, written: &Written) -> Vec<String> {
    let mut problems = Vec::new();
    let texts = |found: Vec<crate::mesh::Found>| -> Vec<String> {
        let text = |one: &crate::mesh::Found| String::from_utf8_lossy(&one.payload).into_owned();
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
