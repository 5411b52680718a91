//! Every step that may come next.

use std::sync::Arc;

use super::bounds::Bounds;
use super::lane::RunEnds;
use super::program::KEYS;
use super::world::{At, HANDLER, INCARNATION, LetterState, ModelReplay, World, event_id};
use crate::failpoint::mistake::Mistake;

/// One step. Hosts, runs, copies and events are named by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Start { host: usize },
    Crash { host: usize },
    Disconnect { host: usize },
    Open { host: usize },
    Notice { host: usize },
    Deliver { event: usize, host: usize },
    Read { host: usize, run: usize },
    Finish { host: usize, run: usize },
    Fail { host: usize, run: usize },
    DeadLetter { event: usize, host: usize },
    Ask { event: usize },
    TakeReplay { replay: usize, host: usize },
    LoseAck { event: usize },
    Send { host: usize },
    LoseAnswer { host: usize },
    Confirm { host: usize },
    Resolve { host: usize },
    Fetch { host: usize },
    Relearn { host: usize },
    Follow { host: usize },
    GiveUp { host: usize },
    RaiseFloor { host: usize, to: u64 },
    Arrive { copy: usize },
    Refuse { copy: usize },
    Put,
    FetchOut { host: usize },
    Carry { host: usize },
    AckUnconfirmed { host: usize },
    PassWindow,
    Collect,
    LoseTail,
    Sweep { event: usize, host: usize },
}

impl World {
    pub fn steps(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        if self.broken.is_some() {
            return;
        }
        for host in 0..self.hosts.len() {
            self.steps_of_host(bounds, host, steps);
        }
        for (copy, on_its_way) in self.net.iter().enumerate() {
            steps.push(Step::Arrive { copy });
            let fits = self.server.accepts(&on_its_way.laid.batch.records);
            if self.left.refuse > 0 && fits {
                steps.push(Step::Refuse { copy });
            }
        }
        if self.put < bounds.puts.len() {
            steps.push(Step::Put);
        }
        for (event, is) in self.events.iter().enumerate() {
            if self.left.lose_ack > 0 && is.acked {
                steps.push(Step::LoseAck { event });
            }
            if self.left.replay > 0 && matches!(is.letter, LetterState::Stored(..)) {
                steps.push(Step::Ask { event });
            }
        }
        let oldest = self.server.collected as u64 + 1;
        let carried = !bounds.relay || self.server.outs.iter().skip(self.relayed).all(|out| out.n > oldest);
        let covered = oldest < self.server.head.index_from || bounds.mistake == Some(Mistake::CollectAbove);
        if self.left.collect > 0 && oldest <= self.server.head.n && covered && carried {
            steps.push(Step::Collect);
        }
        if self.left.lose_tail > 0 && self.undo.is_some() {
            steps.push(Step::LoseTail);
        }
        // A relay that has fetched and not published for too long fetches again.
        let late = self.hosts.iter().any(|host| host.carrying.is_some());
        if self.left.window > 0 && self.events.iter().any(|event| event.remembered) && !late {
            steps.push(Step::PassWindow);
        }
    }

    fn steps_of_host(&self, bounds: &Bounds, host: usize, steps: &mut Vec<Step>) {
        let of = &self.hosts[host];
        let Some(book) = &of.book else {
            return steps.push(Step::Start { host });
        };
        if self.left.crash > 0 {
            steps.push(Step::Crash { host });
        }
        for run in 0..of.runs.len() {
            if !self.has_read(bounds, host, run) {
                if of.connected {
                    steps.push(Step::Read { host, run });
                }
                continue;
            }
            steps.push(Step::Finish { host, run });
            if self.left.fail > 0 {
                steps.push(Step::Fail { host, run });
            }
        }
        let again = of.flight.as_ref().is_some_and(|flight| flight.at == At::Again);
        if self.left.give_up > 0 && book.has_work() && (again || of.flight.is_none() && !of.connected) {
            steps.push(Step::GiveUp { host });
        }
        if let Some(flight) = of.flight.as_ref().filter(|flight| flight.stale || !of.connected) {
            steps.push(Step::Notice { host });
            if !of.connected && !flight.stale {
                steps.push(Step::Open { host });
            }
        } else if !of.connected {
            steps.push(Step::Open { host });
        }
        if bounds.relay {
            match &of.carrying {
                None if self.relayed < self.server.outs.len() => steps.push(Step::FetchOut { host }),
                None => {}
                Some(carrying) => {
                    steps.push(Step::Carry { host });
                    if bounds.mistake == Some(Mistake::RelayAcksEarly) && self.relayed <= carrying.at {
                        steps.push(Step::AckUnconfirmed { host });
                    }
                }
            }
        }
        if of.connected {
            self.steps_of_session(bounds, host, steps);
        }
    }

