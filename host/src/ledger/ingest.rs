//! Many messages for one stream, confirmed once: the server's fast ingest (ADR-50, since nats-server 2.14, for streams
//! with `allow_batched`). Unlike an atomic batch, each message is stored as it comes, and a repeated `Nats-Msg-Id` is left
//! out without a word. Pure.

use serde::Deserialize;

use crate::broker::Error;
use crate::broker::connection::{PubAck, pub_ack};

/// The server says how far it is after so many messages at most; it makes 500 of it.
const FLOW: u16 = u16::MAX;

/// Where the answer to message `sequence` (from 1) of a batch of `count` goes, which also says what that message is:
/// `<prefix>.<batch>.<flow>.<gap>.<sequence>.<operation>.$FI`. A batch of which a message is missing ends there.
pub fn reply(prefix: &str, batch: &str, sequence: usize, count: usize) -> String {
    let operation = match sequence {
        1 => 0,
        _ if sequence < count => 1,
        _ => 2,
    };
    format!("{prefix}.{batch}.{FLOW}.fail.{sequence}.{operation}.$FI")
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: Option<String>,
    count: Option<usize>,
}

/// What the server says of a batch of `count` messages for `what`. `None`: it goes on. An error: some of it may be stored,
/// and the rest will not be.
pub fn answer(what: &str, count: usize, payload: &[u8]) -> Option<Result<PubAck, Error>> {
    let broken = |why: String| {
        let what = what.to_owned();
        Some(Err(Error::Answer { what, why }))
    };
    let said: Said = match serde_json::from_slice(payload) {
        Ok(said) => said,
        Err(error) => return broken(error.to_string()),
    };
    match (said.kind.as_deref(), said.count) {
        (Some("ack"), _) => None,
        (Some(kind), _) => broken(format!("{kind} in a batch: {}", String::from_utf8_lossy(payload))),
        (None, Some(stored)) if stored < count => broken(format!("{stored} messages of {count} are stored")),
        (None, Some(_)) => Some(pub_ack(what, payload)),
        // An error, or the confirmation of a stream that takes it for a single message.
        (None, None) => match pub_ack(what, payload) {
            Ok(_) => broken("the stream takes no batches".to_owned()),
            Err(error) => Some(Err(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_stored_only_if_all_of_it_is() {
        let stored = |text: &str| answer("points.added", 3, text.as_bytes()).map(|said| said.map(|ack| ack.seq).ok());
        assert_eq!(stored(r#"{"type":"ack","seq":0,"msgs":500}"#), None);
        assert_eq!(stored(r#"{"stream":"S","seq":9,"batch":"b","count":3}"#), Some(Some(9)));
        for broken in [
            r#"{"stream":"S","seq":8,"batch":"b","count":2}"#,
            r#"{"stream":"S","seq":8}"#,
            r#"{"type":"gap","last_seq":2,"seq":3}"#,
            r#"{"type":"err","seq":2,"error":{"code":400,"err_code":10054,"description":"too large"}}"#,
            r#"{"error":{"code":400,"err_code":10205,"description":"batch publish is disabled"},"stream":"S","seq":0}"#,
            "+OK",
        ] {
            assert_eq!(stored(broken), Some(None), "{broken}");
        }
    }

    #[test]
    fn the_first_message_opens_a_batch_and_the_last_one_commits_it() {
        let replies = [1, 2, 3].map(|sequence| reply("in.7", "b", sequence, 3));
        let expected = ["1.0", "2.1", "3.2"].map(|end| format!("in.7.b.65535.fail.{end}.$FI"));
        assert_eq!(replies, expected);
    }
}
