//! The answer to a message that names several events: made of the answers to all of them.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;

use super::Settlement;
use super::delays::SOON;
use crate::event::EventId;

/// How the events were answered that one message names.
#[derive(Debug, Default)]
pub struct Answers(Mutex<AnswersTold>);

#[derive(Debug, Default)]
pub struct AnswersTold {
    pub settled: HashSet<EventId>,
    again: usize,
    /// The longest that one of them is to wait.
    wait: Duration,
}

impl Answers {
    /// One event is answered.
    pub fn tell(&self, event: &EventId, settlement: &Settlement) {
        let mut told = self.0.lock();
        match settlement {
            Settlement::Ack | Settlement::Term(_) => {
                told.settled.insert(event.clone());
            }
            Settlement::Nak(wait) => {
                told.again += 1;
                told.wait = told.wait.max(*wait);
            }
            Settlement::HandBack => told.again += 1,
        }
    }

    /// All that was told.
    pub fn take(&self) -> AnswersTold {
        std::mem::take(&mut *self.0.lock())
    }
}

impl AnswersTold {
    /// The answer to the message, which names `count` events.
    pub fn settlement(&self, count: usize, drains: bool) -> Settlement {
        let unanswered = count - self.settled.len() - self.again;
        match (self.again, unanswered) {
            (0, 0) => Settlement::Ack,
            _ if drains => Settlement::HandBack,
            (_, 0) => Settlement::Nak(self.wait),
            _ => Settlement::Nak(self.wait.max(SOON)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(3);

    fn told(answers: &[(u64, Settlement)]) -> AnswersTold {
        let told = Answers::default();
        for (event, settlement) in answers {
            told.tell(&EventId::of_test(*event), settlement);
        }
        told.take()
    }

    #[test]
    fn a_list_is_over_when_each_of_its_letters_is_settled() {
        let both = told(&[(1, Settlement::Ack), (2, Settlement::Term("no".to_owned()))]);
        for drains in [false, true] {
            assert_eq!(both.settlement(2, drains), Settlement::Ack);
        }
        assert_eq!(told(&[]).settlement(0, false), Settlement::Ack, "it names nothing");
    }

    #[test]
    fn a_list_comes_again_after_the_longest_wait_of_its_letters() {
        let soon = Settlement::Nak(Duration::from_millis(20));
        let some = told(&[(1, soon.clone()), (2, Settlement::Ack), (3, Settlement::Nak(LATER))]);
        assert_eq!(some.settlement(3, false), Settlement::Nak(LATER));
        assert_eq!(
            some.settlement(3, true),
            Settlement::HandBack,
            "another host goes on at once"
        );
        assert_eq!(some.settled, HashSet::from([EventId::of_test(2)]));
        assert_eq!(told(&[(1, soon.clone())]).settlement(1, false), soon);
    }

    #[test]
    fn a_letter_that_is_not_answered_here_is_looked_at_again_soon() {
        let one = told(&[(1, Settlement::Ack)]);
        assert_eq!(one.settlement(2, false), Settlement::Nak(SOON));
        let other = told(&[(1, Settlement::Nak(LATER))]);
        assert_eq!(other.settlement(2, false), Settlement::Nak(LATER));
    }
}
