//! Which user the server has authenticated, by its own words.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::connection::token;
use super::login::{Login, addresses};
use super::{Connection, Error, open_guarded};
use crate::plan::Nats;

/// A server answers it to each connection about itself.
const INFO: &str = "$SYS.REQ.USER.INFO";
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Whether NATS looks at credentials. `Some(false)`: it takes any, because it has no users. `None`: that is not known.
pub async fn looks_at_credentials(connection: &Connection, nats: &Nats) -> Option<bool> {
    if connection.client.server_info().auth_required {
        return Some(true);
    }
    // It can have users all the same: those who bring no credentials are then one of them (`no_auth_user`).
    let servers: Vec<String> = addresses(nats).into_iter().map(|address| address.server).collect();
    let nats = Nats {
        url: servers.join(","),
        user: Some(format!("jetmesh-{}", token())),
        password: Some(token()),
        token: None,
        creds: None,
        nkey: None,
        given: None,
        wait: Some(Duration::ZERO),
        ..nats.clone()
    };
    match open_guarded(&nats, "jetmesh, to see whether NATS has users").await {
        Ok(_) => Some(false),
        Err(Error::Unauthorized { .. }) => Some(true),
        Err(_) => None,
    }
}

/// The user of a connection as the server has authenticated it: a name, or a public key. `None`: the server asks for no credentials, or for
/// a token, which is no name; or the user may not ask.
pub async fn authenticated(connection: &Connection, nats: &Nats) -> Option<String> {
    let mut logins = addresses(nats).into_iter().filter_map(|address| address.login);
    // A token is no name, and a server can answer with it.
    let has_name = nats.user.is_some()
        || nats.creds.is_some()
        || nats.nkey.is_some()
        || nats.given.is_some()
        || logins.any(|login| matches!(login, Login::User { .. }));
    // A server without users repeats whatever a client says of itself.
    if !has_name || looks_at_credentials(connection, nats).await != Some(true) {
        return None;
    }
    let asked = connection.request(INFO, None, Bytes::new());
    let answer = tokio::time::timeout(ANSWER_MAX, asked).await.ok()?.ok()?;
    let answer: Value = serde_json::from_slice(&answer).ok()?;
    let user = answer["data"]["user"].as_str().filter(|user| !user.is_empty())?;
    Some(user.to_owned())
}
