//! What hosts that serve a handler together must agree on.

use std::fmt::Debug;

use sha2::{Digest as _, Sha256};

use super::Handler;

impl Handler {
    /// What hosts that serve it together must agree on, by the key of the configuration, each value as six hex digits of its
    /// SHA-256: not where its module lies, nor how much of it a host runs at a
    /// time, nor its circuit, which is each host's own.
    pub fn settings_digests(&self) -> Vec<(&'static str, String)> {
        let Handler {
            name: _,
            module: _,
            stream,
            subjects,
            consumer,
            start: _,
            instance,
            concurrency: _,
            in_flight: _,
            timeout,
            memory_bytes_max: _,
            ack_wait,
            retry,
            circuit: _,
            redrive,
            deliver_slack,
            ack_pending_max,
            bucket,
            ledger,
            identity,
            identity_window,
            publish,
            settings,
        } = self;
        let all: [(&str, &dyn Debug); 18] = [
            ("stream", stream),
            ("subjects", subjects),
            ("consumer", consumer),
            ("instance", instance),
            ("timeout", timeout),
            ("ack_wait", ack_wait),
            ("max_attempts", &retry.max_attempts),
            ("backoff", &retry.backoff),
            ("backoff_max", &retry.backoff_max),
            ("redrive", redrive),
            ("deliver_slack", deliver_slack),
            ("ack_pending_max", ack_pending_max),
            ("bucket", bucket),
            ("ledger", ledger),
            ("identity", identity),
            ("identity_window", identity_window),
            ("publish", publish),
            ("settings", settings),
        ];
        let digest = |(key, value): &(&'static str, &dyn Debug)| (*key, hex(&format!("{value:?}"), 3));
        all.iter().map(digest).collect()
    }

    /// All of [`settings_digests`](Self::settings_digests), as one short name.
    pub fn digest(&self) -> String {
        hex(&format!("{} {:?}", self.name, self.settings_digests()), 6)
    }

    /// What the server may deliver at most: the ceiling above the host's own count.
    pub fn max_deliver(&self) -> i64 {
        i64::from(self.retry.max_attempts) + i64::from(self.deliver_slack)
    }
}

/// The first bytes of a text's SHA-256.
pub fn hex(text: &str, bytes: usize) -> String {
    let digest = Sha256::digest(text);
    digest.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}
