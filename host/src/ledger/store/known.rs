//! Whether the ledger with a handler's decisions exists: the handler's consumer names its incarnation.

use super::read;
use crate::broker::consumer::{ConsumerInfo, META_LEDGER};
use crate::broker::error::Code;
use crate::broker::kv::kv_stream;
use crate::broker::{Connection, Error};
use crate::ledger::core::entry::Subjects;
use crate::plan::{Handler, Plan};

/// Refuses a ledger that does not contain this handler's decisions: to continue would repeat them. `bound`: the incarnation
/// that its consumer names; `incarnation`: the current one, `None` if there is no bucket.
pub async fn check_ledger(
    connection: &Connection,
    handler: &Handler,
    bound: Option<&str>,
    incarnation: Option<&str>,
) -> Result<(), Error> {
    let Some(bound) = bound.filter(|bound| incarnation != Some(*bound)) else {
        return Ok(());
    };
    let (name, ledger) = (&handler.name, handler.ledger.as_deref().unwrap_or("?"));
    let why = match (read::bucket_of(connection, bound).await?, incarnation) {
        (Some(former), _) => format!(
            "handler {name}: its decisions are in the ledger of bucket {former}, and its configuration here has \
             bucket {ledger}. If other hosts still serve it from {former}, give this host the same configuration. If \
             its bucket was changed, stop the hosts, and keep its decisions with `jetmesh reset {name} \
             --keep-decided`, or reset it with `jetmesh reset {name}` (under `jetmesh dev`: `jetmesh dev --reset \
             {name}`)"
        ),
        (None, Some(_)) => format!(
            "handler {name}: the bucket {ledger} was purged, or deleted and created again, and the decisions of this \
             handler are lost: restore the bucket, or stop the hosts and reset the handler, so that it begins again \
             at its `start`, with `jetmesh reset {name}` (under `jetmesh dev`: `jetmesh dev --reset {name}`)"
        ),
        (None, None) => return Err(gone_bucket(ledger)),
    };
    Err(Error::Refused(why))
}

/// A bucket that has held decisions, and is not there any more.
pub fn gone_bucket(bucket: &str) -> Error {
    Error::Refused(format!(
        "bucket {bucket} does not exist any more, and its keys and the decisions of its handlers are lost with it. \
         No host creates it again: restore it from a backup (`nats stream restore`); then the hosts continue. Or \
         begin without it: stop the hosts, reset each of its handlers, so that it begins again at its `start`, with \
         `jetmesh reset HANDLER` (under `jetmesh dev`: `jetmesh dev --reset HANDLER`), and start a host, which \
         creates an empty bucket. The handlers then process their events a second time"
    ))
}

/// What is wrong with the ledger that a handler's consumer names, if something is.
pub async fn forgotten(
    connection: &Connection,
    handler: &Handler,
    consumer: &ConsumerInfo,
) -> Result<Option<String>, Error> {
    let (Some(bucket), Some(bound)) = (&handler.ledger, consumer.metadata(META_LEDGER)) else {
        return Ok(None);
    };
    let stream = kv_stream(bucket);
    let incarnation = match connection.stream(&stream).await? {
        // Without a head, a host would begin another one, under another name.
        Some(_) => {
            let head = read::head(connection, &stream, &Subjects::new(bucket)).await?;
            Some(head.map_or_else(String::new, |(head, _)| head.bucket))
        }
        None => None,
    };
    match check_ledger(connection, handler, Some(bound), incarnation.as_deref()).await {
        Err(Error::Refused(why)) => Ok(Some(why)),
        checked => checked.map(|()| None),
    }
}

/// The ledgers of a plan that are missing although handlers had decided events in them: a host does not create them.
pub async fn lost<'a>(connection: &Connection, plan: &'a Plan) -> Result<Vec<&'a str>, Error> {
    let mut lost = Vec::new();
    for bucket in plan.ledgers() {
        if connection.stream(&kv_stream(bucket)).await?.is_some() {
            continue;
        }
        for handler in plan.handlers.iter().filter(|h| h.ledger.as_deref() == Some(bucket)) {
            let bound = match connection.consumer(&handler.stream, &handler.consumer).await {
                Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
                found => found?,
            };
            // A ledger that is elsewhere is not lost.
            if let Some(bound) = bound.as_ref().and_then(|consumer| consumer.metadata(META_LEDGER))
                && read::bucket_of(connection, bound).await?.is_none()
            {
                lost.push(bucket);
                break;
            }
        }
    }
    Ok(lost)
}
