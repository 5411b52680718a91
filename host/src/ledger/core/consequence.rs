//! What follows from an entry, as its consequence messages hold it.

use serde::{Deserialize, Serialize};

use super::entry::Text;
use crate::event::Headers;

/// What follows from an entry: the relay publishes it, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consequence {
    /// An event that a handler emitted.
    Event {
        id: String,
        subject: String,
        headers: Headers,
        body: StoredBody,
    },
    /// One that is published when it is due. Since format 2.
    Delayed {
        id: String,
        /// RFC 3339.
        due: String,
        subject: String,
        headers: Headers,
        body: StoredBody,
    },
    /// A dead letter.
    Letter {
        subject: String,
        headers: Headers,
        body: StoredBody,
        /// The place of its death among those of the entry. Absent in consequences of earlier builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        death: Option<usize>,
    },
    /// A dead letter whose event is done after all.
    Settle {
        subject: String,
        reason: String,
        /// The letter's body lies in parts, which go as well.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_parts: bool,
        /// Which run of `dlq replay` had asked for the replay. Absent in consequences of earlier builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked_by: Option<String>,
    },
}

/// A payload in a consequence: in the same message, or, if it is large, in messages of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredBody {
    Here(Text),
    /// The parts' numbers among the entry's consequence messages, in order.
    Parts(Vec<usize>),
}

/// One message of an entry's consequences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Out {
    pub n: u64,
    /// A torn append may have left its consequences behind: only those of the append that became entry `n` count.
    pub append: String,
    pub consequences: Vec<Consequence>,
}

/// Header of a consequence message that is only a part of a payload.
pub const PART: &str = "Mesh-Part";
