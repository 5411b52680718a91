//! The letters of one replay command, and what has become of each. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::group;
use crate::event::outcome::Cause;
use crate::mesh_streams::dead_letter::{self, Letter};

/// A letter without a word is asked for once more at the first look, and given up at this one.
const LOOKS_MAX: u8 = 3;

/// What a replay has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Succeeded,
    /// The letter stands, with one more attempt in its history.
    Failed {
        code: String,
        error: String,
    },
    /// The letter was taken away by other means: discarded, or purged.
    Gone,
    /// The replay is over, and of its letter nothing was written.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LetterProgress {
    Untried,
    Out { since: Duration, looks: u8 },
    Over,
}

/// Who has asked for a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Own,
    /// Another run of the command: another person's, or an earlier one.
    Another,
}

/// One letter that is meant.
#[derive(Debug, Clone)]
pub struct Meant {
    pub subject: String,
    /// In its stream, when it was seen last.
    pub sequence: u64,
    /// Which of the kinds.
    pub kind: usize,
    /// A ledger has decided its death, and knows if it is done.
    pub in_ledger: bool,
    state: LetterProgress,
}

impl Meant {
    pub fn id(&self) -> &str {
        dead_letter::id_of(&self.subject)
    }
}

/// What letters have in common.
#[derive(Debug, Clone)]
pub struct LetterKind {
    pub key: group::FaultKey,
    pub count: usize,
    /// The newest letter's error.
    pub error: String,
}

impl LetterKind {
    /// An emitted event that no stream took: it is published, not run.
    pub fn is_undeliverable(&self) -> bool {
        self.key.cause == Cause::Undeliverable.name()
    }
}

/// Letters of one group that have failed again with one code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    pub count: usize,
    /// The last one's id and error.
    pub sample: String,
    pub error: String,
}

/// How many of the letters stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub succeeded: usize,
    pub failed: usize,
    /// Replayed by another run, which has asked for them as well.
    pub succeeded_for_others: usize,
    pub failed_for_others: usize,
    /// Discarded or purged.
    pub gone: usize,
    pub silent: usize,
    /// Asked for and undecided.
    pub out: usize,
    pub untried: usize,
    /// Asked for, whatever has become of them.
    pub sent: usize,
}

impl Counts {
    /// Known to be done or to have failed again, in this run or another.
    pub fn decided(&self) -> usize {
        self.succeeded + self.failed + self.succeeded_for_others + self.failed_for_others
    }

    /// No dead letters any more.
    pub fn over(&self) -> usize {
        self.succeeded + self.succeeded_for_others + self.gone
    }

    /// Tried, and dead letters still.
    pub fn failed_in_all(&self) -> usize {
        self.failed + self.failed_for_others + self.silent
    }
}

#[derive(Debug, Default)]
pub struct Course {
    /// Each letter is meant only as it was read: one that was written again meanwhile is left to the run that did it.
    bound: bool,
    letters: Vec<Meant>,
    by_subject: HashMap<String, usize>,
    kinds: Vec<LetterKind>,
    by_key: HashMap<group::FaultKey, usize>,
    next: usize,
    counts: Counts,
    /// By group and code.
    failures: BTreeMap<(usize, String), Failures>,
    /// Letters of events that were lost with their payloads: their number, and the first few.
    pub lost: usize,
    pub lost_samples: Vec<String>,
}

impl Course {
    /// Of letters that are meant only as they are read. The mesh may begin a run twice, with two hosts: what one of them has
    /// replayed, the other one does not replay again.
    pub fn bound() -> Course {
        Course {
            bound: true,
            ..Course::default()
        }
    }

    pub fn is_bound(&self) -> bool {
        self.bound
    }

    /// One more letter is meant; one that cannot be replayed is counted.
    pub fn add(&mut self, letter: &Letter) {
        if letter.header(dead_letter::CAUSE) == Cause::Lost.name() {
            self.lost += 1;
            if self.lost_samples.len() < 3 {
                self.lost_samples.push(letter.id().to_owned());
            }
            return;
        }
        if self.by_subject.contains_key(&letter.subject) {
            return;
        }
        let key = group::FaultKey::of(letter);
        let kinds = &mut self.kinds;
        let kind = *self.by_key.entry(key.clone()).or_insert_with(|| {
            let error = String::new();
            kinds.push(LetterKind { key, count: 0, error });
            kinds.len() - 1
        });
        self.kinds[kind].count += 1;
        letter
            .header(dead_letter::ERROR)
            .clone_into(&mut self.kinds[kind].error);
        self.by_subject.insert(letter.subject.clone(), self.letters.len());
        self.letters.push(Meant {
            subject: letter.subject.clone(),
            sequence: letter.sequence,
            kind,
            in_ledger: !letter.header(dead_letter::DEATH).is_empty(),
            state: LetterProgress::Untried,
        });
        self.counts.untried += 1;
    }

