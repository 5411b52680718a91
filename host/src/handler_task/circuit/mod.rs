//! The circuit of a handler on this host. While nearly all of its attempts ask for another one, it is open: no events are pulled,
//! those that are here wait, and one at a time runs as a probe. An event costs a counter while it is closed; only failures take
//! its lock. A handler that a person has paused is held back in the same place (`pause`).

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use self::state::{CircuitChange, CircuitState, Entrance, Sign};
use crate::event::clock::now_ms;
use crate::event::outcome::Outcome;
use crate::mesh_streams::pauses::HandlerPause;
use crate::plan::{CircuitPolicy, Handler};
use crate::process::drain::Drain;

mod pause;
mod state;

/// How long an event that is here waits for an open circuit. Then it is given back: another host may be better off, and the
/// server keeps it at no cost. Pull requests that were open are over by then.
const HOLD: Duration = Duration::from_secs(30);

/// In [`Circuit::held`]: it is open.
const OPEN: u8 = 1;
/// The same: a person has paused the handler.
const PAUSED: u8 = 2;

pub struct Circuit {
    handler: String,
    /// `None`: it is switched off.
    state: Option<Mutex<CircuitState>>,
    /// What holds its events back; 0: nothing does. An event reads this and nothing else.
    held: AtomicU8,
    /// Attempts that have ended, and not with a failure.
    others: AtomicU64,
    /// Events that wait for it here.
    waiting: AtomicUsize,
    changed: Notify,
    pause: Mutex<Option<HandlerPause>>,
    /// For the handler task, which is one.
    pause_changed: Notify,
    began: Instant,
}

/// A circuit that is open, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitTold {
    pub since_ms: u64,
    pub why: String,
    pub next_probe_ms: u64,
    /// Probes that have failed.
    pub probes: u64,
}

/// The right of an event to run. Dropped without a result, its probe is another one's.
pub struct Pass<'a> {
    circuit: &'a Circuit,
    is_probe: bool,
}

impl Circuit {
    pub fn of(plan: &Handler) -> Circuit {
        Circuit::new(&plan.name, plan.circuit)
    }

    fn new(handler: &str, policy: Option<CircuitPolicy>) -> Circuit {
        Circuit {
            handler: handler.to_owned(),
            state: policy.map(|policy| Mutex::new(CircuitState::new(policy))),
            held: AtomicU8::new(0),
            others: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
            pause: Mutex::default(),
            pause_changed: Notify::new(),
            began: Instant::now(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.held.load(Ordering::Relaxed) & OPEN != 0
    }

    /// Held back until an event may run. `None`: it is to be given back.
    pub async fn pass(&self, drain: &Drain) -> Option<Pass<'_>> {
        if self.held.load(Ordering::Relaxed) == 0 {
            return Some(self.usual());
        }
        Box::pin(self.wait(drain)).await
    }

    async fn wait(&self, drain: &Drain) -> Option<Pass<'_>> {
        let _waits = HeldBack::of(&self.waiting);
        let until = tokio::time::Instant::now() + HOLD;
        loop {
            let changed = self.changed.notified();
            let now = self.began.elapsed();
            let entrance = match self.is_paused() {
                true => Entrance::WaitsForProbe,
                false => self.lock().map_or(Entrance::Runs, |mut state| state.enter(now)),
            };
            let pause = match entrance {
                Entrance::Runs => return Some(self.usual()),
                Entrance::Probes => {
                    return Some(Pass {
                        circuit: self,
                        is_probe: true,
                    });
                }
                Entrance::WaitsUntil(due) => due.saturating_sub(now),
                Entrance::WaitsForProbe => HOLD,
            };
            tokio::select! {
                biased;
                () = drain.begun() => return None,
                () = tokio::time::sleep_until(until) => return None,
                () = tokio::time::sleep(pause) => {}
                () = changed => {}
            }
        }
    }

    /// How many events to have at a time: none while the handler is paused; while it is open one, when a probe is due and no event
    /// is here for it.
    pub fn room(&self, free: usize) -> usize {
        match self.held.load(Ordering::Relaxed) {
            0 => return free,
            held if held & PAUSED != 0 => return 0,
            _ => {}
        }
        let due = self.next_probe().is_some_and(|next| next.is_zero());
        let wanted = due && self.waiting.load(Ordering::Relaxed) == 0;
        free.min(usize::from(wanted))
    }

