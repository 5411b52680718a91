//! What follows from an entry, as its consequence messages hold it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::entry::Text;
use crate::event::Headers;

/// What follows from an entry: the relay publishes it, once. It borrows from the transaction while a batch is laid out, and owns
/// what was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consequence<'a> {
    /// An event that a handler emitted.
    Event {
        id: Cow<'a, str>,
        subject: Cow<'a, str>,
        headers: Cow<'a, Headers>,
        body: StoredBody<'a>,
    },
    /// One that is published when it is due. Since format 2.
    Delayed {
        id: Cow<'a, str>,
        /// RFC 3339.
        due: String,
        subject: Cow<'a, str>,
        headers: Cow<'a, Headers>,
        body: StoredBody<'a>,
    },
    /// A dead letter.
    Letter {
        subject: Cow<'a, str>,
        headers: Cow<'a, Headers>,
        body: StoredBody<'a>,
        /// The place of its death among those of the entry. Absent in consequences of earlier builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        death: Option<usize>,
    },
    /// A dead letter whose event is done after all.
    Settle {
        subject: Cow<'a, str>,
        reason: Cow<'a, str>,
        /// The letter's body lies in parts, which go as well.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_parts: bool,
        /// Which run of `dlq replay` had asked for the replay. Absent in consequences of earlier builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked_by: Option<Cow<'a, str>>,
    },
}

/// A payload in a consequence: in the same message, or, if it is large, in messages of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredBody<'a> {
    Here(Text<'a>),
    /// The parts' numbers among the entry's consequence messages, in order.
    Parts(Vec<usize>),
}

/// One message of an entry's consequences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Out {
    pub n: u64,
    /// A torn append may have left its consequences behind: only those of the append that became entry `n` count.
    pub append: String,
    pub consequences: Vec<Consequence<'static>>,
}

/// Header of a consequence message that is only a part of a payload.
pub const PART: &str = "Mesh-Part";
