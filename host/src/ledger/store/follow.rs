//! Reads what other hosts append while they do: one message for each of their groups, values included, so that what is
//! known here stays true without a refusal. Only while there are other hosts.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::bucket::{Bucket, tell};
use super::read;
use crate::broker::connection::{redial_delay, token};
use crate::broker::consumer::{ConsumerInfo, nanos};
use crate::broker::pull::{Inlet, Pulled};
use crate::broker::{Connection, Error};
use crate::event::DeliveryInfo;
use crate::ledger::core::book::Read;

/// After this time without an entry of another host, following ends.
const QUIET: Duration = Duration::from_secs(60);
/// Entries that are asked for at a time.
const BATCH: usize = 16;
/// How long the server keeps the consumer after the last request.
const INACTIVE: Duration = Duration::from_secs(30);

/// Follows the other hosts of a bucket, whenever there are any.
pub async fn run(bucket: Arc<Bucket>) {
    loop {
        bucket.others.notified().await;
        let followed = async {
            let connection = bucket.connection().await?;
            let reader = bucket.reader().await?;
            let followed = follow(&bucket, &connection, &reader).await;
            followed.inspect_err(|error| bucket.look_elsewhere_upon(error, &reader))
        };
        if let Err(error) = followed.await {
            tracing::debug!(bucket = %bucket.name, %error, "other hosts are not followed for a moment");
            tokio::time::sleep(redial_delay(0)).await;
        }
    }
}

/// `Ok`: no other host has appended for a while. `reader`: a guarded connection.
async fn follow(bucket: &Bucket, connection: &Connection, reader: &Connection) -> Result<(), Error> {
    let from = bucket.book().head_sequence + 1;
    let config = json!({
        "name": format!("mesh-follow-{}", token()),
        "ack_policy": "none",
        "replay_policy": "instant",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": from,
        "filter_subject": bucket.subjects.entries(),
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": nanos(INACTIVE),
    });
    let consumer: ConsumerInfo = reader.put_consumer(&bucket.stream, &config, "create").await?;
    let mut inlet = Inlet::open(reader, &bucket.stream, &consumer.name).await?;
    loop {
        inlet.ask(BATCH).await?;
        let pulled = tokio::select! {
            pulled = tokio::time::timeout(QUIET, inlet.next()) => pulled,
            () = connection.closed() => return Err(Error::Gone { what: "following".to_owned() }),
            () = reader.closed() => return Err(Error::Gone { what: "following".to_owned() }),
        };
        let quiet = || bucket.quiet_for() > QUIET;
        let message = match pulled {
            Ok(Ok(Pulled::Message(message))) => message,
            Ok(Ok(Pulled::Ended | Pulled::Malformed(..))) if quiet() => break,
            Ok(Ok(Pulled::Ended | Pulled::Malformed(..))) => continue,
            Ok(Err(error)) => return Err(error),
            Err(_) => break,
        };
        let number = message.subject.rsplit('.').next().and_then(|n| n.parse().ok());
        // Its own entries come by as well.
        if number.is_none_or(|n: u64| n <= bucket.book().head.n) {
            if quiet() {
                break;
            }
            continue;
        }
        let Some(info) = message.reply.as_deref().and_then(DeliveryInfo::parse) else {
            continue;
        };
        let entry = read::entry(&message.subject, &message.payload)?;
        let read = bucket.apply(&entry, info.stream_sequence);
        match read {
            Read::Known => {}
            Read::Gap => bucket.sync(connection).await?,
            Read::Applied(fates) => {
                tell(fates);
                if entry.host != bucket.host {
                    bucket.heard();
                }
            }
        }
    }
    reader.remove_consumer(&bucket.stream, &consumer.name).await
}
