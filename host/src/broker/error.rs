//! What can go wrong between the mesh and NATS, and what follows from each answer of JetStream's.

pub use async_nats::jetstream::ErrorCode as Code;

use crate::plan::ConnectionsWanted;

/// The oldest server on which the tests have passed.
pub const SERVER_MIN: (i64, i64, i64) = (2, 12, 5);

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to NATS at {url}: {why}")]
    Connect { url: String, why: String },
    /// The server was reached, and has as many connections as it, or the account, may have.
    #[error(
        "NATS at {url} takes no further connection ({why}): raise `max_connections` of the server, or of the account. A host \
         with this configuration has {} connections, and up to {} at times",
        .wanted.usual, .wanted.most
    )]
    Crowded {
        url: String,
        why: String,
        wanted: ConnectionsWanted,
    },
    #[error("{what}: cannot be used: {why}")]
    Credentials { what: String, why: String },
    /// The server was reached and does not know this user.
    #[error("NATS at {url} refuses the credentials ({tried}): {why}")]
    Unauthorized { url: String, tried: String, why: String },
    #[error(
        "nats-server {found} is too old: {} or newer is needed",
        format!("{}.{}.{}", SERVER_MIN.0, SERVER_MIN.1, SERVER_MIN.2)
    )]
    OldServer { found: String },
    #[error("JetStream is not enabled on the server, or not for this account: start nats-server with --jetstream")]
    NoJetStream,
    /// What JetStream answered; the code is its `err_code`.
    #[error("{}", answered(what, *code, text))]
    Api { what: String, code: Code, text: String },
    /// The stream or consumer is missing, or has no leader for the moment.
    #[error("{what}: no stream or consumer listens there")]
    NoResponders { what: String },
    /// The JetStream API does not answer; `why` says what to change.
    #[error("no server answers the JetStream API on `{prefix}.>`: {why}")]
    NoApi { prefix: String, why: String },
    #[error("{what}: no answer within the time limit")]
    Timeout { what: String },
    /// The server does not allow it; `right` is `publish to` or `subscribe to`.
    #[error(
        "{what}: this user is not allowed to {right} `{subject}`: grant it (docs/nats.md lists what a host needs); \
         then the host continues"
    )]
    Denied {
        what: String,
        right: &'static str,
        subject: String,
    },
    #[error("{what}: another write there is not decided yet")]
    Undecided { what: String },
    #[error("{what}: the connection to NATS is gone")]
    Gone { what: String },
    /// A stream or consumer that was there.
    #[error("{what} is gone")]
    Missing { what: String },
    /// What another person has yet to do; the text says what.
    #[error("{0}")]
    NotYet(String),
    #[error("{what}: an answer that cannot be read: {why}")]
    Answer { what: String, why: String },
    /// Something of the mesh's own that is stored and cannot be read; `remedy` is a sentence of its own. What it stands for
    /// is not guessed.
    #[error("{what} cannot be read: {why}; {remedy}")]
    Unreadable { what: String, why: String, remedy: String },
    /// A state of NATS that a person must change; says how.
    #[error("{0}")]
    Refused(String),
}

/// What follows from an answer that is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Another writer was faster: read what is there now, then decide again.
    LookAgain,
    /// The same request may succeed later, without a change by a person.
    TryAgain,
    /// Nothing changes until a person acts.
    Person,
}

/// The one policy on JetStream's error codes. A code that is not named here is for a person.
///
/// The codes are the server's `err_code`
/// (<https://github.com/nats-io/nats-server/blob/main/server/errors.json>).
pub fn remedy(code: Code) -> Remedy {
    match code {
        // Something else is stored on that subject, or is about to be: the second code names a write that the leader has
        // accepted and not stored yet.
        Code::STREAM_WRONG_LAST_SEQUENCE | Code::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => Remedy::LookAgain,
        Code::CONSUMER_ALREADY_EXISTS | Code::STREAM_NAME_EXIST => Remedy::LookAgain,
        // A cluster without a leader, or a server that is starting or overloaded.
        Code::CLUSTER_INCOMPLETE
        | Code::CLUSTER_NO_PEERS
        | Code::CLUSTER_NOT_ACTIVE
        | Code::CLUSTER_NOT_AVAILABLE
        | Code::CLUSTER_NOT_LEADER
        | Code::CLUSTER_SERVER_MEMBER_CHANGE_INFLIGHT
        | Code::INSUFFICIENT_RESOURCES
        | Code::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY => Remedy::TryAgain,
        // A batch that did not arrive whole, and too many open batches on one stream.
        Code::ATOMIC_PUBLISH_INCOMPLETE_BATCH
        | Code::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT
        | Code::BATCH_PUBLISH_TOO_MANY_INFLIGHT => Remedy::TryAgain,
        _ => Remedy::Person,
    }
}

