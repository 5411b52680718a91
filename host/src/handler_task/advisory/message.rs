//! An advisory of the server, as it comes.

use async_nats::Subject;
use serde::Deserialize;

/// `io.nats.jetstream.advisory.v1.max_deliver` and `….terminated`
/// (<https://github.com/nats-io/jsm.go/tree/main/schemas/jetstream/advisory/v1>).
#[derive(Debug, Deserialize)]
pub struct Advisory {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) timestamp: String,
    pub(super) stream: String,
    pub(super) consumer: String,
    pub(super) stream_seq: u64,
    #[serde(default)]
    pub(super) deliveries: u64,
    #[serde(default)]
    pub(super) reason: String,
}

/// An advisory on its way to its handler, and where it is answered.
pub type Routed = (Advisory, Subject);
