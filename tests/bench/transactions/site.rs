//! Where a case is measured: servers, streams, hosts and a stock, all of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::case::{Case, Handler};
use crate::order::{Order, sku_name};
use crate::shared;
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, eventually, modules};

pub const STREAM: &str = "ORDERS";
pub const SUBJECT: &str = "orders.created";
/// What there is of each sku at first: more than all orders want.
pub const STOCK: u64 = 1_000_000_000;
/// Skus that are put at a time.
const AT_ONCE: usize = 256;
/// How long to wait for a host's answer.
const ANSWER: Duration = Duration::from_secs(2);
/// A handler or a relay that moves nothing for this time hangs.
const STANDSTILL: Duration = Duration::from_secs(90);

pub struct Site<'a> {
    pub case: &'a Case,
    pub client: Client,
    pub js: jetstream::Context,
    /// Orders that are in the stream.
    pub published: u64,
    hosts: Vec<Host>,
    servers: Vec<NatsServer>,
    _dir: TempDir,
}

/// What the hosts report of themselves, in all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said {
    /// Runs whose reads had changed when they wanted to join.
    pub conflicts: u64,
    /// Appends that the server refused.
    pub refused: u64,
    pub retried: u64,
}

/// What a consumer has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub pending: u64,
    pub unacked: u64,
}

impl Left {
    pub fn all(self) -> u64 {
        self.pending + self.unacked
    }
}

impl<'a> Site<'a> {
    /// Ready for orders.
    ///
    /// # Errors
    /// When the machine cannot have it, with the reason.
    pub async fn open(case: &'a Case) -> Result<Self, String> {
        let servers = servers(case.replicas).await;
        // The client drops what is not read; a read of a stream may be quicker than its reader.
        let options = ConnectOptions::new().subscription_capacity(64 * 1024);
        let client = servers[0].client_with(options).await;
        let js = jetstream::new(client.clone());
        ready(&client, case.replicas).await?;
        let dir = TempDir::with_prefix("jetmesh-bench-").expect("a temporary folder");
        let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
        let mut hosts = Vec::new();
        for _ in 0..case.hosts {
            hosts.push(host(case, &urls.join(","), dir.path()).await);
        }
        let site = Self {
            case,
            client,
            js,
            published: 0,
            hosts,
            servers,
            _dir: dir,
        };
        if case.handlers.iter().any(|handler| handler.name == "inventory") {
            site.stock().await;
        }
        Ok(site)
    }

    /// Puts every sku into the bucket, as a KV client does.
    async fn stock(&self) {
        let put = |sku| async move {
            let subject = format!("$KV.inventory.stock.{}", sku_name(sku));
            let ack = self.js.publish(subject, STOCK.to_string().into()).await;
            ack.expect("connected").await.expect("the bucket takes it");
        };
        let all = futures_util::stream::iter(0..self.case.keys).map(put);
        all.buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    pub fn server_version(&self) -> String {
        self.client.server_info().version
    }

    /// Publishes this number of orders as fast as the stream takes them.
    pub async fn publish(&mut self, count: u64) {
        let (first, keys) = (self.published, self.case.keys);
        self.published += count;
        let body = |number| Order::new(number, keys).text();
        shared::publish(&self.client, &self.js, SUBJECT, first..self.published, body).await;
    }

    /// Processor time that hosts and servers have used.
    pub fn cpu(&self) -> (Duration, Duration) {
        let hosts = self.hosts.iter().map(|host| shared::cpu(host.pid())).sum();
        let servers = self.servers.iter().map(|server| shared::cpu(server.pid())).sum();
        (hosts, servers)
    }

    pub async fn left(&self, stream: &str, consumer: &str) -> Left {
        let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}");
        let answer = self
            .client
            .request(subject, "".into())
            .await
            .expect("JetStream answers");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JetStream answers in JSON");
        let count = |name: &str| answer[name].as_u64().unwrap_or_else(|| panic!("{consumer}: {answer}"));
        Left {
            pending: count("num_pending"),
            unacked: count("num_ack_pending"),
        }
    }

    /// Orders that each handler has not answered: the least and the most of them.
    pub async fn orders_left(&self) -> (u64, u64) {
        let (mut least, mut most) = (u64::MAX, 0);
        for handler in self.case.handlers {
            let left = self.left(STREAM, handler.name).await.all();
            (least, most) = (least.min(left), most.max(left));
        }
        (least, most)
    }

    /// Messages of consequences that the relays have not published.
    pub async fn relays_left(&self) -> Left {
        let mut sum = Left { pending: 0, unacked: 0 };
        for handler in self.case.handlers {
            let left = self.left(&format!("KV_{}", handler.ledger()), "mesh-relay").await;
            sum.pending += left.pending;
            sum.unacked += left.unacked;
        }
        sum
    }

    /// Waits until every order is answered.
    pub async fn decided(&self) {
        self.none_left("the handlers", async || (self.orders_left().await.1, 0))
            .await;
    }

