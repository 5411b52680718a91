//! What SIGINT (Ctrl-C) and SIGTERM do to a command that is not a host: it ends with the code that a shell has for them.
//! One that has something to tell hears of it first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::run::spawn_untracked;

/// What a shell makes of a program that SIGINT has ended.
pub const INTERRUPTED: u8 = 130;
/// The same of SIGTERM.
pub const TERMINATED: u8 = 143;

/// How long a command that has something to tell may take for it: what it waits for, or who reads it, may hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// Hears the signals of one command. Clones are the same.
#[derive(Clone, Default)]
pub struct Stop {
    /// The command tells how far it has come.
    heeded: Arc<AtomicBool>,
    asked: CancellationToken,
    code: Arc<AtomicU8>,
}

impl Stop {
    /// Listens from now on. Until the command calls [`Stop::heed`], the first signal ends the process. After that the second
    /// one does, or the first one after ten seconds.
    pub fn listen() -> Result<Stop, Error> {
        let failed = |e: std::io::Error| Error::Failed(format!("signals cannot be listened to: {e}"));
        let mut term = signal(SignalKind::terminate()).map_err(failed)?;
        let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
        let stop = Stop::default();
        let told = stop.clone();
        // On a thread of the runtime: the command's own may be waiting for an answer, or for a reader of its output.
        spawn_untracked(async move {
            let mut next = async || {
                tokio::select! {
                    _ = term.recv() => TERMINATED,
                    _ = int.recv() => INTERRUPTED,
                }
            };
            let code = next().await;
            if told.heeded.load(Ordering::SeqCst) {
                told.code.store(code, Ordering::SeqCst);
                told.asked.cancel();
                let _ = tokio::time::timeout(PATIENCE, next()).await;
            }
            std::process::exit(code.into());
        });
        Ok(stop)
    }

    /// From now on a signal is waited for by [`Stop::asked`], and the command tells how far it has come.
    pub fn heed(&self) {
        self.heeded.store(true, Ordering::SeqCst);
    }

    /// Completes at the first signal.
    pub fn asked(&self) -> BoxFuture<'static, ()> {
        self.token().cancelled_owned().boxed()
    }

    /// Cancelled at the first signal.
    pub fn token(&self) -> CancellationToken {
        self.asked.clone()
    }

    /// The code to end with, if there was a signal.
    pub fn code(&self) -> Option<u8> {
        self.asked.is_cancelled().then(|| self.code.load(Ordering::SeqCst))
    }
}
