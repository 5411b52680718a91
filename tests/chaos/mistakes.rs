//! The mistakes that are planted to see that the auditor finds them (`host/src/failpoint/mistake.rs`), and within how many
//! rounds it must.

use crate::points::{Database, Work};
use crate::round::{Round, Way};
use crate::rows::Source;

/// A mistake that tests can plant.
pub struct Mistake {
    pub name: &'static str,
    /// It must be found within this number of rounds of those that can show it.
    pub within: usize,
    shows: Shows,
    /// Found also by the slice that `make test` plays.
    pub quick: bool,
}

/// In which rounds a mistake can show.
enum Shows {
    Anywhere,
    /// A client beside the mesh writes to the bucket.
    PersonWrites,
    /// Two hosts append to one ledger from the beginning.
    TwoHosts,
    /// Another relay takes over what one has left half done.
    AnotherRelay,
    /// A target takes nothing.
    TargetIsFull,
    /// A host that has begun a round of redrive goes on, over the same connection, when another one has replayed the same letters as
    /// often as may be.
    RedriveFreezes,
    /// Handlers set and cancel timers.
    Timers,
    /// A version of a module takes over step by step.
    Rollouts,
    /// A host that is about to publish rows goes on when another one has published them. That of a log has the slot until then.
    OutboxFreezes,
}

/// `stale-reopen` is not among them: every commit rests on revisions that the server checks, so that what is remembered
/// over a reconnect costs a refusal and does no harm. Nor is `head-blind`: as long as no entry is removed, that an entry
/// is new says the same as the head's expectation.
pub const MISTAKES: [Mistake; 16] = [
    mistake("ack-before-commit", 6, Shows::Anywhere, true),
    mistake("head-and-entry-blind", 6, Shows::TwoHosts, false),
    mistake("key-blind", 6, Shows::PersonWrites, false),
    mistake("carrier-blind", 12, Shows::PersonWrites, false),
    mistake("join-blind", 6, Shows::Anywhere, true),
    mistake("reject-outside", 12, Shows::PersonWrites, false),
    mistake("refused-is-done", 6, Shows::TwoHosts, false),
    mistake("refused-keeps-reads", 6, Shows::TwoHosts, true),
    mistake("emit-without-id", 9, Shows::AnotherRelay, false),
    // Only a relay that dies between the early ack and its publish shows it: in about one round of six.
    mistake("blocked-is-published", 2, Shows::TargetIsFull, false),
    mistake("redrive-unbound", 8, Shows::RedriveFreezes, false),
    mistake("timer-key-blind", 2, Shows::Timers, false),
    mistake("canary-again", 6, Shows::Rollouts, false),
    mistake("shares-move-back", 3, Shows::Rollouts, false),
    mistake("outbox-unfenced", 2, Shows::OutboxFreezes, false),
    mistake("relay-acks-early", 36, Shows::AnotherRelay, false),
];

const fn mistake(name: &'static str, within: usize, shows: Shows, quick: bool) -> Mistake {
    Mistake {
        name,
        within,
        shows,
        quick,
    }
}

impl Mistake {
    /// Whether a round can show it.
    pub fn shows_in(&self, round: &Round) -> bool {
        let point = round.point;
        match self.shows {
            Shows::Anywhere => true,
            Shows::PersonWrites => round.server.is_none(),
            Shows::TwoHosts => round.together,
            Shows::AnotherRelay => point.work == Work::Relay,
            Shows::TargetIsFull => round.blocked,
            Shows::RedriveFreezes => {
                point.name == "redrive-begun"
                    && round.way == Way::Frozen
                    && round.server.is_none()
                    && round.redrives_max == Some(1)
            }
            Shows::Timers => point.work == Work::Timers,
            Shows::Rollouts => point.work == Work::Rollout,
            Shows::OutboxFreezes => {
                let log = Work::Outbox(Database::Postgres(Source::Log));
                point.name == "outbox-before"
                    && point.work != log
                    && round.way == Way::Frozen
                    && round.database.is_none()
            }
        }
    }
}
