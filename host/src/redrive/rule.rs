//! Which dead letters are replayed by themselves, and when. Pure: the time is handed in.

use std::time::Duration;

use crate::mesh_streams::dead_letter::{self, Letter};
use crate::plan::{Plan, Redrive};

/// How a dead letter stands with the redrive of its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedriveTurn {
    /// Its cause or its code is not named: it waits for a person.
    Other,
    /// It was replayed as often as it may be: it is left to a person.
    Left,
    /// It is replayed later.
    Waits,
    Due,
}

/// How a letter stands. `now`: milliseconds since the Unix epoch.
pub fn turn(redrive: &Redrive, letter: &Letter, now: u64) -> RedriveTurn {
    let cause = letter.header(dead_letter::CAUSE);
    let code = letter.header(dead_letter::CODE);
    let named = redrive.causes.iter().any(|one| one == cause)
        && (redrive.codes.is_empty() || redrive.codes.iter().any(|one| one == code));
    if !named {
        return RedriveTurn::Other;
    }
    let times = letter.redriven();
    if times >= redrive.times_max {
        return RedriveTurn::Left;
    }
    let ms = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    let old_enough = letter.dead_since_ms().saturating_add(ms(redrive.after));
    // It is written again when a replay has failed.
    let due = match times {
        0 => old_enough,
        _ => letter.time_ms.saturating_add(ms(delay(redrive, times))).max(old_enough),
    };
    match now >= due {
        true => RedriveTurn::Due,
        false => RedriveTurn::Waits,
    }
}

/// How a dead letter stands with the redrive of its handler. `None`: that has none.
pub fn of_letter<'a>(plan: &'a Plan, letter: &Letter, now: u64) -> Option<(&'a str, RedriveTurn)> {
    let of = letter.id().split('.').next().unwrap_or_default();
    let handler = plan.handlers.iter().find(|handler| handler.name == of)?;
    let redrive = handler.redrive.as_ref()?;
    Some((&handler.name, turn(redrive, letter, now)))
}

/// The delay after this number of failed replays.
fn delay(redrive: &Redrive, times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(30);
    redrive.backoff.saturating_mul(1 << doublings).min(redrive.backoff_max)
}

/// How many dead letters stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedriveTally {
    pub due: u64,
    pub waiting: u64,
    pub left: u64,
    pub other: u64,
}

impl RedriveTally {
    pub fn add(&mut self, turn: RedriveTurn) {
        *match turn {
            RedriveTurn::Other => &mut self.other,
            RedriveTurn::Left => &mut self.left,
            RedriveTurn::Waits => &mut self.waiting,
            RedriveTurn::Due => &mut self.due,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redrive() -> Redrive {
        Redrive {
            causes: vec!["exhausted".to_owned()],
            codes: vec!["busy".to_owned(), "timeout".to_owned()],
            every: Duration::from_secs(60),
            after: Duration::from_secs(10),
            backoff: Duration::from_secs(20),
            backoff_max: Duration::from_secs(50),
            times_max: 4,
            per_second: None,
        }
    }

    /// Died at 1 s; written at this second.
    fn letter(cause: &str, code: &str, redriven: u32, written: u64) -> Letter {
        let headers = [
            (dead_letter::CAUSE, cause.to_owned()),
            (dead_letter::CODE, code.to_owned()),
            (dead_letter::DEAD_SINCE, "1970-01-01T00:00:01Z".to_owned()),
            (dead_letter::REDRIVEN, redriven.to_string()),
        ];
        Letter {
            subject: "$MESH.dead.S.h.k.1".to_owned(),
            sequence: 1,
            time_ms: written * 1000,
            headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            payload: bytes::Bytes::new(),
        }
    }

    #[test]
    fn causes_and_codes_that_are_not_named_stay() {
        let at = |cause, code| turn(&redrive(), &letter(cause, code, 0, 1), 1_000_000);
        assert_eq!(at("exhausted", "busy"), RedriveTurn::Due);
        assert_eq!(at("exhausted", "timeout"), RedriveTurn::Due);
        assert_eq!(at("exhausted", "trap"), RedriveTurn::Other);
        assert_eq!(at("rejected", "busy"), RedriveTurn::Other);
        let all = Redrive {
            codes: Vec::new(),
            ..redrive()
        };
        assert_eq!(
            turn(&all, &letter("exhausted", "trap", 0, 1), 1_000_000),
            RedriveTurn::Due
        );
    }

    #[test]
    fn the_delay_doubles_up_to_its_limit_and_the_last_time_leaves_it_to_a_person() {
        // Failed replays, when the last one was, and when the next one is due, in seconds.
        let rows = [(0, 1, 11), (1, 15, 35), (2, 40, 80), (3, 100, 150)];
        for (times, written, due) in rows {
            let at = |second: u64| turn(&redrive(), &letter("exhausted", "busy", times, written), second * 1000);
            assert_eq!(at(due), RedriveTurn::Due, "{times}");
            assert_eq!(at(due - 1), RedriveTurn::Waits, "{times}");
        }
        let spent = letter("exhausted", "busy", 4, 1);
        assert_eq!(turn(&redrive(), &spent, u64::MAX), RedriveTurn::Left);
    }
}
