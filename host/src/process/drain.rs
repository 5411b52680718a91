//! Shutdown in two steps: stop taking work, then end. Every task of the process belongs to it; nothing else spawns. A task
//! that panics is begun again, so nothing dies unnoticed.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use crate::broker::connection::redial_delay;
use crate::broker::latch::Latch;
use crate::process::panics::{Panics, caught};

/// A task that ran at least this long is restarted as quickly as one that panics for the first time.
const STEADY: Duration = Duration::from_secs(60);

/// Clones are the same drain.
#[derive(Clone, Default)]
pub struct Drain {
    stop: Latch,
    tasks: TaskTracker,
    lanes: TaskTracker,
    /// What has panicked since the start.
    pub panics: Arc<Panics>,
}

impl Drain {
    /// Asks all tasks to stop taking work.
    pub fn begin(&self) {
        self.stop.set();
        self.tasks.close();
        self.lanes.close();
    }

    /// Completes when no more work may be taken.
    pub async fn begun(&self) {
        self.stop.wait().await;
    }

    pub fn has_begun(&self) -> bool {
        self.stop.is_set()
    }

    /// Runs a task that finishes its work when the drain begins, and is waited for.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: impl Into<String>,
        task: impl FnMut() -> F + Send + 'static,
    ) {
        self.track(self.kept(name.into(), task));
    }

    /// Runs a handler task. What it leaves to be published is published by the tasks that end after it.
    pub fn spawn_lane<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: impl Into<String>,
        lane: impl FnMut() -> F + Send + 'static,
    ) {
        self.track(self.lanes.track_future(self.kept(name.into(), lane)));
    }

    /// Completes when the drain has begun and every lane has ended.
    pub async fn lanes_ended(&self) {
        self.begun().await;
        self.lanes.wait().await;
    }

    /// Runs a task that has nothing to finish: it ends at once when the drain begins.
    pub fn spawn_until<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: impl Into<String>,
        task: impl FnMut() -> F + Send + 'static,
    ) {
        let (stop, kept) = (self.stop.clone(), self.kept(name.into(), task));
        self.track(async move {
            stop.run_until_set(kept).await;
        });
    }

    /// Runs a task that serves the others of its thread: it is not waited for, and ends with the thread's runtime.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn_beside<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: impl Into<String>,
        task: impl FnMut() -> F + Send + 'static,
    ) {
        tokio::spawn(self.kept(name.into(), task));
    }

    /// Waits for all tasks, at most for this time. `false`: some were still running.
    pub async fn finished(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tasks.track_future(task));
    }

    /// A task that is made and begun again when it panics, later each time.
    fn kept<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: String,
        mut task: impl FnMut() -> F + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let panics = Arc::clone(&self.panics);
        async move {
            let mut attempt = 0;
            loop {
                let began = Instant::now();
                let Err(panic) = caught(pin!(task())).await else { return };
                attempt = if began.elapsed() > STEADY { 0 } else { attempt + 1 };
                let pause = redial_delay(attempt);
                let count = panics.note(&name, &panic);
                tracing::error!(task = name, %panic, count, again_in = ?pause, "a task has panicked and starts again");
                tokio::time::sleep(pause).await;
            }
        }
    }
}
