//! One fault or many: dead letters of one handler, cause, code and module whose messages say the same but for numbers and
//! names.

use crate::text::normalise::normalise;
use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::mesh_streams::attempts::history;
use crate::mesh_streams::dead_letter::{self, Letter};

/// More different faults than a person can look at; the rest is counted together.
const GROUPS_MAX: usize = 10_000;

/// Hours that are counted.
pub const HOURS: usize = 24;
const HOUR_MS: u64 = 60 * 60 * 1000;

/// What the letters of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FaultKey {
    pub handler: String,
    pub cause: String,
    pub code: String,
    /// See [`normalise`].
    pub message: String,
    pub module: String,
}

impl FaultKey {
    pub fn of(letter: &Letter) -> FaultKey {
        let of = |name| letter.header(name).to_owned();
        FaultKey {
            handler: of(dead_letter::HANDLER),
            cause: of(dead_letter::CAUSE),
            code: of(dead_letter::CODE),
            message: normalise(letter.header(dead_letter::ERROR)),
            module: of(dead_letter::MODULE),
        }
    }

    /// What people call the group by: eight hexadecimal digits, the same wherever and whenever they are computed.
    pub fn id(&self) -> String {
        let parts = [&self.handler, &self.cause, &self.code, &self.message, &self.module];
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A group, and what is known of its letters.
#[derive(Debug, Clone)]
pub struct LetterGroup {
    pub key: FaultKey,
    pub count: u64,
    /// Of these: were replayed, and have failed again.
    pub failed_again: u64,
    /// When the first and the last of them died, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    pub last_ms: u64,
    /// How many died in each of the last hours, the newest last; see [`Groups::until`].
    pub hours: [u64; HOURS],
    /// The newest letter's id and error, word for word.
    pub sample: String,
    pub error: String,
}

/// Letters, counted by group. Takes memory for each group and none for a letter.
#[derive(Debug, Default)]
pub struct Groups {
    groups: HashMap<FaultKey, LetterGroup>,
    /// Up to when hours are counted, in milliseconds since the Unix epoch; 0: they are not.
    until_ms: u64,
    /// Letters of groups beyond the limit.
    pub uncounted: u64,
}

impl Groups {
    /// Groups that count the hours before this time.
    pub fn until(until_ms: u64) -> Groups {
        Groups {
            until_ms,
            ..Groups::default()
        }
    }

    pub fn add(&mut self, letter: &Letter) {
        let key = FaultKey::of(letter);
        let since_ms = letter.dead_since_ms();
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            self.uncounted += 1;
            return;
        }
        let group = self.groups.entry(key.clone()).or_insert_with(|| LetterGroup {
            key,
            count: 0,
            failed_again: 0,
            first_ms: since_ms,
            last_ms: 0,
            hours: [0; HOURS],
            sample: String::new(),
            error: String::new(),
        });
        group.count += 1;
        group.failed_again += u64::from(history::has_replay(&letter.headers));
        if let Some(ago_ms) = self.until_ms.checked_sub(since_ms)
            && let Ok(ago) = usize::try_from(ago_ms / HOUR_MS)
            && ago < HOURS
        {
            group.hours[HOURS - 1 - ago] += 1;
        }
        group.first_ms = group.first_ms.min(since_ms);
        if since_ms >= group.last_ms {
            group.last_ms = since_ms;
            letter.id().clone_into(&mut group.sample);
            letter.header(dead_letter::ERROR).clone_into(&mut group.error);
        }
    }

    /// The largest first.
    pub fn sorted(&self) -> Vec<&LetterGroup> {
        let mut groups: Vec<&LetterGroup> = self.groups.values().collect();
        groups.sort_by(|a, b| (b.count, b.last_ms, &b.sample).cmp(&(a.count, a.last_ms, &a.sample)));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_words_and_loses_its_names_and_numbers() {
        let rows = [
            ("sku sku-1: 5 wanted, 4 left", "sku #: # wanted, # left"),
            (
                "no field `order_id` at line 1 column 14",
                "no field # at line # column #",
            ),
            (
                "invalid type: string \"x y\", expected u64",
                "invalid type: string #, expected #",
            ),
            ("it can't be read, don't ask", "it can't be read, don't ask"),
            ("an open ' stays", "an open ' stays"),
            ("order 0190a2b4-7c1d-7f3e-8a11-5d3c2b1a0f9e is late", "order # is late"),
            ("库存不足 sku-7", "库存不足 #"),
            ("", ""),
        ];
        for (message, normal) in rows {
            assert_eq!(normalise(message), normal);
        }
    }

    fn letter(sequence: u64, code: &str, error: &str) -> Letter {
        let headers = [(dead_letter::CODE, code), (dead_letter::ERROR, error)];
        Letter {
            subject: format!("$MESH.dead.ORDERS.inventory.k.{sequence}"),
            sequence,
            time_ms: sequence * 10,
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            payload: bytes::Bytes::new(),
        }
    }

    #[test]
    fn letters_of_one_fault_are_one_group_with_its_first_and_its_newest() {
        let mut groups = Groups::default();
        groups.add(&letter(1, "a", "sku s-1: 5 wanted"));
        groups.add(&letter(2, "b", "sku s-1: 5 wanted"));
        groups.add(&letter(3, "a", "sku s-2: 6 wanted"));
        let groups = groups.sorted();
        assert_eq!(groups.len(), 2);
        let first = &groups[0];
        assert_eq!((first.count, first.first_ms, first.last_ms), (2, 10, 30));
        assert_eq!(
            (first.sample.as_str(), first.error.as_str()),
            ("inventory.k.3", "sku s-2: 6 wanted")
        );
        assert_eq!(first.key.message, "sku #: # wanted");
        assert_ne!(first.key.id(), groups[1].key.id());
        assert_eq!(first.key.id(), FaultKey::of(&letter(9, "a", "sku s-9: 9 wanted")).id());
    }

    #[test]
    fn letters_are_counted_by_the_hours_before_a_time() {
        let mut groups = Groups::until(30 * HOUR_MS);
        for hour in [1, 7, 28, 29, 29] {
            groups.add(&letter(hour * HOUR_MS / 10 + 1, "a", "x"));
        }
        let hours = groups.sorted()[0].hours;
        assert_eq!((hours[23], hours[22], hours[1], hours[0]), (2, 1, 1, 0));
        assert_eq!(hours.iter().sum::<u64>(), 4, "one died before");
    }
}
