//! `jetmesh run`: a host until a signal ends it.

use tokio::signal::unix::{SignalKind, signal};

use super::{Args, Error, OK, UNFINISHED};
use crate::drain::Drain;
use crate::plan::Plan;
use crate::{app, telemetry};

pub async fn run(args: &Args) -> Result<u8, Error> {
    let loaded = args.load()?;
    start_log(&loaded.plan)?;
    let drain = Drain::default();
    on_signal(&drain)?;
    let clean = app::run(loaded.plan, drain).await?;
    Ok(if clean { OK } else { UNFINISHED })
}

pub fn start_log(plan: &Plan) -> Result<(), Error> {
    telemetry::start(&plan.log).map_err(|e| Error::Usage(e.to_string()))
}

/// The first SIGTERM or Ctrl-C begins the drain, the second ends the process at once.
pub fn on_signal(drain: &Drain) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::Failed(format!("signals cannot be listened to: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let begin = drain.clone();
    let watch = async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if begin.has_begun() {
                tracing::warn!("second signal, leaving at once");
                std::process::exit(130);
            }
            begin.begin();
        }
    };
    spawn_untracked(watch);
    Ok(())
}

/// It listens until the process ends, also while the drain waits for everybody else.
#[expect(
    clippy::disallowed_methods,
    reason = "the drain must not wait for the one who listens for its second signal"
)]
fn spawn_untracked(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
