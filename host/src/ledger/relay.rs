//! Carries the consequences of a ledger out, in its order, each once. One host of the mesh does it for a bucket at a
//! time: the server pins a consumer to one client and moves the pin when that one goes silent.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;

use super::carry::Relay;
use super::entry::{PART, Subjects};
use crate::broker::connection::redial_delay;
use crate::broker::consumer::nanos;
use crate::broker::provision::kv_stream;
use crate::broker::{self, Error};
use crate::message::DeliveryInfo;
use crate::plan::Nats;

/// Durable name of the relay's consumer on a bucket's stream.
pub const CONSUMER: &str = "mesh-relay";
const GROUP: &str = "relay";
/// How long the server waits for a silent relay before it takes another.
const PIN_TTL: Duration = Duration::from_secs(5);
const BATCH: usize = 100;

/// The relay of one bucket, until the drain.
pub async fn run(bucket: String, nats: Nats) {
    let mut attempt = 0;
    // Subjects that nobody took at the last try: a stream may be missing for a moment only.
    let mut refused = BTreeSet::new();
    loop {
        match serve(&bucket, &nats, &mut refused).await {
            Ok(()) => attempt = 0,
            Err(error) => {
                attempt += 1;
                if !error.passes() || attempt == 5 {
                    tracing::error!(bucket, %error, "the relay cannot work");
                }
            }
        }
        tokio::time::sleep(redial_delay(attempt)).await;
    }
}

async fn serve(bucket: &str, nats: &Nats, refused: &mut BTreeSet<String>) -> Result<(), Error> {
    let connection = broker::open(nats, &format!("jetmesh relay {bucket}")).await?;
    let stream = kv_stream(bucket);
    let subjects = Subjects::new(bucket);
    let config = json!({
        "durable_name": CONSUMER,
        "description": "carries the consequences of the ledger out",
        "ack_policy": "all",
        "ack_wait": nanos(Duration::from_secs(5)),
        "max_ack_pending": 10_000,
        "filter_subject": subjects.outs(),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "priority_policy": "pinned_client",
        "priority_groups": [GROUP],
        "priority_timeout": nanos(PIN_TTL),
    });
    connection.put_consumer(&stream, &config, "").await?;
    let gone = || Error::Gone {
        what: format!("the relay of {bucket}"),
    };
    let inbox = connection.client.new_inbox();
    let mut messages = connection.client.subscribe(inbox.clone()).await.map_err(|_| gone())?;
    let next = format!("{}.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}", connection.api_prefix());
    let mut relay = Relay::new(nats, connection.clone(), stream, Subjects::new(bucket), refused);
    let mut pin: Option<String> = None;
    loop {
        let mut ask = json!({ "batch": BATCH, "expires": nanos(PIN_TTL - Duration::from_secs(2)), "group": GROUP });
        if let Some(id) = &pin {
            ask["id"] = json!(id);
        }
        // Nothing of this request is fetched before.
        let fetched = tokio::time::Instant::now();
        connection
            .client
            .publish_with_reply(next.clone(), inbox.clone(), ask.to_string().into())
            .await
            .map_err(|_| gone())?;
        let mut received = 0;
        while received < BATCH {
            let message = tokio::select! {
                message = tokio::time::timeout(PIN_TTL * 2, messages.next()) => match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return Err(gone()),
                    // With a lost request goes the certainty when the messages behind it were fetched.
                    Err(_) => return Err(gone()),
                },
                () = connection.closed() => return Err(gone()),
            };
            if let Some(status) = message.status.filter(|_| message.reply.is_none()) {
                match status.as_u16() {
                    // None left, or time over.
                    404 | 408 => break,
                    // The pin is another's now.
                    423 => {
                        pin = None;
                        break;
                    }
                    // The consumer is gone, or its leader: it is looked for, and made again, at the next start.
                    _ => {
                        return Err(Error::Missing {
                            what: format!("consumer {CONSUMER} of bucket {bucket}"),
                        });
                    }
                }
            }
            received += 1;
            let id = message
                .headers
                .as_ref()
                .and_then(|h| h.get("Nats-Pin-Id"))
                .map(|v| v.as_str().to_owned());
            if pin.is_none() || (id.is_some() && id != pin) {
                pin = id;
                // An ack here speaks for everything before as well, so what another relay, or an earlier life of this
                // one, has fetched and not confirmed is carried out first.
                if !relay.recover(&message).await? {
                    return Ok(());
                }
            }
            let part = message.headers.as_ref().is_some_and(|h| h.get(PART).is_some());
            let sequence = message
                .reply
                .as_deref()
                .and_then(DeliveryInfo::parse)
                .map_or(0, |i| i.stream_sequence);
            if !relay
                .carry(&message.subject, sequence, part, &message.payload, fetched)
                .await?
            {
                // Not yet: what comes after must wait as well.
                return Ok(());
            }
            let reply = message.reply.clone().ok_or_else(gone)?;
            connection
                .client
                .publish(reply, "+ACK".into())
                .await
                .map_err(|_| gone())?;
        }
    }
}
