//! The messages of which a batch is made. Pure.

use bytes::Bytes;

/// What a message of a batch expects of the stream, checked by the server when the batch commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    Nothing,
    /// The last sequence on the message's own subject; 0: none.
    Last(u64),
    /// The last sequence on another subject.
    LastOf {
        subject: String,
        sequence: u64,
    },
}

/// One message of a batch.
#[derive(Debug, Clone)]
pub struct Record {
    pub subject: String,
    pub expect: Expect,
    /// A part of a payload, or a KV tombstone.
    pub mark: RecordMark,
    pub body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordMark {
    Plain,
    Part,
    /// A deleted key, as KV clients write it.
    Tombstone,
}

pub(in crate::ledger) fn json(value: &impl serde::Serialize) -> Bytes {
    // Maps with text keys and plain fields: nothing here can fail to be written.
    serde_json::to_vec(value)
        .expect("a record of the ledger serialises")
        .into()
}