impl Error {
    /// JetStream's own error code, if it answered with one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub fn remedy(&self) -> Remedy {
        match self {
            Error::Connect { .. }
            | Error::Crowded { .. }
            | Error::Timeout { .. }
            | Error::Undecided { .. }
            | Error::Gone { .. }
            | Error::Missing { .. }
            | Error::NotYet(_)
            | Error::NoResponders { .. }
            | Error::NoApi { .. }
            | Error::Answer { .. } => Remedy::TryAgain,
            Error::Api { code, .. } => remedy(*code),
            Error::Credentials { .. }
            | Error::Unauthorized { .. }
            | Error::OldServer { .. }
            | Error::NoJetStream
            | Error::Denied { .. }
            | Error::Unreadable { .. }
            | Error::Refused(_) => Remedy::Person,
        }
    }

    /// The same, said of the stream that was written to: if it takes nothing, how a person mends that.
    pub fn in_stream(self, stream: &str) -> Error {
        let Error::Api { what, code, text } = self else {
            return self;
        };
        let mend = match code {
            Code::STREAM_SEALED => "it is sealed: delete it and create it again".to_owned(),
            Code::STREAM_STORE_FAILED => {
                format!("raise its limits, for instance with `nats stream edit {stream} --max-bytes=...`")
            }
            Code::STORAGE_RESOURCES_EXCEEDED | Code::MEMORY_RESOURCES_EXCEEDED => {
                "the server has no room: raise max_file_store, or free its disk".to_owned()
            }
            Code::ACCOUNT_RESOURCES_EXCEEDED => "raise max_file in the account's `jetstream` limits".to_owned(),
            _ => return Error::Api { what, code, text },
        };
        Error::Refused(format!("stream {stream} takes nothing: {text} ({}); {mend}", code.0))
    }

    /// Whether the same request may succeed later, without a change by a person.
    pub fn passes(&self) -> bool {
        self.remedy() == Remedy::TryAgain
    }
}

/// What JetStream answered, with what to do about a stream that is not there.
fn answered(what: &str, code: Code, text: &str) -> String {
    let Some(stream) = asked_of(what).filter(|_| code == Code::STREAM_NOT_FOUND) else {
        return format!("{what}: {text} ({})", code.0);
    };
    let how = match stream.starts_with("MESH_") || stream.starts_with("KV_") {
        true => "a host creates it when it starts".to_owned(),
        false => format!(
            "create it with `nats stream add {stream}`, or describe it under `[streams.{stream}]` of the configuration: then a \
             host creates it when it starts"
        ),
    };
    format!("there is no stream {stream} ({what}: {text}, {}): {how}", code.0)
}

/// The stream that a call of the JetStream API is about, if the call names one.
fn asked_of(what: &str) -> Option<&str> {
    let call = what.strip_prefix("JetStream ")?;
    let tokens: Vec<&str> = call.split('.').collect();
    match tokens[..] {
        ["STREAM", "MSG", _, stream, ..] | ["CONSUMER", "MSG", _, stream, ..] => Some(stream),
        ["STREAM" | "CONSUMER", _, stream, ..] => Some(stream),
        _ => None,
    }
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_not_there_is_named_with_what_to_do() {
        for call in [
            "STREAM.INFO.ORDERS",
            "STREAM.MSG.GET.ORDERS",
            "CONSUMER.INFO.ORDERS.inventory",
            "CONSUMER.MSG.NEXT.ORDERS.inventory",
        ] {
            let error = Error::Api {
                what: format!("JetStream {call}"),
                code: Code::STREAM_NOT_FOUND,
                text: "stream not found".to_owned(),
            };
            let said = error.to_string();
            assert!(said.starts_with("there is no stream ORDERS (JetStream "), "{said}");
            assert!(
                said.contains("`nats stream add ORDERS`") && said.contains("10059"),
                "{said}"
            );
        }
        let other = Error::Api {
            what: "JetStream STREAM.INFO.ORDERS".to_owned(),
            code: Code::CLUSTER_NOT_AVAILABLE,
            text: "JetStream system temporarily unavailable".to_owned(),
        };
        assert_eq!(
            other.to_string(),
            "JetStream STREAM.INFO.ORDERS: JetStream system temporarily unavailable (10008)"
        );
    }

    #[test]
    fn each_answer_of_the_server_has_one_remedy() {
        let rows = [
            (10071, Remedy::LookAgain),
            (10164, Remedy::LookAgain),
            (10148, Remedy::LookAgain),
            (10008, Remedy::TryAgain),
            (10009, Remedy::TryAgain),
            (10023, Remedy::TryAgain),
            (10163, Remedy::TryAgain),
            (10176, Remedy::TryAgain),
            (10210, Remedy::TryAgain),
            (10026, Remedy::Person),
            (10047, Remedy::Person),
            (10054, Remedy::Person),
            (10059, Remedy::Person),
            (10077, Remedy::Person),
            (10174, Remedy::Person),
            (99999, Remedy::Person),
        ];
        for (code, wanted) in rows {
            assert_eq!(remedy(async_nats::jetstream::ErrorCode(code)), wanted, "{code}");
        }
    }
}
