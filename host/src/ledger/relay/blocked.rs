//! Targets that take nothing for now, and what waits for them. The relay continues past it: with the other targets, and up to
//! [`WAITING_MAX`]. This file has no connection to a server: it is told what was refused and what was taken, and returns what
//! to try next.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::state;
use crate::event::clock::now_ms;
use crate::event::subject::subject_matches;

/// So much may wait; then the relay begins nothing more before something of it is done with.
pub const WAITING_MAX: usize = 10_000;
/// A consequence that its target refuses becomes a dead letter when the target, or the consequence itself, was refused for this
/// time.
pub const REFUSED: Duration = Duration::from_secs(10);
/// The same for a target that is there and does not answer: a cluster may be without a leader for a while.
pub const SILENT: Duration = Duration::from_secs(120);
/// How many targets are remembered although nothing waits for them.
const IDLE_MAX: usize = 100;
/// Between two tries of the same.
pub const AGAIN: Duration = Duration::from_secs(1);

/// Where a consequence stands: its message's sequence in the ledger's stream, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsequencePlace {
    pub sequence: u64,
    pub at: usize,
}

/// A consequence that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub carried: u64,
    /// The target that has not taken it last.
    target: String,
    /// Why it becomes a letter, if it does.
    pub letter: Option<String>,
    /// When it was refused first.
    pub since: Instant,
    tried: Instant,
    /// It may be in its target anyway.
    pub unsure: bool,
}

impl Waiting {
    pub fn new(carried: u64, now: Instant) -> Waiting {
        Waiting {
            carried,
            target: String::new(),
            letter: None,
            since: now,
            tried: now,
            unsure: false,
        }
    }
}

/// How a target does not take something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It says no, or it is not there.
    Refuses,
    /// It is there, and has no leader for the moment.
    Silent,
    /// It does not answer: whether it has taken it is not known.
    Mute,
}

impl Manner {
    /// After that long it is given up.
    pub fn limit(self) -> Duration {
        match self {
            Manner::Refuses => REFUSED,
            Manner::Silent | Manner::Mute => SILENT,
        }
    }
}

#[derive(Default)]
pub struct Blocked {
    targets: BTreeMap<String, ClosedTarget>,
    /// To be tried now.
    due: BTreeMap<ConsequencePlace, Waiting>,
    waiting: usize,
}

struct ClosedTarget {
    why: String,
    manner: Manner,
    /// Since when it has taken nothing: the same moment by two clocks, that for people is the server's.
    since: Instant,
    since_ms: u64,
    /// Since when it has refused everything that was tried: a new consequence counts as waiting since then.
    refuses: Instant,
    /// When it refused something last.
    last: Instant,
    /// It has taken something since.
    opened: bool,
    line: BTreeMap<ConsequencePlace, Waiting>,
    letters: u64,
}

impl ClosedTarget {
    /// Nothing waits for it, and nothing was tried for a while: whether it takes something shows when something comes.
    fn is_idle(&self, now: Instant) -> bool {
        self.line.is_empty() && now - self.last >= REFUSED
    }

    fn new(now: Instant) -> ClosedTarget {
        ClosedTarget {
            why: String::new(),
            manner: Manner::Refuses,
            since: now,
            since_ms: now_ms(),
            refuses: now,
            last: now,
            opened: false,
            line: BTreeMap::new(),
            letters: 0,
        }
    }
}

/// A target that is no longer blocked: it has taken something.
#[derive(Debug, PartialEq, Eq)]
pub struct Freed {
    pub target: String,
    pub why: String,
    pub since: Instant,
    /// How many events have become letters.
    pub letters: u64,
}

impl Blocked {
    /// Whether nothing waits, and has not for a while.
    pub fn is_empty(&self) -> bool {
        let now = Instant::now();
        self.due.is_empty()
            && self
                .targets
                .values()
                .all(|target| !target.opened && target.is_idle(now))
    }

