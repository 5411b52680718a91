//! Whether the server that this host is connected to answers. A server that is frozen, or behind a network that drops everything, keeps
//! its connections: a person should learn of it before the time limits of requests and pulls have passed.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::connection::Connection;
use crate::trouble::{self, Weight};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const SILENT: Duration = Duration::from_secs(3);
const WHAT: &str = "NATS does not answer: no events come and nothing is committed until it does";

/// Asks it again and again, and logs when it becomes silent and when it answers again, for as long as it is polled. `url`: the server's,
/// without secrets. `silent`: since when it is; kept by the caller, because the connection may break meanwhile.
pub async fn watch(connection: &Connection, url: &str, silent: &mut Option<Instant>) {
    loop {
        sleep(EVERY).await;
        let asked = Instant::now();
        let request = json!({});
        // Any answer will do, also an error.
        let answer = timeout(SILENT, connection.api::<Value>("INFO", &request)).await;
        if answer.is_err() {
            let since = *silent.get_or_insert(asked);
            let why = "a request was not answered";
            trouble!(Weight::Delay, "", why, { %url, silent = ?since.elapsed() },
                "NATS does not answer: no events come and nothing is committed until it does");
        } else if let Some(since) = silent.take() {
            trouble::over(WHAT, "");
            tracing::info!(%url, silent = ?since.elapsed(), "NATS answers again");
        }
    }
}
