//! Where an event is that a handler emitted.

use schemars::JsonSchema;
use serde::Serialize;

use super::EventJson;
use crate::mesh_streams::dead_letter::LetterEdit;
use crate::trace::follow::{Follow, Whereabouts};
use crate::trace::stand::TracedLetter;

/// An event that a handler emitted.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "follow")]
pub(super) struct FollowJson<'a> {
    /// The emitted event's own, HANDLER.INCARNATION.SEQUENCE.INDEX.
    id: &'a str,
    subject: &'a str,
    whereabouts: WhereaboutsJson<'a>,
    /// The edits of its payload, oldest first, after its stream had refused it.
    edits: &'a [LetterEdit],
}

/// Where an emitted event is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum WhereaboutsJson<'a> {
    /// It is, or was, in its stream.
    Published { traced: EventJson<'a> },
    /// It waits for its time.
    Delayed { due: &'a str },
    /// Its time has come, and no host has published it yet.
    Due { due: &'a str },
    /// A timer that was cancelled or set again before it fired; or it has fired, and its event was removed.
    CalledOff { due: &'a str },
    /// A person has cancelled it.
    Cancelled {
        due: &'a str,
        /// By whom, and why.
        why: &'a str,
    },
    /// Its stream refused it, or there is none.
    Undeliverable { letter: &'a TracedLetter },
    /// Its stream does not hold it: not yet, or not any more.
    Absent {
        /// The stream that captures its subject; null: none does now.
        stream: Option<&'a str>,
        /// A relay has recorded that it was published.
        published: bool,
    },
    /// It was not found: the limit of what is read was reached.
    NotFound {},
}

impl<'a> From<&'a Follow> for FollowJson<'a> {
    fn from(follow: &'a Follow) -> FollowJson<'a> {
        let whereabouts = match &follow.whereabouts {
            Whereabouts::Published { traced } => WhereaboutsJson::Published {
                traced: EventJson::from(&**traced),
            },
            Whereabouts::Delayed { due } => WhereaboutsJson::Delayed { due },
            Whereabouts::Due { due } => WhereaboutsJson::Due { due },
            Whereabouts::CalledOff { due } => WhereaboutsJson::CalledOff { due },
            Whereabouts::Cancelled { due, why } => WhereaboutsJson::Cancelled { due, why },
            Whereabouts::Undeliverable { letter } => WhereaboutsJson::Undeliverable { letter },
            Whereabouts::Absent { stream, published } => WhereaboutsJson::Absent {
                stream: stream.as_deref(),
                published: *published,
            },
            Whereabouts::NotFound => WhereaboutsJson::NotFound {},
        };
        FollowJson {
            id: &follow.id,
            subject: &follow.subject,
            whereabouts,
            edits: &follow.edits,
        }
    }
}
