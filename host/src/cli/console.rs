//! `jetmesh console`: the console without a host.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Args, Error, OK, text};
use crate::broker;
use crate::config;
use crate::console::{Admission, Console, Invitation};
use crate::http::{self, HttpListener, TlsIdentity};
use crate::plan::is_local;

/// Show the mesh in a browser: how it stands, its dead letters, where an event is, and what a person can do about them
///
/// It prints an address with a token, which lets in one browser; then it prints the address for the next one. The console connects as
/// this command does. At an address that other machines can reach, it needs `tls_cert` and `tls_key` of `[admin]`, and each viewer logs in
/// with credentials of NATS. A host with an admin address has the console, too; there a viewer logs in with credentials of NATS.
#[derive(Debug, clap::Args)]
pub struct ConsoleCommand {
    /// Address of this machine where the console answers, such as 127.0.0.1:8080 [default: a free port]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    config::admin_address(text).map_err(|(what, hint)| format!("{what}: {hint}"))
}

pub async fn run(args: &Args, asked: &ConsoleCommand) -> Result<u8, Error> {
    let plan = args.look()?.plan;
    let address = asked.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    config::safe_address(address, &plan.admin)
        .map_err(|(what, hint)| Error::Usage(format!("--listen: {what}\n  hint: {hint}")))?;
    // The command reports what is wrong with the connection to NATS; the browser would do so too late.
    drop(broker::open_guarded(&plan.nats, "jetmesh console").await?);
    let tls = plan.admin.tls.as_ref().filter(|_| !is_local(address));
    let tls = tls.map(TlsIdentity::read).transpose();
    let tls = tls
        .map_err(|why| Error::Failed(format!("[admin]: {why}")))?
        .map(Arc::new);
    let cannot = |error: std::io::Error| Error::Failed(format!("--listen, {address}: {error}; choose another address"));
    let listener = HttpListener::bind(address, tls).map_err(cannot)?;
    let next = |address: &str| {
        println!("for another browser: {address}");
        text::flush();
    };
    let admission = match is_local(address) {
        true => Admission::Invitation(Invitation::new(next)),
        // The right of this command is not for all who can reach the address.
        false => Admission::Credentials { publishes: false },
    };
    let console = Console::new(Arc::new(plan), admission, &listener);
    println!("console at {}", console.first_address());
    match is_local(address) {
        true => println!("this address lets in one browser; Ctrl-C ends the console"),
        false => println!("viewers log in with their own credentials of NATS; Ctrl-C ends the console"),
    }
    text::flush();
    let listener = listener.listen().map_err(cannot)?;
    tokio::select! {
        () = http::serve(Arc::new(listener), Arc::clone(&console)) => {}
        () = console.work() => {}
    }
    Ok(OK)
}
