//! Forgetting a handler: an entry says so, and every host that reads the ledger forgets at the same place in its order.

use super::bucket::Bucket;
use super::send;
use crate::broker::connection::token;
use crate::broker::{Connection, Error};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::ledger::core::append::{Author, BatchAnswer, EntryExtras, batch};
use crate::ledger::core::group::Group;

/// How often it is tried beside hosts that append.
const TRIES_MAX: u32 = 100;

impl Bucket {
    /// Appends an empty entry. A host that opens the ledger completes its newest entry. Without the empty one, it would restore
    /// records and keys that were removed since.
    pub async fn fence(&self) -> Result<(), Error> {
        for _ in 0..TRIES_MAX {
            self.catch_up().await?;
            let connection = self.connection().await?;
            if let BatchAnswer::Committed(_) = self.say(&connection, EntryExtras::default()).await? {
                return Ok(());
            }
        }
        Err(self.no_turn())
    }

    /// Appends an entry by which everything that this handler has decided is forgotten. The death records must be removed
    /// before: an event that dies again expects none.
    pub async fn forget(&self, handler: &str) -> Result<(), Error> {
        for _ in 0..TRIES_MAX {
            // Also tells what has become of the try before.
            self.catch_up().await?;
            if !self.book().head.floors.contains_key(handler) {
                return Ok(());
            }
            let said = EntryExtras {
                reset: vec![handler.to_owned()],
                ..EntryExtras::default()
            };
            let connection = self.connection().await?;
            self.say(&connection, said).await?;
        }
        Err(self.no_turn())
    }

    /// One try to append an entry without decisions, upon the head that is known.
    async fn say(&self, connection: &Connection, said: EntryExtras) -> Result<BatchAnswer, Error> {
        let (append, at) = (token(), rfc3339(now_ms()));
        let by = Author {
            append: &append,
            host: &self.host,
            at: &at,
        };
        let batch = {
            let book = self.book();
            let (upon, nothing) = ((&book.head, book.head_sequence), Group::<()>::default());
            batch(&self.name, upon, &nothing, said, by, book.payload_max)
        };
        let batch = batch.map_err(|too_large| Error::Refused(too_large.to_string()))?;
        match send::send(connection, (&batch.entry.append, &batch.records), false).await {
            BatchAnswer::Named(text) => Err(Error::Refused(format!(
                "bucket {}: the server refuses to store an entry: {text}",
                self.name
            ))),
            answer => Ok(answer),
        }
    }

    fn no_turn(&self) -> Error {
        Error::Timeout {
            what: format!("the ledger of bucket {}", self.name),
        }
    }
}
