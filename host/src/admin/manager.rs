//! What the service manager is told while the host starts, runs and ends.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::health::{self, Health};
use super::{Admin, Stage};
use crate::handler_task::counters::ServingState;
use crate::process::service::ServiceManager;
use crate::trouble::Weight;

/// How often the manager is told, unless its watchdog wants it more often.
const EVERY: Duration = Duration::from_secs(1);

/// Tells it for as long as it is polled.
pub async fn tell(manager: Arc<ServiceManager>, admin: Arc<Admin>) {
    let every = manager.watchdog.map_or(EVERY, |limit| EVERY.min(limit / 2));
    let mut told = ManagerTold::default();
    loop {
        let draining = admin.drain.has_begun();
        let states = told.next(&HostNow {
            started: has_started(&admin),
            draining,
            live: health::live(),
            ready: health::ready(&admin),
        });
        let told = if states.is_empty() {
            Ok(())
        } else {
            manager.tell(&states)
        };
        if let Err(error) = told {
            trouble!(Weight::Aside, "", error, { %error }, "the service manager cannot be told");
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = admin.drain.begun(), if !draining => {}
        }
    }
}

/// Whether the start is over: each handler serves, or waits for a person, who is told of it otherwise.
fn has_started(admin: &Admin) -> bool {
    let Stage::Running(host) = admin.stage() else {
        return false;
    };
    host.lanes.iter().all(|lane| match lane.status.get().state {
        ServingState::Serving | ServingState::Stopped => true,
        ServingState::Starting | ServingState::Connecting => false,
    })
}

/// How the host stands.
struct HostNow {
    started: bool,
    draining: bool,
    live: Health,
    ready: Health,
}

/// What the manager has been told.
#[derive(Default)]
struct ManagerTold {
    ready: bool,
    stopping: bool,
    status: String,
}

impl ManagerTold {
    /// What is to be told now.
    fn next(&mut self, now: &HostNow) -> String {
        let mut states = String::new();
        if now.started && !self.ready {
            self.ready = true;
            states += "READY=1\n";
        }
        if now.draining && !self.stopping {
            self.stopping = true;
            states += "STOPPING=1\n";
        }
        let status = status(now);
        if status != self.status {
            // Writing to a String cannot fail.
            let _ = writeln!(states, "STATUS={status}");
            self.status = status;
        }
        if now.live.ok {
            states += "WATCHDOG=1\n";
        }
        states
    }
}

/// One line for people, which `systemctl status` shows.
fn status(now: &HostNow) -> String {
    let all: Vec<&health::Reason> = now.live.reasons.iter().chain(&now.ready.reasons).collect();
    let Some(first) = all.first() else {
        return "all handlers serve".to_owned();
    };
    let text = match all.len() {
        1 => format!("{}: {}", first.what, first.why),
        more => format!("{}: {}; {} more", first.what, first.why, more - 1),
    };
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(whats: &[&str]) -> Health {
        let reason = |what: &&str| health::Reason {
            what: (*what).to_owned(),
            why: "so".to_owned(),
        };
        Health {
            ok: whats.is_empty(),
            reasons: whats.iter().map(reason).collect(),
        }
    }

    #[test]
    fn each_change_is_told_once_and_signs_of_life_only_while_the_threads_run() {
        let mut told = ManagerTold::default();
        let mut next = |started, draining, live: &[&str], ready: &[&str]| {
            told.next(&HostNow {
                started,
                draining,
                live: health(live),
                ready: health(ready),
            })
        };
        assert_eq!(next(false, false, &[], &["a"]), "STATUS=a: so\nWATCHDOG=1\n");
        assert_eq!(next(false, false, &[], &["a"]), "WATCHDOG=1\n");
        let both = ["a", "b"];
        assert_eq!(
            next(true, false, &[], &both),
            "READY=1\nSTATUS=a: so; 1 more\nWATCHDOG=1\n"
        );
        assert_eq!(next(true, false, &[], &[]), "STATUS=all handlers serve\nWATCHDOG=1\n");
        assert_eq!(next(true, false, &["t"], &[]), "STATUS=t: so\n");
        assert_eq!(next(true, true, &["t"], &[]), "STOPPING=1\n");
        assert_eq!(next(true, true, &["t"], &[]), "");
    }
}
