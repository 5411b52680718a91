//! `jetmesh dev`: a whole mesh on this machine, with a nats-server of its own, to try things out.

mod beside;
mod hints;
mod server;

use std::net::Ipv4Addr;
use std::time::Duration;

use async_nats::HeaderMap;

use super::args::Dev;
use super::{Args, Error, OK, UNFINISHED, run::on_signal, run::start_log, text};
use crate::admin;
use crate::app;
use crate::broker::kv::key_subject;
use crate::broker::kv::kv_stream;
use crate::broker::{By, Connection};
use crate::outbox;
use crate::plan::{Nats, Outbox, OutboxDatabase, Plan};
use crate::process::drain::Drain;
use beside::Beside;
use server::Server;

/// How long the server may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Stock for sample orders.
const STOCK: [(&str, &str); 3] = [("stock.sku-1", "100"), ("stock.sku-2", "50"), ("stock.sku-3", "5")];

pub async fn run(args: &Args, dev: &Dev) -> Result<u8, Error> {
    let mut plan = args.load()?.plan;
    if args.log.is_none() {
        "info,jetmesh=debug,guest=debug".clone_into(&mut plan.log.filter);
    }
    start_log(&plan)?;
    let drain = Drain::default();
    on_signal(&drain)?;
    // Any free port, unless one is named.
    if plan.admin.listen.is_none() {
        plan.nats.connections.add_admin();
    }
    let address = plan.admin.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    let mut admin = admin::bind(address, &plan.admin).map_err(Error::Failed)?;
    admin.publishes = true;
    let at = admin.listener.url();
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
    println!("console at {at}");
    println!(
        "metrics and health at {}: /metrics, /livez and /readyz",
        at.trim_end_matches('/')
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
    if !dev.no_samples {
        app::make(&connection, &plan).await?;
        seed(&connection).await?;
    }
    let in_files = |outbox: &&Outbox| matches!(outbox.database, OutboxDatabase::Sqlite(_));
    for outbox in plan.outboxes.iter().filter(in_files) {
        // The service may begin before the host has looked into its database.
        outbox::init(outbox).await?;
    }
    print!("{}", hints::text(&plan, args.config_file().as_deref()));
    // What is above goes to standard output, the log to standard error: keep them in order.
    text::flush();
    let beside = Beside::start(dev, &plan.nats.url)?;
    if let Some(beside) = &beside {
        beside.watch(&drain);
    }
    let clean = app::run(plan, Some(admin), drain).await?;
    drop(beside);
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
