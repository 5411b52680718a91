//! Named points at which a test can end or freeze the process. They exist with the feature `failpoints` only: any other
//! build has neither the code nor the variables.
//!
//! `MESH_FAULT=<point>:<action>[:<nth>]`, joined by commas; actions: `kill` (as `kill -9`), `stop` (SIGSTOP), `panic`,
//! `hang` (this thread does nothing any more), `off` (asked by [`off`]), or a number (asked by [`number`]). `nth` is the pass at which it acts, 1 unless given.
//! `MESH_MISTAKE=<name>` plants a mistake in the ledger (`mistake`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "failpoints")]
use crate::failpoint::mistake::Mistake;
use crate::failpoint::mistake::Planted;

pub mod mistake;

#[cfg(feature = "failpoints")]
mod switch {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex};

    struct PlantedFault {
        action: String,
        nth: u32,
        passed: u32,
    }

    static FAULTS: LazyLock<Mutex<HashMap<String, PlantedFault>>> = LazyLock::new(|| {
        let text = std::env::var("MESH_FAULT").unwrap_or_default();
        let faults = text.split(',').filter_map(|one| {
            let mut parts = one.split(':');
            let (name, action) = (parts.next()?, parts.next()?);
            let nth = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
            Some((
                name.to_owned(),
                PlantedFault {
                    action: action.to_owned(),
                    nth,
                    passed: 0,
                },
            ))
        });
        Mutex::new(faults.collect())
    });

    pub fn point(name: &str) {
        let mut faults = FAULTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(fault) = faults.get_mut(name) else { return };
        fault.passed += 1;
        if fault.passed != fault.nth {
            return;
        }
        let signal = match fault.action.as_str() {
            "kill" => rustix::process::Signal::KILL,
            "stop" => rustix::process::Signal::STOP,
            "panic" => {
                drop(faults);
                panic!("the fault {name}");
            }
            "hang" => {
                drop(faults);
                loop {
                    std::thread::park();
                }
            }
            _ => return,
        };
        drop(faults);
        // To ourselves; if it fails, the test that waits for it fails.
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        // The signal may reach another thread first; this one goes no further meanwhile.
        stand_still();
    }

    #[expect(clippy::disallowed_methods, reason = "the point is that this thread does nothing")]
    fn stand_still() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }

    pub fn off(name: &str) -> bool {
        let faults = FAULTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.get(name).is_some_and(|fault| fault.action == "off")
    }

    pub fn number(name: &str) -> Option<u64> {
        let faults = FAULTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.get(name)?.action.parse().ok()
    }

    pub fn is_set(name: &str) -> bool {
        let faults = FAULTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.contains_key(name)
    }
}

/// The mistake that a test has planted in this process's ledger.
pub fn planted() -> Planted {
    #[cfg(feature = "failpoints")]
    {
        let name = std::env::var("MESH_MISTAKE").unwrap_or_default();
        let named = Mistake::ALL.iter().find(|(known, _)| *known == name);
        Planted::new(named.map(|(_, mistake)| *mistake))
    }
    #[cfg(not(feature = "failpoints"))]
    Planted::default()
}

/// The process passes the point `name`.
#[inline]
pub fn point(name: &str) {
    #[cfg(feature = "failpoints")]
    switch::point(name);
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

/// The process passes the point `name` once `before` has happened, which is waited for only if a test asks for the point.
#[inline]
pub async fn point_after<T>(name: &str, before: impl Future<Output = T>) {
    #[cfg(feature = "failpoints")]
    if switch::is_set(name) {
        before.await;
        switch::point(name);
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = (name, before);
}

/// Whether a test has switched off the behaviour `name`.
#[inline]
pub fn off(name: &str) -> bool {
    #[cfg(feature = "failpoints")]
    return switch::off(name);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        false
    }
}

/// The number that a test has given for `name`.
#[inline]
pub fn number(name: &str) -> Option<u64> {
    #[cfg(feature = "failpoints")]
    return switch::number(name);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        None
    }
}

/// The host's wall clock; a test can have it be ahead or behind.
pub fn wall_clock() -> SystemTime {
    let shift = |name| number(name).map_or(Duration::ZERO, Duration::from_millis);
    let now = SystemTime::now() + shift("clock-ahead-ms") - shift("clock-behind-ms");
    match number("clock-jumps-ms") {
        None => now,
        // It is set forward and back again, each for three seconds.
        Some(by) => match now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3 % 2 {
            0 => now + Duration::from_millis(by),
            _ => now - Duration::from_millis(by),
        },
    }
}