    /// Over a connection.
    fn steps_of_session(&self, bounds: &Bounds, host: usize, steps: &mut Vec<Step>) {
        let of = &self.hosts[host];
        let Some(book) = &of.book else { return };
        if self.left.disconnect > 0 {
            steps.push(Step::Disconnect { host });
        }
        for (event, is) in self.events.iter().enumerate() {
            if !is.acked && is.deliveries < bounds.deliveries {
                steps.push(Step::Deliver { event, host });
            }
            let id = event_id(event);
            let lost = is.acked && book.index.decided(HANDLER, &id).is_none() && !of.held.contains(&event);
            if bounds.may.lose_tail > 0 && lost {
                steps.push(Step::Sweep { event, host });
            }
            let stands = book.standing.contains(HANDLER, &id);
            if bounds.dead_letter && !is.acked && is.deliveries >= bounds.deliveries && !stands {
                steps.push(Step::DeadLetter { event, host });
            }
        }
        for (replay, is) in self.replays.iter().enumerate() {
            if !is.acked && !of.held.contains(&is.event) {
                steps.push(Step::TakeReplay { replay, host });
            }
        }
        match of.flight.as_ref().filter(|flight| !flight.stale) {
            None if of.flight.is_none() && book.has_work() => steps.push(Step::Send { host }),
            None => {}
            Some(flight) => {
                let answered = matches!(flight.at, At::Sent | At::Committed(_) | At::Refused);
                if self.left.lose_answer > 0 && answered {
                    steps.push(Step::LoseAnswer { host });
                }
                match flight.at {
                    At::Sent => {}
                    At::Committed(_) => steps.push(Step::Confirm { host }),
                    At::Refused => steps.push(Step::Resolve { host }),
                    At::Read => steps.push(Step::Fetch { host }),
                    At::Fetched(..) => steps.push(Step::Relearn { host }),
                    At::Again => steps.push(Step::Send { host }),
                }
            }
        }
        if self.server.head.n > book.head.n {
            steps.push(Step::Follow { host });
        }
        let to = self.floor_to(bounds, host);
        if self.left.floor > 0 && to > book.index.floor(HANDLER, INCARNATION) {
            steps.push(Step::RaiseFloor { host, to });
        }
    }

    /// As a sweep finds it: what the server holds for settled and this host for decided, up to what is at work here.
    fn floor_to(&self, bounds: &Bounds, host: usize) -> u64 {
        let of = &self.hosts[host];
        let Some(book) = &of.book else { return 0 };
        let early = bounds.mistake == Some(Mistake::FloorFromOverlay);
        let covered = |event: &usize| {
            let is = &self.events[*event];
            let id = event_id(*event);
            let joined = early && book.standing.contains(HANDLER, &id);
            let settled = is.acked || is.deliveries >= bounds.deliveries;
            joined || settled && !of.held.contains(event) && book.index.decided(HANDLER, &id).is_some()
        };
        (0..self.events.len()).take_while(covered).count() as u64
    }

    /// The state after a step.
    pub fn after(&self, bounds: &Bounds, step: Step) -> World {
        let mut world = self.clone();
        world.step(bounds, step);
        world.tidy();
        world.judge_beliefs();
        world.seal();
        world
    }

