//! Reading a bucket's keys, from the leader always: a direct get may be answered by a replica that is behind.

use crate::broker::kv::is_tombstone;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::bucket::Bucket;
use crate::broker::kv::key_subject;
use crate::broker::kv::kv_stream;
use crate::broker::{By, Connection, Error};
use crate::event::effects::State;
use crate::event::effects::Version;

/// Reads that are on their way at a time.
pub(super) const AT_ONCE: usize = 64;

/// A key's revision (0: never was) and value.
pub async fn fetch(connection: &Connection, bucket: &str, key: &str) -> Result<(u64, Option<Bytes>), Error> {
    let subject = key_subject(bucket, key);
    Ok(match connection.stored(&kv_stream(bucket), By::Last(&subject)).await? {
        None => (0, None),
        Some(stored) if is_tombstone(&stored.raw_headers) => (stored.sequence, None),
        Some(stored) => (stored.sequence, Some(stored.payload)),
    })
}

impl Bucket {
    /// Keys with their revisions (0: never was) and values, several at once.
    pub(super) async fn fetch(
        &self,
        connection: &Connection,
        keys: Vec<String>,
    ) -> Result<Vec<(String, u64, Option<Bytes>)>, Error> {
        let one = |key: String| async {
            let (revision, value) = fetch(connection, &self.name, &key).await?;
            Ok((key, revision, value))
        };
        futures_util::stream::iter(keys)
            .map(one)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
            .inspect_err(|error| self.look_again_upon(error))
    }

    async fn read(&self, key: &str) -> Result<(Option<Bytes>, Version), Error> {
        loop {
            let connection = self.connection().await?;
            if let Some(found) = self.book().read(key) {
                return Ok(found);
            }
            for (key, revision, value) in self.fetch(&connection, vec![key.to_owned()]).await? {
                self.book().learn(&key, revision, value);
            }
        }
    }
}

impl State for Bucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Bytes>, Version), String>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        // What is at hand needs no waiting.
        let at_hand = self.with_present(|_| self.book().read(key)).flatten();
        if let Some(found) = at_hand {
            return std::future::ready(Ok(found)).boxed();
        }
        self.fetched.fetch_add(1, Ordering::Relaxed);
        async move { self.read(key).await.map_err(|e| e.to_string()) }.boxed()
    }
}
