//! Reading a bucket's keys: their values for handlers, their revisions for the commit. Always from the leader.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::append::Transaction;
use super::bucket::Bucket;
use super::entry::key_subject;
use super::read;
use crate::broker::{By, Connection, Error};
use crate::guest::State;

impl Bucket {
    /// The revision that a key has now.
    pub(super) async fn revision(&self, connection: &Connection, key: &str) -> Result<u64, Error> {
        let stored = connection
            .stored(&self.stream, By::Last(&key_subject(&self.name, key)))
            .await?;
        Ok(stored.map_or(0, |s| s.sequence))
    }

    pub(super) async fn moved(&self, connection: &Connection, tx: &Transaction) -> Result<bool, Error> {
        for (key, read) in &tx.reads {
            if self.revision(connection, key).await? != read.revision {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl State for Bucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Bytes>, u64), String>> {
        async move {
            let link = match self.link() {
                Some(link) if !link.connection.is_closed() => link,
                _ => {
                    let mut guard = self.session.lock().await;
                    self.ensure(&mut guard).await.map_err(|e| e.to_string())?;
                    self.link().ok_or("the ledger's connection is gone")?
                }
            };
            let subject = key_subject(&self.name, key);
            let stored = link
                .connection
                .stored(&self.stream, By::Last(&subject))
                .await
                .map_err(|e| e.to_string())?;
            Ok(match stored {
                None => (None, 0),
                Some(stored) if read::is_tombstone(&stored.raw_headers) => (None, stored.sequence),
                Some(stored) => (Some(stored.payload), stored.sequence),
            })
        }
        .boxed()
    }
}