    // Long: one arm for each step of the model.
    fn step(&mut self, bounds: &Bounds, step: Step) {
        match step {
            Step::Start { host } => self.start(bounds, host),
            Step::Crash { host } => {
                self.left.crash -= 1;
                self.crash(host);
            }
            Step::Disconnect { host } => {
                self.left.disconnect -= 1;
                self.disconnect(host);
            }
            Step::Open { host } => self.open(bounds, host),
            Step::Notice { host } => self.notice(bounds, host),
            Step::Deliver { event, host } => self.deliver(bounds, host, event),
            Step::Read { host, run } => self.read(bounds, host, run),
            Step::Finish { host, run } => self.finish(bounds, host, run, RunEnds::AsItShould),
            Step::Fail { host, run } => {
                self.left.fail -= 1;
                self.finish(bounds, host, run, RunEnds::Failing);
            }
            Step::DeadLetter { event, host } => self.dead_letter(bounds, host, event),
            Step::Ask { event } => {
                self.left.replay -= 1;
                if let LetterState::Stored(death) = self.events[event].letter {
                    self.replays.push(ModelReplay {
                        event,
                        death,
                        delivered: false,
                        acked: false,
                    });
                }
            }
            Step::TakeReplay { replay, host } => self.replay(bounds, host, replay),
            Step::LoseAck { event } => {
                self.left.lose_ack -= 1;
                self.events[event].acked = false;
            }
            Step::Send { host } => self.send(bounds, host),
            Step::LoseAnswer { host } => {
                self.left.lose_answer -= 1;
                self.at(host, At::Again);
            }
            Step::Confirm { host } => {
                if let Some(At::Committed(last)) = self.hosts[host].flight.as_ref().map(|flight| flight.at.clone()) {
                    self.confirm(bounds, host, last);
                }
            }
            Step::Resolve { host } => self.resolve(bounds, host),
            Step::Fetch { host } => self.fetch(host),
            Step::Relearn { host } => {
                let at = self.hosts[host].flight.as_ref().map(|flight| flight.at.clone());
                if let Some(At::Fetched(keys, stale)) = at {
                    self.relearn(bounds, host, keys, &stale);
                }
            }
            Step::Follow { host } => self.catch_up(bounds, host),
            Step::GiveUp { host } => {
                self.left.give_up -= 1;
                self.give_up(bounds, host);
            }
            Step::RaiseFloor { host, to } => {
                self.left.floor -= 1;
                self.book(host).index.raise(HANDLER, INCARNATION, to);
            }
            Step::Arrive { copy } => self.arrive(bounds, copy, false),
            Step::Refuse { copy } => {
                self.left.refuse -= 1;
                self.arrive(bounds, copy, true);
            }
            Step::Put => {
                let (key, value) = bounds.puts[self.put];
                debug_assert!(KEYS.contains(&key));
                self.put += 1;
                self.undo = None;
                Arc::make_mut(&mut self.server).put(key, value);
            }
            Step::FetchOut { host } => self.fetch_out(host),
            Step::Carry { host } => self.carry(bounds, host),
            Step::AckUnconfirmed { host } => self.ack_unconfirmed(bounds, host),
            Step::Collect => {
                self.left.collect -= 1;
                Arc::make_mut(&mut self.server).collect();
            }
            Step::LoseTail => {
                self.left.lose_tail -= 1;
                self.lose_tail();
            }
            Step::Sweep { event, host } => self.sweep(bounds, host, event),
            Step::PassWindow => {
                self.left.window -= 1;
                self.events.iter_mut().for_each(|event| event.remembered = false);
            }
        }
    }

    /// Copies that will never be accepted and whose answer no host awaits are removed; of the others one of a kind is enough.
    fn tidy(&mut self) {
        let mut kept: Vec<super::world::Copy> = Vec::new();
        for copy in std::mem::take(&mut self.net) {
            let awaited = self.is_awaited(&copy.laid, copy.copy);
            let known = kept
                .iter()
                .any(|k| k.laid.name == copy.laid.name && !self.is_awaited(&k.laid, k.copy));
            if awaited || !known && !self.server.is_past(&copy.laid.batch.records) {
                kept.push(copy);
            }
        }
        kept.sort_by_key(|copy| (copy.laid.name, self.is_awaited(&copy.laid, copy.copy), copy.copy));
        self.net = kept;
    }
}
