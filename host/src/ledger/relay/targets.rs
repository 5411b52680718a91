//! The streams that emitted events go to, and how long each knows an event again by its id.

use std::time::Duration;

use super::PIN_TTL;
use crate::broker::error::{Code, Remedy, remedy};
use crate::broker::{Connection, Error};
use crate::effects::subject_matches;

/// What JetStream takes for a stream that says nothing.
const WINDOW_USUAL: Duration = Duration::from_secs(120);

/// How long after it was asked for an event may still be published: far enough within the time in which its target would
/// know it again, whoever else has published it meanwhile. While the pin lasts nobody else does, so it is no less than
/// that: a request may be open for most of it before anything comes.
pub fn patience(duplicate_window: Duration) -> Duration {
    (duplicate_window / 4).max(PIN_TTL)
}

/// What a relay knows of its targets, for as long as its connection lives.
#[derive(Default)]
pub struct Targets(Vec<Target>);

struct Target {
    subjects: Vec<String>,
    duplicate_window: Duration,
}

impl Targets {
    /// The [`patience`] for events on a subject. Asks the server once for each stream.
    pub async fn patience(&mut self, connection: &Connection, subject: &str) -> Result<Duration, Error> {
        let captures = |target: &&Target| target.subjects.iter().any(|pattern| subject_matches(pattern, subject));
        if let Some(target) = self.0.iter().find(captures) {
            return Ok(patience(target.duplicate_window));
        }
        let found = match connection.stream_of(subject).await? {
            Some(stream) => connection.stream(&stream).await?,
            None => None,
        };
        // Without a target there is nothing to be published twice.
        let window = found.map_or(WINDOW_USUAL, |info| {
            let duplicate_window = info.duplicate_window().unwrap_or(WINDOW_USUAL);
            self.0.push(Target {
                subjects: info.subjects(),
                duplicate_window,
            });
            duplicate_window
        });
        Ok(patience(window))
    }
}

/// Why an event cannot be delivered, from what came of publishing it; or the error, if that may pass.
pub async fn refusal(connection: &Connection, subject: &str, error: Error) -> Result<String, Error> {
    match error {
        // Nobody answers: the stream is without a leader for the moment, or there is none.
        Error::NoResponders { .. } => match connection.stream_of(subject).await? {
            Some(stream) => Err(Error::Timeout {
                what: format!("publishing on {subject} into {stream}"),
            }),
            None => Ok(format!("no stream captures {subject}")),
        },
        // The stream is full, or takes no such message: a person must act.
        Error::Api { code, text, .. }
            if remedy(code) == Remedy::Person
                && !matches!(code, Code::STREAM_STORE_FAILED | Code::STREAM_NOT_FOUND) =>
        {
            Ok(format!("{text} ({})", code.0))
        }
        error => Err(error),
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
}
