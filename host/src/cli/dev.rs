//! `jetmesh dev`: a whole mesh on this machine, with a nats-server of its own, to try things out.

mod hints;
mod server;

use std::time::Duration;

use async_nats::HeaderMap;

use super::args::Dev;
use super::{Args, Error, OK, UNFINISHED, run::on_signal, run::start_log, text};
use crate::app;
use crate::broker::consumer::{ConsumerInfo, META_HANDLER};
use crate::broker::kv::key_subject;
use crate::broker::kv::kv_stream;
use crate::broker::{By, Connection};
use crate::plan::{Handler, Nats, Plan};
use crate::process::drain::Drain;
use server::Server;

/// How long the server may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Orders that show what happens: two that succeed, one that cannot be done.
const SAMPLES: [&str; 3] = [
    r#"{"order_id":"o-1","user_id":"u-7","locale":"en","lines":[{"sku":"sku-1","qty":2,"price_cents":1250}],"total_cents":2500}"#,
    r#"{"order_id":"o-2","user_id":"u-8","locale":"zh","lines":[{"sku":"sku-2","qty":1,"price_cents":900}],"total_cents":900}"#,
    r#"{"order_id":"o-3","user_id":"u-7","locale":"en","lines":[{"sku":"sku-3","qty":99}]}"#,
];
const STOCK: [(&str, &str); 3] = [("stock.sku-1", "100"), ("stock.sku-2", "50"), ("stock.sku-3", "5")];

/// The subject of the sample orders.
const ORDERS: &str = "orders.created";

pub async fn run(args: &Args, dev: &Dev) -> Result<u8, Error> {
    let mut plan = args.load()?.plan;
    if args.log.is_none() {
        "info,jetmesh=debug,guest=debug".clone_into(&mut plan.log.filter);
    }
    start_log(&plan)?;
    let drain = Drain::default();
    on_signal(&drain)?;
    let Some(server) = Server::start(dev, &drain).await? else {
        return Ok(OK);
    };
    let configured = std::mem::take(&mut plan.nats.url);
    on_this_machine(&mut plan, &server.url);
    println!(
        "nats-server at {} (data in {}, kept between starts)",
        plan.nats.url,
        server.dir.display()
    );
    if let Some(hint) = hints::elsewhere(&plan.nats.url, &configured) {
        println!("{hint}");
    }
    let Some(connection) = app::reach(&plan, &drain).await? else {
        return Ok(OK);
    };
    for handler in &dev.reset {
        // What it is about is made, where it is missing.
        app::make(&connection, &plan).await?;
        super::reset::before_start(&connection, &plan, handler).await?;
    }
    let mut wanted = None;
    if !dev.no_samples {
        app::make(&connection, &plan).await?;
        seed(&connection).await?;
        wanted = samples(&connection).await?;
    }
    if wanted == Some(Samples::There) {
        println!("the sample orders are there from an earlier start");
    }
    print!("{}", hints::text(&plan, args.config_file().as_deref()));
    // What is above goes to standard output, the log to standard error: keep them in order.
    text::flush();
    if wanted == Some(Samples::Wanted) {
        let (client, handlers, end) = (connection.clone(), plan.handlers.clone(), drain.clone());
        drain.spawn_until("samples", move || {
            publish(client.clone(), handlers.clone(), end.clone())
        });
    }
    let clean = app::run(plan, drain).await?;
    drop(server);
    Ok(if clean { OK } else { UNFINISHED })
}

/// The plan for a server of one's own: one replica of everything, and nothing that belongs to another server.
fn on_this_machine(plan: &mut Plan, url: &str) {
    plan.nats = Nats {
        url: url.to_owned(),
        js_event_prefix: "$JS.EVENT".to_owned(),
        timeout: plan.nats.timeout,
        wait: Some(START_LIMIT),
        connections: plan.nats.connections,
        ..Nats::default()
    };
    plan.replicas = 1;
    for stream in &mut plan.streams {
        stream.replicas = 1;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Samples {
    Wanted,
    There,
}

/// Whether the sample orders are to be published: once, into a stream that has held nothing before. At every start, they
/// would be further events with the same order ids. `None`: no stream takes them.
async fn samples(connection: &Connection) -> Result<Option<Samples>, Error> {
    let Some(stream) = connection.stream_of(ORDERS).await? else {
        return Ok(None);
    };
    let info = connection.stream(&stream).await?;
    Ok(info.map(|info| match info.state.last_seq {
        0 => Samples::Wanted,
        _ => Samples::There,
    }))
}

/// Stock for the sample orders, where there is none yet.
async fn seed(connection: &Connection) -> Result<(), Error> {
    if connection.stream(&kv_stream("inventory")).await?.is_none() {
        return Ok(());
    }
    for (key, value) in STOCK {
        let subject = key_subject("inventory", key);
        if connection
            .stored(&kv_stream("inventory"), By::Last(&subject))
            .await?
            .is_none()
        {
            connection.publish(&subject, HeaderMap::new(), value.into()).await?;
        }
    }
    Ok(())
}

/// Publishes the sample orders once every handler has its consumer: a handler that says nothing of its start refuses a
/// stream that holds messages before.
async fn publish(connection: Connection, handlers: Vec<Handler>, drain: Drain) {
    for handler in &handlers {
        while !matches!(connection.consumer(&handler.stream, &handler.consumer).await, Ok(Some(c)) if is_of(&c, handler))
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    for order in SAMPLES {
        if drain.has_begun() {
            return;
        }
        if let Err(error) = connection.publish(ORDERS, HeaderMap::new(), order.into()).await {
            return tracing::warn!(%error, "a sample order could not be published");
        }
    }
}

fn is_of(consumer: &ConsumerInfo, handler: &Handler) -> bool {
    consumer.metadata(META_HANDLER) == Some(&handler.name)
}
