//! Whether what a host publishes arrives: over permissions, leafnodes and imports.

use std::collections::BTreeMap;

use crate::broker::kv::{kv_stream, state_subjects};
use crate::broker::provision::{ATTEMPTS, DELAYED, MESH_BUCKET, REPLAY};
use crate::broker::{self, Connection, Error};
use crate::event::header_map;
use crate::plan::Plan;

/// Whether what is published reaches the mesh's streams, where JetStream is in another domain or account. `None`: it does,
/// or they are to be made.
pub async fn apart(connection: &Connection, plan: &Plan) -> Result<Option<String>, broker::Error> {
    if !connection.is_elsewhere() {
        return Ok(None);
    }
    let mut ledgers = plan.ledgers();
    ledgers.push(MESH_BUCKET);
    let mut lost = Vec::new();
    for bucket in ledgers {
        if connection.stream(&kv_stream(bucket)).await?.is_none() {
            continue;
        }
        for subject in [
            format!("$KV.{bucket}.check"),
            state_subjects(bucket).replace('>', "check"),
        ] {
            let tried = tried(connection, &subject).await;
            if let Err(Error::NoResponders { .. } | Error::Denied { .. } | Error::Timeout { .. }) = tried {
                lost.push(subject.replace("check", ">"));
            }
        }
    }
    Ok((!lost.is_empty()).then(|| {
        format!(
            "the streams behind {} are there, but what is published on {} does not reach them from here: import these \
             subjects, and $MESH.>, $JS.ACK.> and those of your streams, under their own names; or connect to a server \
             of that domain or account",
            connection.api_prefix(),
            lost.join(", ")
        )
    }))
}

/// Whether the user may publish to a subject, as far as the server says. Nothing is changed.
pub async fn may_publish(connection: &Connection, subject: &str) -> bool {
    !matches!(tried(connection, subject).await, Err(Error::Denied { .. }))
}

/// A stream that is nowhere: what expects it is refused, once it has come as far as a stream.
const NOWHERE: &str = "jetmesh-check";

/// Publishes what is refused wherever it comes: it expects that stream, and is no JSON for a call of the API.
async fn tried(connection: &Connection, subject: &str) -> Result<(), Error> {
    let expects = header_map(&vec![("Nats-Expected-Stream".to_owned(), NOWHERE.to_owned())]);
    connection.request(subject, expects.ok(), "{".into()).await.map(|_| ())
}

/// What the user may not publish, tried with requests that the server refuses for another reason: nothing is changed.
pub async fn denied(connection: &Connection, plan: &Plan) -> Result<Vec<String>, Error> {
    // Not those that people listen to: they would hear it. Each with the stream that takes it.
    let mut subjects: BTreeMap<String, Option<String>> = BTreeMap::from([
        ("$MESH.replay.check".to_owned(), Some(REPLAY.to_owned())),
        ("$MESH.delay.check".to_owned(), Some(DELAYED.to_owned())),
        ("$MESH.due.check".to_owned(), Some(DELAYED.to_owned())),
        (format!("$KV.{ATTEMPTS}.check"), Some(kv_stream(ATTEMPTS))),
    ]);
    let mut buckets = plan.ledgers();
    buckets.push(MESH_BUCKET);
    for bucket in buckets {
        subjects.insert(format!("$KV.{bucket}.check"), Some(kv_stream(bucket)));
        subjects.insert(state_subjects(bucket).replace('>', "check"), Some(kv_stream(bucket)));
    }
    let prefix = connection.api_prefix();
    let handler = plan.handlers.first();
    let consumer = handler.map_or_else(|| format!("{REPLAY}.check"), |h| format!("{}.{}", h.stream, h.consumer));
    for call in ["STREAM.MSG.GET", "STREAM.PURGE"] {
        subjects.insert(format!("{prefix}.{call}.{REPLAY}"), None);
    }
    for call in ["CONSUMER.CREATE", "CONSUMER.DELETE"] {
        subjects.insert(format!("{prefix}.{call}.{consumer}"), None);
    }
    let tries = futures_util::future::join_all(subjects.keys().map(|subject| tried(connection, subject))).await;
    let (mut denied, mut unanswered) = (Vec::new(), Vec::new());
    for ((subject, stream), tried) in subjects.iter().zip(tries) {
        match (tried, stream) {
            (Err(Error::Denied { .. }), _) => denied.push(subject.as_str()),
            // In another domain a server listens for all of `$KV.>`, and answers for the buckets that exist.
            (Err(Error::Timeout { .. }), Some(stream)) if connection.stream(stream).await?.is_none() => {}
            (Err(Error::Timeout { .. }), _) => unanswered.push(subject.as_str()),
            _ => {}
        }
    }
    let mut problems = Vec::new();
    if !denied.is_empty() {
        problems.push(format!(
            "this user may not publish on {}: docs/nats.md lists the permissions that a host needs",
            denied.join(", ")
        ));
    }
    if !unanswered.is_empty() {
        problems.push(format!(
            "no stream answers what is published on {} within nats.timeout: a server between this one and JetStream may drop it \
             (permissions of a leafnode connection, or of an import), or they are slow",
            unanswered.join(", ")
        ));
    }
    Ok(problems)
}
