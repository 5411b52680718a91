//! A service whose database is a SQLite.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::{EVERY, NAME, UNDONE, Written, rows};
use crate::mesh::{Mesh, PATIENT};
use crate::support::eventually;

pub const OUTBOX: &str = "[outbox.rows]\nurl = \"sqlite:rows.db\"\nstream = \"ROWS\"";

#[derive(Default)]
pub struct SqliteService {
    file: PathBuf,
    /// It writes until this is dropped.
    going_on: Option<Sender<()>>,
    writing: Option<JoinHandle<Written>>,
}

impl SqliteService {
    pub async fn open(&mut self, mesh: &Mesh) {
        mesh.jetmesh_ok(&["outbox", "init", NAME, "--yes"]).await;
        self.file = mesh.dir.path().join("rows.db");
    }

    pub fn begin(&mut self) {
        // A database may make it wait, which must not keep the round from going on.
        let (going_on, over) = mpsc::channel();
        let file = self.file.clone();
        self.going_on = Some(going_on);
        self.writing = Some(std::thread::spawn(move || write(&file, &over)));
    }

    /// # Panics
    /// When rows are left in the table.
    pub async fn end(&mut self) -> Written {
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
        writing.join().expect("the service does not panic")
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
        let rows = rows(number);
        db.execute_batch("BEGIN IMMEDIATE").expect("it begins");
        for (subject, payload) in &rows {
            let sql = "INSERT INTO outbox (subject, payload) VALUES (?1, ?2)";
            db.execute(sql, (subject, payload)).expect("it is written");
        }
        if number.is_multiple_of(UNDONE) {
            db.execute_batch("ROLLBACK").expect("it is undone");
        } else {
            db.execute_batch("COMMIT").expect("it is committed");
            rows.into_iter()
                .for_each(|(subject, payload)| written.add(subject, payload));
        }
    }
    written
}
