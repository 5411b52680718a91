//! Sends what has joined: one batch in flight, and when it returns, everything that has joined meanwhile goes next. Every
//! reconnect is a restart: the book is opened anew, and what was on its way is resolved by what the ledger says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Ends, tell};
use super::send;
use crate::broker::bucket::lost_settings;
use crate::broker::connection::{redial_delay, token};
use crate::broker::{self, Connection, Error};
use crate::failpoint;
use crate::ledger::core::append::{Answer, Batch, By};
use crate::ledger::core::book::Read;
use crate::message::clock::now_ms;
use crate::message::rfc3339;

/// How long transactions wait for a bucket that is out of reach; then their events are handed back to the server.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before a new connection, and between two sends of a batch of which nobody knows what has become of it.
const MOMENT: Duration = Duration::from_millis(20);
/// How long to wait at first for another batch that is in the way of a refused one; each time twice as long, up to a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// After so many looks without any movement it is no other batch that is in the way.
const LOOKS_MAX: u32 = 100;
/// After so many batches without an answer it is looked whether the bucket is still there.
const GONE_AFTER: u32 = 5;
/// Another host has appended so lately that it is likely to do so again: it gets its turn.
const OTHERS_ARE_BUSY: Duration = Duration::from_millis(200);
/// At most so long.
const TURN_MAX: Duration = Duration::from_millis(100);

