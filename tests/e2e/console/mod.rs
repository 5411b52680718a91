//! The console: who is let in, what is answered to whom, and, in a real browser, what a viewer sees and does.

use std::net::SocketAddr;

use crate::mesh::{Config, Mesh, says};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, http};

mod acts;
mod exports;
mod mends;
mod paint;
mod pictures;
mod registry;
mod viewers;
pub mod wire;

/// A host with an admin address, where a viewer can rehearse on a module of their own.
const TAKES_MODULES: [(&str, &str); 2] = [
    ("JETMESH_ADMIN__LISTEN", "127.0.0.1:0"),
    ("JETMESH_ADMIN__UPLOADS", "true"),
];
const PASSWORD: &str = "hunter2-of-anna";

/// The admin address of a host.
async fn admin_address(host: &Host) -> SocketAddr {
    http::address(&host.wait_for_line(says(&["the admin address answers"]), SOON).await)
}

/// A server with users, of whom `few` may do little and `reader` only read, and a host with an admin address.
async fn with_users() -> (Mesh, Host, SocketAddr) {
    let few = "publish: [\"_INBOX.>\", \"$SRV.>\", \"$JS.API.STREAM.INFO.*\"], subscribe: [\"_INBOX.>\"]";
    let reads = "publish: { allow: \">\", deny: [\"$MESH.>\", \"$KV.>\"] }, subscribe: \">\"";
    let part = "publish: { allow: \">\", deny: [\"$MESH.replay.other.>\", \"$MESH.audit.pause.>\", \"$KV.mesh.schedule.b\"] }, subscribe: \">\"";
    let users = [
        "{ user: host, password: pw }".to_owned(),
        format!("{{ user: anna, password: {PASSWORD:?} }}"),
        format!("{{ user: few, password: pw, permissions: {{ {few} }} }}"),
        format!("{{ user: part, password: pw, permissions: {{ {part} }} }}"),
        format!("{{ user: reader, password: pw, permissions: {{ {reads} }} }}"),
    ];
    let options = Options {
        config: format!("authorization {{ users: [{}] }}", users.join(", ")),
        ..Options::default()
    };
    let server = NatsServer::start_with(&options).await;
    let login = async_nats::ConnectOptions::with_user_and_password("host".to_owned(), "pw".to_owned());
    let client = server.client_with(login).await;
    let config = Config::probe().nats("user = \"host\"").nats("password = \"pw\"");
    let mesh = Mesh::with_client(server, client, config);
    let host = mesh.host(&TAKES_MODULES).await;
    let address = admin_address(&host).await;
    (mesh, host, address)
}