    /// Whether some target is known to take nothing.
    pub fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.waiting < WAITING_MAX
    }

    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.waiting
    }

    /// Nothing is tried there for nothing: each try would wait for an answer in vain.
    pub fn is_mute(&self, target: &str, now: Instant) -> bool {
        let found = self.targets.get(target);
        found.is_some_and(|target| target.manner == Manner::Mute && !target.opened && !target.is_idle(now))
    }

    /// A target has not taken something. `mortal`: it becomes a letter in the end. `true`: the target was not blocked.
    pub fn refused(
        &mut self,
        (name, manner, why): (&str, Manner, &str),
        (place, mut waiting): (ConsequencePlace, Waiting),
        mortal: bool,
        now: Instant,
    ) {
        let target = self.targets.entry(name.to_owned());
        let target = target.or_insert_with(|| ClosedTarget::new(now));
        why.clone_into(&mut target.why);
        if target.opened {
            (target.since, target.since_ms) = (now, now_ms());
        }
        if target.opened || target.is_idle(now) {
            target.refuses = now;
        }
        (target.manner, target.last, target.opened) = (manner, now, false);
        self.waiting += 1;
        waiting.tried = now;
        name.clone_into(&mut waiting.target);
        let limit = manner.limit();
        if mortal && !waiting.unsure && (now - waiting.since >= limit || now - target.refuses >= limit) {
            target.letters += 1;
            waiting.letter = Some(why.to_owned());
            self.due.insert(place, waiting);
        } else {
            target.line.insert(place, waiting);
        }
    }

    /// It could not be tried just now.
    pub fn not_now(&mut self, place: ConsequencePlace, mut waiting: Waiting, now: Instant) {
        self.waiting += 1;
        waiting.tried = now;
        let target = self.targets.entry(waiting.target.clone());
        let target = target.or_insert_with(|| ClosedTarget {
            opened: true,
            ..ClosedTarget::new(now)
        });
        target.line.insert(place, waiting);
    }

    /// It can never be taken as it is, so it becomes a letter.
    pub fn never(&mut self, place: ConsequencePlace, mut waiting: Waiting, why: &str) {
        self.waiting += 1;
        waiting.letter = Some(why.to_owned());
        self.due.insert(place, waiting);
    }

    /// It is known better why a target takes nothing.
    pub fn explain(&mut self, name: &str, manner: Manner, why: String) {
        if let Some(target) = self.targets.get_mut(name) {
            (target.manner, target.why) = (manner, why);
        }
    }

    /// How a target is known to take nothing.
    pub fn manner(&self, name: &str) -> Option<(Manner, &str)> {
        let target = self.targets.get(name)?;
        Some((target.manner, &target.why))
    }

    /// A target has taken something: all that waits for it is tried.
    pub fn took(&mut self, name: &str, now: Instant) {
        if let Some(target) = self.targets.get_mut(name) {
            target.opened = true;
            self.due.extend(rested(&mut target.line, now));
        }
    }

    /// The same of what is known by a subject or a pattern.
    pub fn took_on(&mut self, subject: &str, now: Instant) {
        let matching = self.targets.keys().filter(|name| subject_matches(name, subject));
        for name in matching.cloned().collect::<Vec<_>>() {
            self.took(&name, now);
        }
    }

    /// What is to be tried as time has passed: of each target the oldest, and everything whose waiting time is over, for the
    /// last time. Returns which targets are free again.
    pub fn tick(&mut self, now: Instant) -> Vec<Freed> {
        for target in self.targets.values_mut() {
            if target.opened {
                self.due.extend(rested(&mut target.line, now));
                continue;
            }
            let limit = target.manner.limit();
            let last_try = |one: &Waiting| one.letter.is_none() && !one.unsure && now - one.since >= limit;
            let due = target
                .line
                .extract_if(.., |_, one| now - one.tried >= AGAIN && last_try(one));
            let due: Vec<_> = due.collect();
            self.due.extend(due);
            if let Some(oldest) = target.line.first_entry().filter(|one| now - one.get().tried >= AGAIN) {
                self.due.insert(*oldest.key(), oldest.remove());
            }
        }
        self.forget(now);
        let over = |target: &ClosedTarget| target.line.is_empty() && target.opened;
        let freed = self.targets.extract_if(.., |_, target| over(target));
        freed
            .filter(|(_, target)| !target.why.is_empty())
            .map(|(name, target)| Freed {
                target: name,
                why: target.why,
                since: target.since,
                letters: target.letters,
            })
            .collect()
    }

    /// Of the targets that nothing waits for, the [`IDLE_MAX`] that were tried last are kept in mind, for people.
    fn forget(&mut self, now: Instant) {
        let idle = |target: &ClosedTarget| !target.opened && target.is_idle(now);
        let mut tried: Vec<Instant> = self.targets.values().filter(|t| idle(t)).map(|t| t.last).collect();
        if tried.len() > IDLE_MAX {
            tried.sort_unstable();
            let first = tried[tried.len() - IDLE_MAX];
            self.targets.retain(|_, target| !idle(target) || target.last >= first);
        }
    }

    /// What is to be tried now of the first message that has any.
    pub fn take_due(&mut self) -> Option<(u64, Vec<(usize, Waiting)>)> {
        let sequence = self.due.first_key_value()?.0.sequence;
        let of = |at| ConsequencePlace { sequence, at };
        let due = self.due.extract_if(of(0)..=of(usize::MAX), |_, _| true);
        let due: Vec<_> = due.map(|(place, waiting)| (place.at, waiting)).collect();
        self.waiting -= due.len();
        Some((sequence, due))
    }

    /// For people.
    pub fn snapshot(&self) -> Vec<state::BlockedTarget> {
        let blocked = self.targets.iter().filter(|(_, target)| !target.opened);
        let blocked = blocked.map(|(name, target)| state::BlockedTarget {
            target: name.clone(),
            why: target.why.clone(),
            since_ms: target.since_ms,
            refused_ms: now_ms().saturating_sub(u64::try_from(target.last.elapsed().as_millis()).unwrap_or(u64::MAX)),
            waiting: target.line.len(),
            letters: target.letters,
        });
        blocked.take(state::BLOCKED_MAX).collect()
    }
}

/// Takes out what was not tried just now.
fn rested(line: &mut BTreeMap<ConsequencePlace, Waiting>, now: Instant) -> Vec<(ConsequencePlace, Waiting)> {
    line.extract_if(.., |_, one| now - one.tried >= AGAIN).collect()
}

#[cfg(test)]
mod tests;
