//! Making a connection: the first address that takes it, with a client that does not dial a second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};

use super::connection::Connection;
use super::denied::Denials;
use super::error::{Error, SERVER_MIN};
use super::latch::Latch;
use super::login::{self, Address};
use crate::plan::Nats;
use crate::text::secret::redact;
use crate::trouble::Weight;

/// Connects once, to the first address that takes it, in no particular order; no retries.
pub async fn open(nats: &Nats, name: &str) -> Result<Connection, Error> {
    use rand::seq::SliceRandom as _;
    let mut addresses = login::addresses(nats);
    addresses.shuffle(&mut rand::rng());
    let mut failed = None;
    for address in addresses {
        match dial(nats, name, &address).await {
            // Another server may be up. What a person must change is said first, whatever else is down.
            Err(error @ Error::Connect { .. }) => failed = failed.or(Some(error)),
            Err(error @ (Error::Unauthorized { .. } | Error::Crowded { .. } | Error::NoApi { .. })) => {
                failed = Some(error)
            }
            done => return done,
        }
    }
    if let Some(error @ Error::Crowded { .. }) = &failed {
        super::crowded::tell(error);
    }
    Err(failed.unwrap_or_else(|| Error::Connect {
        url: redact(&nats.url),
        why: "there is no address".to_owned(),
    }))
}

async fn dial(nats: &Nats, name: &str, address: &Address) -> Result<Connection, Error> {
    let (closed, denials) = (Latch::default(), Arc::new(Denials::default()));
    let options = login::options(nats, address.login.as_ref())
        .await?
        .name(name)
        .connection_timeout(nats.timeout)
        .request_timeout(Some(nats.timeout))
        // A connection that is open on one side only is noticed within half a minute.
        .ping_interval(Duration::from_secs(10))
        .subscription_capacity(64 * 1024);
    let options = heard(options, closed.clone(), Arc::clone(&denials));
    let mut options = once(options, closed.clone());
    if let Some(prefix) = &nats.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    let client = options
        .connect(&address.server)
        .await
        .map_err(|e| login::failed(nats, address, &e))?;
    check_server(&client, nats)?;
    let connection = Connection::new(client, nats, closed, denials);
    connection.is_heard().await?;
    Ok(connection)
}

/// Listens to what the client reports of its connection. `lost`: set when the connection is closed.
fn heard(options: ConnectOptions, lost: Latch, denials: Arc<Denials>) -> ConnectOptions {
    options.event_callback(move |event| {
        let (lost, denials) = (lost.clone(), Arc::clone(&denials));
        async move {
            match event {
                Event::Disconnected | Event::Closed => lost.set(),
                Event::ServerError(error) => {
                    // Whatever waits for it says so as well.
                    let about = denials.hear(&error.to_string()).unwrap_or_default();
                    trouble!(Weight::Aside, about, error, { %error }, "nats reports an error");
                }
                Event::LameDuckMode => tracing::info!("the nats server is about to shut down"),
                _ => {}
            }
        }
    })
}

/// The client connects once. `dead`: set when it would connect again.
fn once(options: ConnectOptions, dead: Latch) -> ConnectOptions {
    let dials = AtomicU32::new(0);
    options.reconnect_to_server_callback(move |_, _| {
        let first = dials.fetch_add(1, Ordering::Relaxed) == 0;
        let dead = dead.clone();
        async move {
            if !first {
                dead.set();
                // The client would dial again and send what is queued; unwinding, without the panic hook, ends its
                // task and nothing else.
                std::panic::resume_unwind(Box::new("a connection lives once"));
            }
            None
        }
    })
}

/// Whether the server is one that the mesh can use.
fn check_server(client: &Client, nats: &Nats) -> Result<(), Error> {
    let info = client.server_info();
    let (major, minor, patch) = SERVER_MIN;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(Error::OldServer { found: info.version });
    }
    // Elsewhere it may be there anyway: a leaf need not have one.
    if !info.jetstream && nats.js_domain.is_none() && nats.js_api_prefix.is_none() {
        return Err(Error::NoJetStream);
    }
    Ok(())
}
