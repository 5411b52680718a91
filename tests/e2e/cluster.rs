//! Three servers that are one, and a mesh whose streams all three of them store.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use async_nats::jetstream::stream;
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::support::server::Options;
use crate::support::{NatsServer, eventually};

/// The servers besides the first one, which is the mesh's.
pub struct Cluster {
    others: Vec<NatsServer>,
    /// Of all three, for hosts.
    pub urls: String,
}

/// The mesh's client and its hosts go to another server when theirs is lost. The streams of orders and events are there.
pub async fn mesh(config: Config) -> (Cluster, Mesh) {
    let mut others = three().await;
    let urls: Vec<String> = others.iter().map(NatsServer::url).collect();
    let first = others.remove(0);
    let options = async_nats::ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(20));
    let client = options.connect(&urls).await.expect("the servers take connections");
    let mesh = Mesh::with_client(first, client, config.top("replicas = 3"));
    for (name, subjects) in [("ORDERS", "orders.>"), ("EVENTS", "events.>")] {
        eventually("the cluster to have a leader", PATIENT, async || {
            let config = stream::Config {
                name: name.to_owned(),
                subjects: vec![subjects.to_owned()],
                num_replicas: 3,
                ..Default::default()
            };
            mesh.js.create_stream(config).await.ok()
        })
        .await;
    }
    let urls = urls.join(",");
    (Cluster { others, urls }, mesh)
}

impl Cluster {
    /// The server with this number, from 0 on.
    pub fn server<'a>(&'a mut self, mesh: &'a mut Mesh, number: usize) -> &'a mut NatsServer {
        match number.checked_sub(1) {
            None => &mut mesh.server,
            Some(other) => &mut self.others[other],
        }
    }

    /// Kills the server that leads a stream; its number.
    pub async fn kill_leader(&mut self, mesh: &mut Mesh, stream: &str) -> usize {
        let leader = eventually("the stream to have a leader", PATIENT, async || {
            let info: Value = mesh
                .js
                .request(format!("STREAM.INFO.{stream}"), &json!({}))
                .await
                .ok()?;
            info["cluster"]["leader"].as_str().map(str::to_owned)
        })
        .await;
        let number = leader.trim_start_matches('n').parse().expect("it has a number");
        self.server(mesh, number).kill9();
        number
    }
}

async fn three() -> Vec<NatsServer> {
    let free: Vec<_> = (0..3)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free"))
        .collect();
    let ports: Vec<u16> = free
        .iter()
        .map(|one| one.local_addr().expect("it is bound").port())
        .collect();
    drop(free);
    let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let options = |number: usize| Options {
        config: format!(
            "server_name: n{number}\ncluster {{ name: three, listen: \"127.0.0.1:{}\", routes: {routes:?} }}",
            ports[number]
        ),
        ..Options::default()
    };
    let options = [options(0), options(1), options(2)];
    futures_util::future::join_all(options.iter().map(NatsServer::start_with)).await
}
