//! What is found out about targets while the relay goes on.

use super::seen::Looked;
use crate::broker::Error;

/// What was found out about a subject, aside.
pub struct Asked {
    pub(super) subject: String,
    pub(super) answer: TargetAnswer,
}

pub enum TargetAnswer {
    /// Nothing listens for this target: the stream that captures the subject, if there is one.
    Stream(String, Result<Option<String>, Error>),
    /// What lies there.
    Seen(Result<Looked, Error>),
}
