//! A handler's current connection to NATS, and the next one when it is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::broker::Error;
pub use crate::handler_task::link::Link;
use crate::process::drain::Drain;

/// How long what needs a connection waits for the next one: longer than a handler takes to connect.
const NEXT_MAX: Duration = Duration::from_secs(2);

/// The links of a handler: one at a time.
pub struct Links {
    handler: String,
    drain: Drain,
    present: watch::Sender<Option<Arc<Link>>>,
}

impl Links {
    pub fn new(handler: &str, drain: Drain) -> Links {
        Links {
            handler: handler.to_owned(),
            drain,
            present: watch::Sender::default(),
        }
    }

    /// The handler that they are of.
    pub fn handler(&self) -> &str {
        &self.handler
    }

    /// The one that works now.
    pub fn present(&self) -> Option<Arc<Link>> {
        self.present.borrow().clone()
    }

    /// The same; if the connection has just closed, this waits a little for the next one, which is seldom far.
    pub async fn next(&self) -> Option<Arc<Link>> {
        let is_open = |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.connection.is_closed());
        let now = self.present();
        if is_open(&now) {
            return now;
        }
        let mut links = self.present.subscribe();
        tokio::select! {
            biased;
            found = links.wait_for(is_open) => found.ok()?.clone(),
            () = tokio::time::sleep(NEXT_MAX) => None,
            () = self.drain.begun() => None,
        }
    }

    /// The same for something that cannot be done without it. An error names that.
    pub async fn needed(&self, what: &str) -> Result<Arc<Link>, Error> {
        self.next().await.ok_or_else(|| Error::Gone { what: what.to_owned() })
    }

    pub fn set(&self, link: Option<Arc<Link>>) {
        self.present.send_replace(link);
    }
}
