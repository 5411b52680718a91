//! A database of SQLite, on a thread of its own: what SQLite does blocks, and several times a second it is asked whether a service
//! has committed.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::super::error::Error;
use super::Table;
use crate::plan::Outbox;
use crate::process::limits;

/// Between two looks whether the database has changed: half of it is what a row waits on average. A look takes some
/// microseconds.
const LOOK: Duration = Duration::from_millis(10);

type Job = Box<dyn FnOnce(&mut Table) + Send>;

/// The thread ends when this is dropped.
pub struct SqliteThread {
    jobs: Sender<Job>,
    changed: Arc<Notify>,
    file: String,
}

impl SqliteThread {
    pub fn open(outbox: &Outbox, path: &Path) -> Result<SqliteThread, Error> {
        let (jobs, work) = channel();
        let changed = Arc::new(Notify::new());
        let file = path.display().to_string();
        let (table, told) = (Table::new(outbox, path), Arc::clone(&changed));
        let thread = thread::Builder::new().name(format!("outbox-{}", outbox.name));
        let started = thread.spawn(move || serve(&work, table, &told));
        started.map_err(|error| Error::Database {
            database: file.clone(),
            why: limits::no_thread(&error),
        })?;
        Ok(SqliteThread { jobs, changed, file })
    }

    /// Completes when a service may have committed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Does a step on the database's thread.
    ///
    /// # Cancel safety
    /// Dropped half-way, the step is done nevertheless.
    pub async fn ask<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Table) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |table| {
            // The one who asked may be gone.
            let _ = answer.send(step(table));
        });
        let gone = || Error::Database {
            database: self.file.clone(),
            why: "its thread has ended".to_owned(),
        };
        self.jobs.send(job).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn serve(work: &Receiver<Job>, mut table: Table, changed: &Notify) {
    loop {
        match work.recv_timeout(LOOK) {
            Ok(job) => job(&mut table),
            Err(RecvTimeoutError::Timeout) => {
                if table.has_changed() {
                    changed.notify_one();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