    pub fn len(&self) -> usize {
        self.letters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The largest first.
    pub fn kinds(&self) -> Vec<&LetterKind> {
        let mut kinds: Vec<&LetterKind> = self.kinds.iter().collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
        kinds
    }

    /// The handlers whose letters these are.
    pub fn handlers(&self) -> BTreeSet<&str> {
        self.kinds().into_iter().map(|kind| kind.key.handler.as_str()).collect()
    }

    pub fn letter(&self, at: usize) -> &Meant {
        &self.letters[at]
    }

    pub fn kind(&self, at: usize) -> &LetterKind {
        &self.kinds[self.letters[at].kind]
    }

    /// What has failed again: the group, the code, and which.
    pub fn failures(&self) -> impl Iterator<Item = (&LetterKind, &str, &Failures)> {
        self.failures
            .iter()
            .map(|((kind, code), failures)| (&self.kinds[*kind], code.as_str(), failures))
    }

    /// The next letter that nothing is known of yet, which goes out now. `None`: there is none.
    pub fn send(&mut self, now: Duration) -> Option<usize> {
        while let Some(letter) = self.letters.get_mut(self.next) {
            let at = self.next;
            self.next += 1;
            if letter.state == LetterProgress::Untried {
                letter.state = LetterProgress::Out { since: now, looks: 0 };
                self.counts.untried -= 1;
                self.counts.out += 1;
                self.counts.sent += 1;
                return Some(at);
            }
        }
        None
    }

    /// A letter could not be asked for, for certain; one that was asked for before stays out.
    pub fn not_sent(&mut self, at: usize) {
        let letter = &mut self.letters[at];
        if matches!(letter.state, LetterProgress::Out { looks: 0, .. }) {
            letter.state = LetterProgress::Untried;
            self.counts.out -= 1;
            self.counts.untried += 1;
            self.counts.sent -= 1;
        }
    }

    /// Something was written on a letter's subject. `Some`: as [`Course::learn`].
    pub fn written(&mut self, subject: &str, sequence: u64, (fate, whose): (Fate, Whose)) -> Option<Fate> {
        let at = *self.by_subject.get(subject)?;
        let letter = &mut self.letters[at];
        if sequence <= letter.sequence {
            return None;
        }
        letter.sequence = sequence;
        self.learn(at, fate, whose)
    }

    /// Something is known of a letter. `Some`: it was out, and this is what its replay has come to.
    pub fn learn(&mut self, at: usize, fate: Fate, whose: Whose) -> Option<Fate> {
        let letter = &mut self.letters[at];
        let was_out = match (letter.state, &fate) {
            (LetterProgress::Over, _) => return None,
            // A replay that another person asked for has failed: this run can still try it.
            (LetterProgress::Untried, Fate::Failed { .. } | Fate::Silent) if !self.bound => return None,
            (LetterProgress::Untried, _) => false,
            (LetterProgress::Out { .. }, _) => true,
        };
        letter.state = LetterProgress::Over;
        match was_out {
            true => self.counts.out -= 1,
            false => self.counts.untried -= 1,
        }
        match &fate {
            Fate::Succeeded if was_out && whose == Whose::Own => self.counts.succeeded += 1,
            Fate::Succeeded => self.counts.succeeded_for_others += 1,
            Fate::Gone => self.counts.gone += 1,
            Fate::Silent => self.counts.silent += 1,
            Fate::Failed { code, error } => {
                match whose {
                    Whose::Own => self.counts.failed += 1,
                    Whose::Another => self.counts.failed_for_others += 1,
                }
                let (kind, sample) = (letter.kind, letter.id().to_owned());
                let failures = self.failures.entry((kind, code.clone())).or_insert(Failures {
                    count: 0,
                    sample: String::new(),
                    error: String::new(),
                });
                failures.count += 1;
                failures.sample = sample;
                error.clone_into(&mut failures.error);
            }
        }
        was_out.then_some(fate)
    }

    /// Letters that were sent at least this long ago and are not decided.
    pub fn out_since(&self, before: Duration) -> Vec<usize> {
        let tried = self.letters.iter().enumerate().take(self.next);
        tried
            .filter(|(_, letter)| matches!(letter.state, LetterProgress::Out { since, .. } if since <= before))
            .map(|(at, _)| at)
            .collect()
    }

    /// The replay of a letter does not wait any more, and its letter stands as it was found.
    pub fn unheard(&mut self, at: usize) -> Unheard {
        let LetterProgress::Out { looks, .. } = &mut self.letters[at].state else {
            return Unheard::Wait;
        };
        *looks += 1;
        match *looks {
            1 => Unheard::AskAgain,
            LOOKS_MAX.. => Unheard::GiveUp,
            _ => Unheard::Wait,
        }
    }
}

/// What to do about a letter without a word. It may have been asked for while another replay of it was about to end:
/// then asking did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// It does nothing if the event is done.
    AskAgain,
    Wait,
    GiveUp,
}

#[cfg(test)]
mod tests;