/// The committer of one bucket, until the drain.
pub async fn run(bucket: Arc<Bucket>) {
    // Of one that has panicked nothing is known but what the ledger says.
    bucket.forget_session();
    let mut attempt = 0;
    let mut since: Option<Instant> = None;
    loop {
        let ended = match bucket.connection().await {
            Ok(connection) => {
                (attempt, since) = (0, None);
                serve(&bucket, &connection).await
            }
            Err(error) => error,
        };
        bucket.drop_session(&ended);
        let began = *since.get_or_insert_with(Instant::now);
        if !ended.passes() || began.elapsed() > PATIENCE {
            tell(bucket.book().give_up(&ended.to_string()));
        }
        let pause = if attempt == 0 { MOMENT } else { redial_delay(attempt) };
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

/// Why it ended.
async fn serve(bucket: &Bucket, connection: &Connection) -> Error {
    let gone = || broker::Error::Gone {
        what: format!("the ledger of {}", bucket.name),
    };
    loop {
        if bucket.with_present(|present| present.is(connection)) != Some(true) {
            return gone();
        }
        if bucket.book().has_work() {
            failpoint::point("committer");
            if let Err(error) = append(bucket, connection).await {
                return error;
            }
            continue;
        }
        tokio::select! {
            biased;
            () = connection.closed() => return gone(),
            () = bucket.joined.notified() => {}
        }
        // What else is ready joins first.
        tokio::task::yield_now().await;
    }
}

/// One append, until it is known what has become of it.
async fn append(bucket: &Bucket, connection: &Connection) -> Result<(), Error> {
    let began = Instant::now();
    let (mut unknown, mut looks) = (0u32, 0u32);
    loop {
        let at = rfc3339(now_ms());
        // A batch that is laid out anew is another append, also in this round: by its name it is known again.
        let id = token();
        let by = By {
            append: &id,
            host: &bucket.host,
            at: &at,
        };
        let (fates, batch) = {
            let mut book = bucket.book();
            let (fates, sent) = book.next(by);
            (fates, sent.map(|sent| sent.batch.clone()))
        };
        tell(fates);
        let Some(batch) = batch else { return Ok(()) };
        bucket.doubts(&batch);
        match send::send(connection, (&batch.entry.append, &batch.records), unknown >= 2).await {
            Answer::Committed(last) => {
                if !bucket.is_whole(last, batch.records.len()) {
                    incomplete(bucket, connection).await?;
                }
                bucket.is_certain();
                failpoint::point("commit-confirmed");
                if !batch.entry.floors.is_empty() {
                    failpoint::point("floor-written");
                }
                bucket.mended(Ends::Stored);
                let sequence = last - (batch.records.len() - 1 - batch.entry_at) as u64;
                let read = bucket.apply(&batch.entry, sequence);
                if let Read::Applied(fates) = read {
                    tell(fates);
                }
                give_way(bucket, began.elapsed()).await;
                return Ok(());
            }
            Answer::Refused => {
                bucket.refusals.fetch_add(1, Ordering::Relaxed);
                if unknown > 0 {
                    incomplete(bucket, connection).await?;
                }
                bucket.is_certain();
                if resolve(bucket, connection, &batch).await? {
                    return Ok(());
                }
                looks += 1;
                if looks == LOOKS_MAX {
                    let why = bucket.stuck(connection, batch.entry.n).await;
                    bucket.report(&why, Ends::Stored);
                    tell(bucket.book().give_up(&why));
                    return Ok(());
                }
                tokio::time::sleep((LOOK_AGAIN * 2u32.pow(looks.min(10))).min(MOMENT)).await;
            }
            Answer::Unknown if connection.is_closed() || began.elapsed() > PATIENCE => {
                if !connection.is_closed() {
                    let why = match connection.stream(&bucket.stream).await {
                        Ok(Some(_)) => "its stream is there".to_owned(),
                        Ok(None) => "its stream is gone".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    let text = format!(
                        "bucket {}: the server has confirmed no commit for {PATIENCE:?}; look at its disk and its log ({why})",
                        bucket.name
                    );
                    bucket.report(&text, Ends::Stored);
                }
                return Err(Error::Gone {
                    what: "a commit".to_owned(),
                });
            }
            Answer::Unknown => {
                unknown += 1;
                if unknown == GONE_AFTER && connection.stream(&bucket.stream).await?.is_none() {
                    return Err(Error::Missing {
                        what: format!("bucket {}", bucket.name),
                    });
                }
                // "Nobody is there" is answered at once.
                tokio::time::sleep(MOMENT * unknown.min(50)).await;
            }
            Answer::Named(text) => {
                let found = connection.stream(&bucket.stream).await?;
                let edited = found.and_then(|info| lost_settings(&bucket.name, &info));
                let refused = || format!("bucket {}: the server refuses to store the commit: {text}", bucket.name);
                let why = edited.unwrap_or_else(refused);
                bucket.report(&why, Ends::Stored);
                incomplete(bucket, connection).await?;
                tell(bucket.book().give_up(&why));
                // It stays so until a person acts.
                tokio::time::sleep(MOMENT * 50).await;
                return Ok(());
            }
        }
    }
}

/// Completes what the server has kept only a part of. Then the ledger is read anew, as over a new connection.
async fn incomplete(bucket: &Bucket, connection: &Connection) -> Result<(), Error> {
    match bucket.complete_own(connection).await? {
        false => Ok(()),
        true => Err(Error::Missing {
            what: format!("a part of a commit to bucket {}", bucket.name),
        }),
    }
}

/// Whoever has just appended lets the others go first, for twice as long as its own append took: they must hear of it
/// before they can append. Too short a turn costs more than one that nobody takes: it ends in a refused batch.
async fn give_way(bucket: &Bucket, took: Duration) {
    if bucket.quiet_for() > OTHERS_ARE_BUSY {
        return;
    }
    // Of what was heard before, not of this turn.
    let _ = tokio::time::timeout(Duration::ZERO, bucket.their_turn.notified()).await;
    let _ = tokio::time::timeout((took * 2).min(TURN_MAX), bucket.their_turn.notified()).await;
}

/// The truth is in the ledger: reads it up to its end, and, if nothing is new there, the keys that the batch rests on and
/// the deaths that it follows. `false`: nothing at all has moved, so another copy of the batch may still be on its way.
async fn resolve(bucket: &Bucket, connection: &Connection, batch: &Batch) -> Result<bool, Error> {
    bucket.sync(connection).await?;
    let mut astray = Vec::new();
    if bucket.book().head.n < batch.entry.n {
        let keys = bucket.book().keys_on_their_way();
        let (keys, found) = futures_util::try_join!(bucket.fetch(connection, keys), bucket.astray(connection))?;
        astray = found;
        if !bucket.book().relearn(keys) && astray.is_empty() {
            return Ok(false);
        }
    }
    tell(bucket.book().refused(&astray));
    Ok(true)
}
