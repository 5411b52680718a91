//! What one search looks at: who does what, and how much may go wrong.

use super::program::{Program, Values};
use crate::failpoint::mistake::Mistake;

/// The bounds of one search.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub name: &'static str,
    /// One event each.
    pub programs: Vec<Program>,
    pub start: Values,
    pub hosts: usize,
    /// How often the server delivers an event before it gives up.
    pub deliveries: u8,
    /// The server's word that it has given up is heard, at any time and by any host.
    pub dead_letter: bool,
    /// Keys are read one by one, and something may happen in between.
    pub reads_apart: bool,
    /// Consequences are published and checked.
    pub relay: bool,
    /// Bytes of keys that a host keeps at hand.
    pub cache_bytes: usize,
    /// The server's `max_payload`: it bounds a group.
    pub payload_max: usize,
    /// What a person puts, in this order.
    pub puts: Vec<(&'static str, u8)>,
    pub may: May,
    pub mistake: Option<Mistake>,
    /// The committer calls all batches of one round by one name, as it once did.
    pub one_name_a_round: bool,
}

/// How often something may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct May {
    /// A host ends, and starts again.
    pub crash: u8,
    /// A host's connection to the ledger breaks.
    pub disconnect: u8,
    /// The answer to a batch is lost, or comes too late.
    pub lose_answer: u8,
    /// The server refuses a batch although nothing has moved.
    pub refuse: u8,
    /// A host's patience ends: it hands its events back.
    pub give_up: u8,
    /// A handler asks for another attempt.
    pub fail: u8,
    /// The ack of an event is lost.
    pub lose_ack: u8,
    /// A person replays a dead letter.
    pub replay: u8,
    /// The target's duplicate window passes.
    pub window: u8,
    /// A host raises its floor.
    pub floor: u8,
    /// The oldest entry is collected.
    pub collect: u8,
    /// The server loses what it has stored last: a power cut, a restored backup. Sequences are used again.
    pub lose_tail: u8,
}

/// Two hosts and two events; nothing goes wrong.
pub fn bounds(name: &'static str) -> Bounds {
    Bounds {
        name,
        programs: vec![Program::Take, Program::Take],
        start: [Some(1), Some(0)],
        hosts: 2,
        deliveries: 1,
        dead_letter: true,
        reads_apart: false,
        relay: false,
        cache_bytes: 1 << 20,
        payload_max: 1 << 20,
        puts: Vec::new(),
        may: May::default(),
        mistake: None,
        one_name_a_round: false,
    }
}
