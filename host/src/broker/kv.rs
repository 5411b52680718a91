//! How a KV bucket and its ledger are named in JetStream.

/// The stream of a KV bucket.
pub fn kv_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// The extra subjects of a ledger's bucket.
pub fn state_subjects(bucket: &str) -> String {
    format!("$MESH.state.{bucket}.>")
}

/// The subject of a key's value.
pub fn key_subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// A deleted, purged or expired key (ADR-8, ADR-43).
pub fn is_tombstone(raw_headers: &[u8]) -> bool {
    let text = String::from_utf8_lossy(raw_headers).to_ascii_lowercase();
    text.lines()
        .any(|line| line.starts_with("kv-operation:") || line.starts_with("nats-marker-reason:"))
}