    /// Waits until every order is answered and everything that follows from it is published.
    pub async fn drained(&self) {
        self.decided().await;
        let emitted = async || {
            let left = self.relays_left().await.all();
            // One message holds many events, and is answered as a whole.
            let mut stored = 0;
            for handler in self.case.handlers {
                let stream = self.js.get_stream(handler.target).await.expect("the stream is there");
                stored += stream.cached_info().state.messages;
            }
            (left, stored)
        };
        self.none_left("the relay", emitted).await;
    }

    /// Waits until the first number is 0, for as long as either changes.
    async fn none_left(&self, who: &str, mut look: impl AsyncFnMut() -> (u64, u64)) {
        loop {
            let before = look().await;
            if before.0 == 0 {
                return;
            }
            let what = format!("{who} to go on with {before:?}");
            let moved = eventually(&what, STANDSTILL, async || {
                let now = look().await;
                (now != before).then_some(now)
            });
            if moved.await.0 == 0 {
                return;
            }
        }
    }

    pub async fn said(&self) -> Said {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.expect("connected");
        let asked = self
            .client
            .publish_with_reply("$SRV.STATS.jetmesh", inbox, "".into())
            .await;
        asked.expect("connected");
        let mut said = Said::default();
        for _ in 0..self.case.hosts {
            let answer = timeout(ANSWER, answers.next()).await.expect("each host answers");
            let answer = answer.expect("connected");
            let answer: Value = serde_json::from_slice(&answer.payload).expect("hosts answer in JSON");
            for endpoint in answer["endpoints"].as_array().expect("a host has handlers") {
                let count = |name: &str| {
                    endpoint["data"][name]
                        .as_u64()
                        .unwrap_or_else(|| panic!("{name}: {answer}"))
                };
                said.conflicts += count("conflicts");
                // No two handlers of a case share a ledger, which is what this is counted by.
                said.refused += count("refused_commits");
                said.retried += count("retried");
            }
        }
        said
    }
}

/// Starts a host with the logging that it has when nothing is said, and waits until it serves.
async fn host(case: &Case, urls: &str, dir: &Path) -> Host {
    let replicas = case.replicas;
    let mut config = format!("replicas = {replicas}\n\n[nats]\nurl = \"{urls}\"\n");
    let targets = case.handlers.iter().map(|handler| (handler.target, handler.emits));
    for (name, subject) in targets.chain([(STREAM, SUBJECT)]) {
        config += &format!("\n[streams.{name}]\nsubjects = [\"{subject}\"]\nreplicas = {replicas}\n");
    }
    for handler in case.handlers {
        config += &section(handler, case.in_flight);
    }
    let host = Host::start(&config, dir, &[]);
    for handler in case.handlers {
        let name = format!("handler={} ", handler.name);
        host.wait_for_line(|line| line.contains("serving") && line.contains(&name), SOON)
            .await;
    }
    host
}

/// All that is not said is as it is by default.
fn section(handler: &Handler, in_flight: usize) -> String {
    let Handler {
        name, bucket, emits, ..
    } = handler;
    let module = modules::handler(name);
    let bucket = bucket
        .map(|bucket| format!("bucket = \"{bucket}\"\n"))
        .unwrap_or_default();
    let (concurrency, pending) = (in_flight.min(16), in_flight.max(1000));
    format!(
        "\n[handlers.{name}]\nmodule = {module:?}\nstream = \"{STREAM}\"\nsubjects = [\"{SUBJECT}\"]\nstart = \"all\"\n\
         publish = [\"{emits}\"]\n{bucket}concurrency = {concurrency}\nin_flight = {in_flight}\n\
         ack_pending_max = {pending}\n"
    )
}

async fn servers(count: usize) -> Vec<NatsServer> {
    if count == 1 {
        return vec![NatsServer::start().await];
    }
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    // Held together, so that they differ.
    let listeners: Vec<TcpListener> = (0..count).map(|_| free()).collect();
    let addrs = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("it is bound"));
    let addrs: Vec<_> = addrs.collect();
    drop(listeners);
    let routes: Vec<String> = addrs.iter().map(|addr| format!("\"nats://{addr}\"")).collect();
    let routes = routes.join(", ");
    let mut servers = Vec::new();
    for (i, addr) in addrs.iter().enumerate() {
        let config = format!("server_name: s{i}\ncluster {{ name: bench, listen: \"{addr}\", routes: [{routes}] }}\n");
        let options = Options {
            config,
            ..Options::default()
        };
        servers.push(NatsServer::start_with(&options).await);
    }
    servers
}

/// Waits until JetStream makes streams with this number of replicas.
async fn ready(client: &Client, replicas: usize) -> Result<(), String> {
    let js = jetstream::new(client.clone());
    let made = eventually("JetStream to make a stream", SOON * 2, async || {
        let config = stream::Config {
            name: "READY".to_owned(),
            num_replicas: replicas,
            ..Default::default()
        };
        js.create_stream(config).await.ok()
    });
    let made = timeout(SOON, made).await;
    made.map_err(|_| format!("JetStream makes no stream of {replicas} replicas"))?;
    js.delete_stream("READY").await.map_err(|error| error.to_string())?;
    Ok(())
}
