//! What the stream of a round holds: orders, and in the soak messages that no client can read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::mesh::Found;
use crate::orders::{Order, Step};

/// A message that no client can read.
pub struct Malformed {
    /// In the stream.
    pub sequence: u64,
    pub headers: Vec<u8>,
    pub payload: Vec<u8>,
}

/// What a sequence of the stream holds.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    Order(&'a Order),
    Malformed(&'a Malformed),
}

/// The code of a message that no client can read.
pub const MALFORMED: &str = "malformed-message";

impl Event<'_> {
    /// Whether a letter has its bytes.
    pub fn is_of(self, letter: &Found) -> bool {
        match self {
            Event::Order(order) => letter.payload == order.payload().as_bytes(),
            Event::Malformed(malformed) => {
                let headers = letter.header("Mesh-Original-Headers-Base64");
                letter.payload == malformed.payload
                    && letter.header("Mesh-Code") == Some(MALFORMED)
                    && headers.is_some_and(|headers| BASE64.decode(headers).as_ref() == Ok(&malformed.headers))
            }
        }
    }

    /// Why it dies for a handler that has no ledger, if it does.
    pub fn dies_without_ledger(self) -> Option<&'static str> {
        let Event::Order(order) = self else {
            return Some("rejected");
        };
        order.plain.iter().find_map(|step| match step {
            Step::Reject { .. } => Some("rejected"),
            Step::Retry { .. } | Step::Trap => Some("exhausted"),
            _ => None,
        })
    }
}
