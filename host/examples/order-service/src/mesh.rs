//! Asks the mesh what has become of an event: docs/trace.md describes the request and the answer.

use std::collections::BTreeMap;

use async_nats::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The request that a host of the mesh `jetmesh` answers; another mesh has its name in it.
const SUBJECT: &str = "jetmesh.trace";

/// What the answer says, as far as this service uses it.
#[derive(Deserialize)]
pub struct Found {
    /// By which the event is found at once the next time.
    pub event: Option<String>,
    handlers: Vec<Task>,
}

#[derive(Deserialize, Serialize)]
pub struct Task {
    #[serde(skip_serializing)]
    handler: String,
    /// `done`, `dead`, `retrying`, `waiting` and others.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Found {
    /// The task of each handler.
    pub fn tasks(&self) -> BTreeMap<&str, &Task> {
        self.handlers.iter().map(|task| (task.handler.as_str(), task)).collect()
    }
}

/// `Err` says why it is not known.
pub async fn trace(nats: &Client, question: &Value) -> Result<Found, String> {
    let answer = nats.request(SUBJECT, question.to_string().into()).await;
    let answer = answer.map_err(|error| format!("no host of the mesh answers: {error}"))?;
    let header = |name: &str| answer.headers.as_ref().and_then(|headers| headers.get(name));
    match header("Nats-Service-Error-Code").map(|code| code.as_str()) {
        None => serde_json::from_slice(&answer.payload).map_err(|error| error.to_string()),
        Some("404") => Err("the event of the order is not published yet".to_owned()),
        Some(code) => {
            let why = header("Nats-Service-Error").map_or("", |why| why.as_str());
            Err(format!("the mesh answers {code}: {why}"))
        }
    }
}
