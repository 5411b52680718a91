//! The attempts that a dead letter tells of: one header, a JSON list of [`Attempt`]s, oldest first.

use crate::event::{Headers, header};
use crate::mesh_streams::attempts::Attempt;

pub const HISTORY: &str = "Mesh-History";

/// Most that the header may take: a letter must always fit a message. The newest attempts are kept.
const BYTES_MAX: usize = 32 * 1024;

/// The attempts in a letter's headers; none if it has none that can be read.
pub fn of(headers: &Headers) -> Vec<Attempt> {
    header(headers, HISTORY)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Whether a letter with these headers was replayed and has failed again. The mark cannot stand in a text of the history,
/// where its quotation marks are escaped.
pub fn has_replay(headers: &Headers) -> bool {
    header(headers, HISTORY).is_some_and(|text| text.contains("\"replay\":true"))
}

/// The header's value: of attempts that are too many or too long, first the logs of all but the last go, then the oldest,
/// and then, line by line, the beginning of the last one's log.
pub fn value(attempts: &[Attempt]) -> String {
    let text = |attempts: &[Attempt]| serde_json::to_string(attempts).expect("attempts serialise");
    let whole = text(attempts);
    if whole.len() <= BYTES_MAX {
        return whole;
    }
    let mut kept = attempts.to_vec();
    if let Some((_, earlier)) = kept.split_last_mut() {
        earlier.iter_mut().for_each(|attempt| attempt.log.clear());
    }
    while kept.len() > 1 && text(&kept).len() > BYTES_MAX {
        kept.remove(0);
    }
    while text(&kept).len() > BYTES_MAX && kept.iter().any(|attempt| !attempt.log.is_empty()) {
        kept.iter_mut().for_each(|attempt| drop(attempt.log.remove(0)));
    }
    text(&kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    fn attempt(number: u32, log: usize) -> Attempt {
        Attempt {
            attempt: number,
            at: "2026-01-01T00:00:00.000Z".to_owned(),
            host: "h".to_owned(),
            module: "m".to_owned(),
            outcome: "trap".to_owned(),
            code: "trap".to_owned(),
            message: "no\nstock 库存".to_owned(),
            log: (0..log).map(|n| format!("{n:1000}")).collect(),
            backtrace: vec!["0: inventory::take".to_owned()],
            seed: number
                .is_multiple_of(2)
                .then(|| Seed::parse(&"0f".repeat(32)).expect("a seed")),
            replay: false,
            asked_by: None,
        }
    }

    #[test]
    fn a_history_comes_back_as_it_was_on_one_line() {
        let attempts = [attempt(1, 2), attempt(2, 3)];
        let text = value(&attempts);
        assert!(!text.contains('\n'));
        assert_eq!(of(&vec![(HISTORY.to_owned(), text)]), attempts);
    }

    #[test]
    fn one_that_is_too_long_keeps_the_newest() {
        let attempts: Vec<Attempt> = (1..=5).map(|n| attempt(n, 10)).collect();
        let kept = of(&vec![(HISTORY.to_owned(), value(&attempts))]);
        assert_eq!(kept.len(), 5, "logs go first");
        assert_eq!(kept.iter().map(|a| a.log.len()).collect::<Vec<_>>(), [0, 0, 0, 0, 10]);
        let attempts: Vec<Attempt> = (1..=500).map(|n| attempt(n, 1)).collect();
        let kept = of(&vec![(HISTORY.to_owned(), value(&attempts))]);
        assert!(kept.len() > 50 && kept.last() == attempts.last(), "{}", kept.len());
        let kept = of(&vec![(HISTORY.to_owned(), value(&[attempt(1, 90)]))]);
        assert_eq!((kept.len(), kept[0].log.last()), (1, attempt(1, 90).log.last()));
    }
}
