//! `jetmesh run`: a host until a signal ends it.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::{Args, Error, OK, UNFINISHED};
use crate::admin;
use crate::app;
use crate::plan::Plan;
use crate::process::drain::Drain;
use crate::process::{panics, telemetry};

pub async fn run(args: &Args) -> Result<u8, Error> {
    let loaded = args.load()?;
    start_log(&loaded.plan)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let drain = Drain::default();
    on_signal(&drain)?;
    let settings = &loaded.plan.admin;
    let address = settings
        .listen
        .map(|address| admin::bind(address, settings))
        .transpose();
    let clean = app::run(loaded.plan, address.map_err(Error::Failed)?, drain).await?;
    Ok(if clean { OK } else { UNFINISHED })
}

pub fn start_log(plan: &Plan) -> Result<(), Error> {
    telemetry::start(&plan.log).map_err(|e| Error::Usage(e.to_string()))?;
    panics::tell_only_the_catcher();
    Ok(())
}

/// Signals that come sooner after the first are the same wish: terminals and wrappers send several at once.
const SECOND_COUNTS_AFTER: Duration = Duration::from_secs(1);

/// The first SIGTERM, SIGHUP or Ctrl-C begins the drain; another one, a second later or more, ends the process at once.
pub fn on_signal(drain: &Drain) -> Result<(), Error> {
    // Before the process listens to it.
    let hangs_up = !ignores_hangup();
    let failed = |e: std::io::Error| Error::Failed(format!("signals cannot be listened to: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let begin = drain.clone();
    let watch = async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hangup.recv() => if !hangs_up { continue },
            }
            let first = *first.get_or_insert_with(Instant::now);
            if begin.has_begun() && first.elapsed() >= SECOND_COUNTS_AFTER {
                tracing::warn!("second signal, leaving at once");
                std::process::exit(130);
            }
            begin.begin();
        }
    };
    spawn_untracked(watch);
    Ok(())
}

/// Whether the process was started so that the end of its terminal does not end it, as `nohup` does.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// For the task that listens for signals until the process ends, also while all other tasks are waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "the shutdown must not wait for the task that listens for the second signal"
)]
pub fn spawn_untracked(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
