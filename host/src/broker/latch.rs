//! A latch: it is set once, and all who wait for it go on. A look at it is one atomic load; that of a cancellation token takes a
//! lock, and is made several times for each event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// Clones are the same latch.
#[derive(Clone, Default)]
pub struct Latch {
    is_set: Arc<AtomicBool>,
    waiting: CancellationToken,
}

impl Latch {
    pub fn set(&self) {
        self.is_set.store(true, Ordering::SeqCst);
        self.waiting.cancel();
    }

    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::SeqCst)
    }

    /// Completes when it is set.
    ///
    /// # Cancel safety
    /// It holds nothing.
    pub async fn wait(&self) {
        self.waiting.cancelled().await;
    }

    /// Does a task until it ends or the latch is set.
    pub async fn run_until_set(&self, task: impl Future<Output = ()>) {
        self.waiting.run_until_cancelled(task).await;
    }
}
