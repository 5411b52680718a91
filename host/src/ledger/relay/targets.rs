//! The streams that emitted events go to, how long each knows an event again by its id, and what it means that one does
//! not take an event.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::PIN_TTL;
use super::blocked::{AGAIN, Manner};
use crate::broker::error::{Code, Remedy, remedy};
use crate::broker::{Connection, Error};
use crate::event::subject::subject_matches;

/// JetStream's default for a stream that sets none.
const WINDOW_USUAL: Duration = Duration::from_secs(120);

/// For how long after its fetch an event may still be published: well within the time in which its target recognises its id, if
/// another relay has published it meanwhile. While the pin lasts no other relay does, so it is at least that long: a request
/// may be open for most of it before a message comes.
pub fn patience(duplicate_window: Duration) -> Duration {
    (duplicate_window / 4).max(PIN_TTL)
}

/// What a relay knows of its targets, for as long as its connection lives.
#[derive(Default)]
pub struct Targets {
    known: Vec<Target>,
    /// When no stream was found for a subject. The next subjects are not looked up at once: the answer to publishing comes
    /// sooner.
    missed: Option<Instant>,
}

struct Target {
    stream: Arc<str>,
    subjects: Vec<String>,
    duplicate_window: Duration,
}

impl Targets {
    /// The stream that captures a subject, and the [`patience`] for its events; without one, the least patience. Asks the
    /// server once for each stream.
    pub async fn of(&mut self, connection: &Connection, subject: &str) -> Result<(Option<Arc<str>>, Duration), Error> {
        if let Some(found) = self.known(subject) {
            return Ok(found);
        }
        if self.missed.is_some_and(|missed| missed.elapsed() < AGAIN) {
            return Ok((None, PIN_TTL));
        }
        match find(connection, subject).await {
            Ok(Some(target)) => self.known.push(target),
            Ok(None) => self.missed = Some(Instant::now()),
            Err(error @ Error::Gone { .. }) => return Err(error),
            // The stream has no leader to ask; publishing will tell.
            Err(_) => self.missed = Some(Instant::now()),
        }
        Ok(self.known(subject).unwrap_or((None, PIN_TTL)))
    }

    fn known(&self, subject: &str) -> Option<(Option<Arc<str>>, Duration)> {
        let captures = |target: &&Target| target.subjects.iter().any(|pattern| subject_matches(pattern, subject));
        let target = self.known.iter().find(captures)?;
        Some((Some(Arc::clone(&target.stream)), patience(target.duplicate_window)))
    }

    /// What is known of a stream may be wrong now.
    pub fn forget(&mut self, stream: &str) {
        self.known.retain(|target| *target.stream != *stream);
    }
}

async fn find(connection: &Connection, subject: &str) -> Result<Option<Target>, Error> {
    let Some(stream) = connection.stream_of(subject).await? else {
        return Ok(None);
    };
    let info = connection.stream(&stream).await?;
    Ok(info.map(|info| Target {
        subjects: info.subjects(),
        duplicate_window: info.duplicate_window().unwrap_or(WINDOW_USUAL),
        stream: stream.into(),
    }))
}

/// What follows when a target has not taken something.
#[derive(Debug)]
pub enum Refusal {
    /// As it is it can never be taken, whatever becomes of the target: its size, its headers, its subject.
    Never(String),
    /// Nothing can be taken there for now: the whole stream.
    Target(Manner, String),
    /// This is not taken; others may be.
    This(String),
    /// It is not the target's fault.
    Broken(Error),
}

/// What came of publishing, as far as it was no success.
pub fn refusal(error: Error) -> Refusal {
    match error {
        Error::Api { code, text, .. } => {
            let why = format!("{text} ({})", code.0);
            match code {
                Code::STREAM_MESSAGE_EXCEEDS_MAXIMUM | Code::STREAM_HEADER_EXCEEDS_MAXIMUM => Refusal::Never(why),
                // A limit that is each subject's own.
                Code::STREAM_STORE_FAILED if text.contains("per subject") => Refusal::This(why),
                Code::STREAM_STORE_FAILED
                | Code::STREAM_SEALED
                | Code::STORAGE_RESOURCES_EXCEEDED
                | Code::MEMORY_RESOURCES_EXCEEDED
                | Code::ACCOUNT_RESOURCES_EXCEEDED => Refusal::Target(Manner::Refuses, why),
                code => match remedy(code) {
                    Remedy::Person | Remedy::LookAgain => Refusal::This(why),
                    Remedy::TryAgain => Refusal::Target(Manner::Silent, why),
                },
            }
        }
        // Without a leader for the moment, or not there: that is asked.
        Error::NoResponders { what } => Refusal::Target(Manner::Silent, format!("nothing listens on {what}")),
        Error::Denied { .. } => Refusal::This(error.to_string()),
        Error::Refused(why) => Refusal::Never(why),
        Error::Undecided { .. } => Refusal::This(error.to_string()),
        Error::Timeout { .. } | Error::Answer { .. } | Error::Missing { .. } => {
            Refusal::Target(Manner::Mute, error.to_string())
        }
        error @ (Error::Gone { .. }
        | Error::NotYet(_)
        | Error::Unauthorized { .. }
        | Error::Unreadable { .. }
        | Error::Connect { .. }
        | Error::Crowded { .. }
        | Error::Credentials { .. }
        | Error::OldServer { .. }
        | Error::NoApi { .. }
        | Error::NoJetStream) => Refusal::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_comes_within_a_quarter_of_its_targets_duplicate_window_or_while_the_pin_lasts() {
        for (window, limit) in [(120, 30), (3600, 900), (20, 5), (2, 5)] {
            assert_eq!(
                patience(Duration::from_secs(window)),
                Duration::from_secs(limit),
                "{window} s"
            );
        }
    }

    #[test]
    fn what_a_target_says_no_to_is_told_from_what_it_can_never_take_and_from_a_target_that_takes_nothing() {
        let api = |code, text: &str| {
            refusal(Error::Api {
                what: "ev.a".to_owned(),
                code: Code(code),
                text: text.to_owned(),
            })
        };
        let never = [(10054, "message size exceeds maximum allowed"), (10097, "header size")];
        for (code, text) in never {
            assert!(matches!(api(code, text), Refusal::Never(_)), "{code}");
        }
        for (code, text) in [
            (10077, "maximum messages exceeded"),
            (10109, "sealed"),
            (10047, "no room"),
        ] {
            assert!(matches!(api(code, text), Refusal::Target(Manner::Refuses, _)), "{code}");
        }
        for (code, text) in [(10077, "maximum messages per subject exceeded"), (10166, "no TTL")] {
            assert!(matches!(api(code, text), Refusal::This(_)), "{code}");
        }
        assert!(matches!(api(10008, "no leader"), Refusal::Target(Manner::Silent, _)));
        let mute = refusal(Error::Timeout {
            what: "ev.a".to_owned(),
        });
        assert!(matches!(mute, Refusal::Target(Manner::Mute, _)));
        let gone = refusal(Error::Gone {
            what: "ev.a".to_owned(),
        });
        assert!(matches!(gone, Refusal::Broken(_)));
    }
}
