//! An outbox with what it lies between: a database, and a stream.

use super::database::Database;
use super::error::Error;
use super::stream::OutboxStream;
use crate::broker::{self, Connection, provision};
use crate::plan::{Outbox, Plan};

/// An outbox, its database and its stream.
pub struct Sides<'a> {
    pub plan: &'a Plan,
    pub outbox: &'a Outbox,
    pub connection: &'a Connection,
    pub database: &'a Database,
    pub target: &'a OutboxStream,
}

impl Sides<'_> {
    /// Makes the stream of dead letters again if it is gone.
    pub async fn kept<T>(&self, step: impl Future<Output = Result<T, broker::Error>>) -> Result<T, Error> {
        let done = provision::kept(self.connection, self.plan, provision::DEAD, step).await;
        Ok(done?)
    }
}