    /// Completes each time that a probe becomes due, and when it closes; closes it if no event comes for a probe.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn probe_due(&self) {
        let changed = self.changed.notified();
        let now = self.began.elapsed();
        let (next, idle) = self
            .lock()
            .map_or((None, None), |state| (state.next_probe(), state.idle_at()));
        let Some(until) = next.filter(|next| *next > now).or(idle) else {
            return changed.await;
        };
        tokio::select! {
            () = tokio::time::sleep(until.saturating_sub(now)) => {}
            () = changed => return,
        }
        self.step(CircuitState::idle);
    }

    /// In which time the next probe is due.
    fn next_probe(&self) -> Option<Duration> {
        let next = self.lock()?.next_probe()?;
        Some(next.saturating_sub(self.began.elapsed()))
    }

    /// How it stands; `None`: it is closed.
    pub fn told(&self) -> Option<CircuitTold> {
        let open = self.lock()?.open()?.clone();
        let (now, now_ms) = (self.began.elapsed(), now_ms());
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (code, message) = (&open.failure.code, &open.failure.message);
        Some(CircuitTold {
            since_ms: now_ms.saturating_sub(ms(now.saturating_sub(open.at))),
            why: format!(
                "{} of {} attempts ended with retry, the last with {code}: {message}",
                open.failed, open.of
            ),
            next_probe_ms: now_ms + ms(open.next.saturating_sub(now)),
            probes: open.probes,
        })
    }

    fn usual(&self) -> Pass<'_> {
        Pass {
            circuit: self,
            is_probe: false,
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, CircuitState>> {
        self.state.as_ref().map(Mutex::lock)
    }

    /// An attempt that was no probe has ended.
    fn ended(&self, outcome: &Outcome, event: u64) {
        let Some(state) = &self.state else { return };
        match Sign::of(outcome) {
            Sign::Ended => drop(self.others.fetch_add(1, Ordering::Relaxed)),
            Sign::Nothing => {}
            Sign::Failed(failure) => {
                let (now, others) = (self.began.elapsed(), self.others.load(Ordering::Relaxed));
                let change = state.lock().failed(now, others, event, &failure);
                self.take_in(&change);
            }
        }
    }

    fn probed(&self, sign: Sign) {
        self.step(|state, now| state.probed(now, sign));
    }

    /// The replay of a dead letter has ended.
    pub fn replayed(&self, outcome: &Outcome) {
        if self.is_open() {
            self.step(|state, now| state.replayed(now, &Sign::of(outcome)));
        }
    }

    /// A step of an open circuit, of which those are told that wait.
    fn step(&self, step: impl FnOnce(&mut CircuitState, Duration) -> CircuitChange) {
        let now = self.began.elapsed();
        let change = self.lock().map(|mut state| step(&mut state, now));
        change.iter().for_each(|change| self.take_in(change));
        self.changed.notify_waiters();
    }

    /// What has changed is in the log once.
    fn take_in(&self, change: &CircuitChange) {
        let handler = &self.handler;
        match change {
            CircuitChange::None => {}
            CircuitChange::Opened => {
                self.held.fetch_or(OPEN, Ordering::Relaxed);
                let why = self.told().map(|told| told.why).unwrap_or_default();
                tracing::warn!(
                    handler,
                    why,
                    "the circuit is open: no events are pulled but probes, until one succeeds"
                );
            }
            CircuitChange::Closed(lasted, probes) => {
                self.held.fetch_and(!OPEN, Ordering::Relaxed);
                tracing::info!(handler, open_for = ?lasted, probes, "the circuit is closed: events are pulled again");
            }
            CircuitChange::Idle(lasted, probes) => {
                self.held.fetch_and(!OPEN, Ordering::Relaxed);
                tracing::info!(handler, open_for = ?lasted, probes, "the circuit is closed: no event has come to probe with");
            }
        }
    }
}

impl Pass<'_> {
    /// Whether the event may still run, after it has waited for something else.
    pub fn stands(&self) -> bool {
        match self.circuit.held.load(Ordering::Relaxed) {
            0 => true,
            held => held & PAUSED == 0 && self.is_probe,
        }
    }

    /// The attempt has ended.
    pub fn ended(mut self, outcome: &Outcome, event: u64) {
        match std::mem::take(&mut self.is_probe) {
            true => self.circuit.probed(Sign::of(outcome)),
            false => self.circuit.ended(outcome, event),
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.circuit.probed(Sign::Nothing);
        }
    }
}

/// Held by an event that waits.
struct HeldBack<'a>(&'a AtomicUsize);

impl<'a> HeldBack<'a> {
    fn of(waiting: &'a AtomicUsize) -> HeldBack<'a> {
        waiting.fetch_add(1, Ordering::Relaxed);
        HeldBack(waiting)
    }
}

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
