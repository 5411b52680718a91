//! What the mesh is compared with: a loop on the client library that pulls, perhaps reads the order, and acks. It pulls
//! as the mesh does, in one thread, with no more in flight than asked for.

use std::env;
use std::hint::black_box;
use std::process::Stdio;

use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;

use crate::measure::{CONSUMER, STREAM, SUBJECT};
use crate::order::Order;
use crate::{Running, Taker};

/// The first argument with which this program is the baseline.
const ROLE: &str = "baseline";

pub fn asked_for() -> bool {
    env::args().nth(1).as_deref() == Some(ROLE)
}

/// Starts the baseline as a child.
pub fn start(url: &str, taker: Taker, concurrency: usize) -> Running {
    let mut command = tokio::process::Command::new(env::current_exe().expect("this program has a path"));
    command
        .args([ROLE, url, taker.name(), &concurrency.to_string()])
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    Running::Baseline(command.spawn().expect("this program starts once more"))
}

/// Is the baseline, until standard input ends: also when its parent is killed.
pub async fn run() {
    let arguments: Vec<String> = env::args().skip(2).collect();
    let [url, taker, concurrency] = arguments.as_slice() else {
        panic!("three arguments, not {arguments:?}")
    };
    let concurrency: usize = concurrency.parse().expect("the concurrency is a number");
    let parent = async {
        let _ = tokio::io::stdin().read(&mut [0]).await;
    };
    tokio::select! {
        () = parent => {}
        () = take(url, taker == Taker::Native.name(), concurrency) => panic!("the connection is gone"),
    }
}

async fn take(url: &str, read: bool, room: usize) {
    let options = async_nats::ConnectOptions::new().subscription_capacity(64 * 1024);
    let client = options.connect(url).await.expect("the server takes connections");
    let config = consumer::pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        filter_subject: SUBJECT.to_owned(),
        max_ack_pending: 1000,
        ..Default::default()
    };
    let js = jetstream::new(client.clone());
    let made: Result<consumer::PullConsumer, _> = js.create_consumer_on_stream(config, STREAM).await;
    made.expect("the consumer can be made");

    let inbox = client.new_inbox();
    let mut messages = client.subscribe(inbox.clone()).await.expect("connected");
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}");
    let mut outstanding = 0;
    loop {
        let more = room - outstanding;
        if more > 0 && (outstanding == 0 || more * 2 >= room) {
            let request = format!(r#"{{"batch":{more},"expires":5000000000}}"#);
            client
                .publish_with_reply(next.clone(), inbox.clone(), request.into())
                .await
                .expect("connected");
            outstanding += more;
        }
        let Some(message) = messages.next().await else { return };
        let (None, Some(reply)) = (message.status, message.reply) else {
            // The end of a request, with how much of it was left.
            let left = message.headers.as_ref().and_then(|h| h.get("Nats-Pending-Messages"));
            let left = left.and_then(|v| v.as_str().parse::<usize>().ok());
            outstanding = left.map_or(0, |left| outstanding.saturating_sub(left));
            continue;
        };
        outstanding -= 1;
        if read {
            let order: Order = serde_json::from_slice(&message.payload).expect("the benchmark publishes orders");
            black_box(order);
        }
        client.publish(reply, "+ACK".into()).await.expect("connected");
    }
}
