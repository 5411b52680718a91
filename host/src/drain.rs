//! Shutdown in two steps: stop taking work, then end. Every task of the process belongs to it; nothing else spawns.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Clones are the same drain.
#[derive(Clone, Default)]
pub struct Drain {
    stop: CancellationToken,
    tasks: TaskTracker,
    lanes: TaskTracker,
}

impl Drain {
    /// Asks everybody to stop taking work.
    pub fn begin(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.lanes.close();
    }

    /// Completes when no more work may be taken.
    pub async fn begun(&self) {
        self.stop.cancelled().await;
    }

    pub fn has_begun(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Runs a task that finishes its work when the drain begins, and is waited for.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tasks.track_future(task));
    }

    /// Runs a lane: what it leaves to be carried out is carried out by those that end after it.
    pub fn spawn_lane(&self, lane: impl Future<Output = ()> + Send + 'static) {
        self.spawn(self.lanes.track_future(lane));
    }

    /// Completes when the drain has begun and every lane has ended.
    pub async fn lanes_ended(&self) {
        self.begun().await;
        self.lanes.wait().await;
    }

    /// Runs a task that has nothing to finish: it ends at once when the drain begins.
    pub fn spawn_until(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Runs a task that serves the others of its thread: it is not waited for, and ends with the thread's runtime.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn_beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    /// Waits for all tasks, at most so long. `false`: some were still running.
    pub async fn finished(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }
}
