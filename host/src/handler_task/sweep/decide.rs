//! What a sweep makes of what it finds. Pure: what was read is handed in.

use crate::plan::Handler;

/// Sequences that are looked at in one go: of those that match, eight bytes each are in memory.
pub const SEQUENCES: u64 = 25_000;
/// The same where few match.
const SEQUENCES_MAX: u64 = 8 * SEQUENCES;

/// How many sequences are looked at next. `width`: how many were looked at; `found`: how many messages of the handler were
/// among them.
pub fn next_width(width: u64, found: u64) -> u64 {
    match found > SEQUENCES / 2 {
        true => SEQUENCES,
        // Where few match, more is looked at in one go.
        false => (width * 2).min(SEQUENCES_MAX),
    }
}

/// Whether an attempt that began then, in milliseconds since the Unix epoch, has ended one way or another.
pub fn is_quiet(plan: &Handler, last_ms: u64, now_ms: u64) -> bool {
    let patience = u64::try_from((plan.ack_wait + plan.timeout).as_millis()).unwrap_or(u64::MAX);
    now_ms > last_ms.saturating_add(patience)
}

/// What is to be done about an undecided event whose attempt record has not changed for long.
#[derive(Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing: it is delivered again, or the floor finds it.
    Kept,
    /// Its record goes.
    Forgotten,
    /// Its stream has removed it: it is dead-lettered without its body.
    Lost,
    /// It has no attempts left, or was given up: it is dead-lettered.
    Exhausted,
}

/// `in_stream`: the stream still holds the event. `attempts`: how many were begun. `given_up`: by a person.
pub fn leftover(plan: &Handler, in_stream: bool, attempts: u32, given_up: bool) -> Leftover {
    match (in_stream, plan.ledger.is_some()) {
        (true, _) if given_up => Leftover::Exhausted,
        (false, true) => Leftover::Lost,
        // Without a ledger a lost event looks like one that was done.
        (false, false) => Leftover::Forgotten,
        (true, false) if attempts >= plan.retry.max_attempts => Leftover::Exhausted,
        (true, _) => Leftover::Kept,
    }
}

/// How many messages a stream has lost at its beginning that were not delivered and not counted yet. `known`: up to here
/// they are counted; `given`: up to here they are delivered; `first`: the stream's first message.
pub fn never_given(known: u64, given: u64, first: u64) -> u64 {
    first.saturating_sub(known.max(given + 1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_becomes_of_a_record_that_nobody_touches() {
        let without = Handler::of_test("h");
        let with = Handler {
            ledger: Some("b".to_owned()),
            ..without.clone()
        };
        let last = without.retry.max_attempts;
        let rows = [
            // With a ledger the floor finds what is in the stream, and only the record finds what is not.
            (&with, true, last, false, Leftover::Kept),
            (&with, true, 1, true, Leftover::Exhausted),
            (&with, false, 1, false, Leftover::Lost),
            (&with, false, 1, true, Leftover::Lost),
            // Without one, the record is all that there is.
            (&without, true, last - 1, false, Leftover::Kept),
            (&without, true, 1, true, Leftover::Exhausted),
            (&without, true, last, false, Leftover::Exhausted),
            (&without, true, last + 1, false, Leftover::Exhausted),
            (&without, false, last, false, Leftover::Forgotten),
        ];
        for (plan, in_stream, attempts, given_up, expected) in rows {
            let ledger = &plan.ledger;
            assert_eq!(
                leftover(plan, in_stream, attempts, given_up),
                expected,
                "{ledger:?}, {in_stream}, {attempts}, {given_up}"
            );
        }
    }

    #[test]
    fn a_record_is_quiet_when_its_last_attempt_must_have_been_answered() {
        let plan = Handler {
            ack_wait: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            ..Handler::of_test("h")
        };
        assert!(!is_quiet(&plan, 1_000, 36_000));
        assert!(is_quiet(&plan, 1_000, 36_001));
        assert!(!is_quiet(&plan, u64::MAX, u64::MAX), "a time that cannot be has no end");
    }

    #[test]
    fn more_is_looked_at_in_one_go_where_few_match_and_less_where_many_do() {
        assert_eq!(next_width(SEQUENCES, 0), 2 * SEQUENCES);
        assert_eq!(next_width(SEQUENCES_MAX, SEQUENCES / 2), SEQUENCES_MAX);
        assert_eq!(next_width(SEQUENCES_MAX, SEQUENCES / 2 + 1), SEQUENCES);
    }

    #[test]
    fn messages_are_counted_once_that_went_before_they_were_delivered() {
        // Counted up to here, delivered up to here, the first that is left; and the number.
        for (known, given, first, expected) in [
            (0, 0, 1, 0),
            (0, 0, 6, 5),
            (0, 4, 6, 1),
            (0, 9, 6, 0),
            (6, 0, 6, 0),
            (6, 0, 8, 2),
            (8, 0, 6, 0),
        ] {
            assert_eq!(never_given(known, given, first), expected, "{known}, {given}, {first}");
        }
    }
}
