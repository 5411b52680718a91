//! Sends what has joined. One batch is in flight; when its answer is there, everything that has joined meanwhile goes next.
//! Every reconnect is a restart: the book is opened again, and the ledger tells what became of the batch that was in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Ends, tell};
use super::send;
use crate::broker::bucket::lost_settings;
use crate::broker::connection::{redial_delay, token};
use crate::broker::consumer::nanos;
use crate::broker::{self, Connection, Error};
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::failpoint;
use crate::ledger::core::append::{Author, Batch, BatchAnswer};
use crate::ledger::core::book::Read;

/// How long transactions wait for a bucket that is out of reach; then their events are handed back to the server.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause before a new connection, and between two sends of a batch whose result is unknown.
const MOMENT: Duration = Duration::from_millis(20);
/// How long to wait at first for another batch that is in the way of a refused one; each time twice as long, up to a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// After this number of looks without any change, the reason of the refusal is not another batch.
const LOOKS_MAX: u32 = 100;
/// After this number of batches without an answer, the committer checks whether the bucket still exists.
const GONE_AFTER: u32 = 5;
/// Another host has appended so lately that it is likely to do so again: it gets its turn.
const OTHERS_ARE_BUSY: Duration = Duration::from_millis(200);
/// How long it gets its turn at most.
const TURN_MAX: Duration = Duration::from_millis(100);

/// The committer of one bucket, until the drain.
pub async fn run(bucket: Arc<Bucket>) {
    // If this task has panicked, only the ledger is relied on.
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
    let mut rounds = Rounds {
        began: Instant::now(),
        unanswered: 0,
        unmoved: 0,
    };
    loop {
        // What has joined, as one batch.
        let Some(batch) = lay_out(bucket) else { return Ok(()) };
        bucket.doubts(&batch);
        let sent = (&*batch.entry.append, &batch.records[..]);
        match send::send(connection, sent, rounds.is_careful()).await {
            BatchAnswer::Committed(last) => {
                if !bucket.is_whole(last, batch.records.len()) {
                    incomplete(bucket, connection).await?;
                }
                bucket.is_certain();
                stored(bucket, &batch, last);
                let took = rounds.began.elapsed();
                bucket.appends.count(nanos(took));
                bucket.groups.count(batch.entry.decisions.len() as u64);
                give_way(bucket, took).await;
                return Ok(());
            }
            BatchAnswer::Refused => {
                if refused(bucket, connection, &batch, &mut rounds).await? {
                    return Ok(());
                }
            }
            // The same batch is sent again upon the same head.
            BatchAnswer::Unknown => unanswered(bucket, connection, &mut rounds).await?,
            BatchAnswer::Named(text) => return stop(bucket, connection, &text).await,
        }
    }
}

/// How often one append was sent, and to what end.
struct Rounds {
    began: Instant,
    /// Batches whose result is unknown.
    unanswered: u32,
    /// Refused ones since which nothing has moved.
    unmoved: u32,
}

impl Rounds {
    /// Whether each message is to be answered, so that the server names what it dislikes.
    fn is_careful(&self) -> bool {
        self.unanswered >= 2
    }
}

/// The next batch, if something has joined. A batch that is laid out again is another append, also in the same round: it is
/// recognised by its own name.
fn lay_out(bucket: &Bucket) -> Option<Batch> {
    let (id, at) = (token(), rfc3339(now_ms()));
    let by = Author {
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
    batch
}

/// The batch is stored; `last`: the sequence of its last message.
fn stored(bucket: &Bucket, batch: &Batch, last: u64) {
    failpoint::point("commit-confirmed");
    if !batch.entry.floors.is_empty() {
        failpoint::point("floor-written");
    }
    bucket.works_again(Ends::Stored);
    let sequence = last - (batch.records.len() - 1 - batch.entry_at) as u64;
    if let Read::Applied(fates) = bucket.apply(&batch.entry, sequence) {
        tell(fates);
    }
}

/// The batch is refused. `true`: it is known what becomes of what it held, and this append is over.
async fn refused(bucket: &Bucket, connection: &Connection, batch: &Batch, rounds: &mut Rounds) -> Result<bool, Error> {
    bucket.refusals.fetch_add(1, Ordering::Relaxed);
    if rounds.unanswered > 0 {
        incomplete(bucket, connection).await?;
    }
    bucket.is_certain();
    if resolve(bucket, connection, batch).await? {
        return Ok(true);
    }
    rounds.unmoved += 1;
    let Some(pause) = look_again(rounds.unmoved) else {
        let why = bucket.stuck(connection, batch.entry.n).await;
        bucket.report(&why, Ends::Stored);
        tell(bucket.book().give_up(&why));
        return Ok(true);
    };
    tokio::time::sleep(pause).await;
    Ok(false)
}

/// How long to wait for another batch that is in the way, after this number of looks without any change. `None`: the reason of
/// the refusal is not another batch.
fn look_again(unmoved: u32) -> Option<Duration> {
    (unmoved < LOOKS_MAX).then(|| (LOOK_AGAIN * 2u32.pow(unmoved.min(10))).min(MOMENT))
}

/// The batch is not answered. `Err`: it is not sent again over this connection.
async fn unanswered(bucket: &Bucket, connection: &Connection, rounds: &mut Rounds) -> Result<(), Error> {
    let gone = Error::Gone {
        what: "a commit".to_owned(),
    };
    rounds.unanswered += 1;
    match after_silence(connection.is_closed(), rounds.began.elapsed(), rounds.unanswered) {
        Silence::Closed => return Err(gone),
        Silence::TooLong => {
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
            return Err(gone);
        }
        Silence::Look(pause) => {
            if connection.stream(&bucket.stream).await?.is_none() {
                return Err(Error::Missing {
                    what: format!("bucket {}", bucket.name),
                });
            }
            tokio::time::sleep(pause).await;
        }
        Silence::Pause(pause) => tokio::time::sleep(pause).await,
    }
    Ok(())
}

/// What follows when a batch is not answered.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// Its connection is closed: over the next one the ledger is opened again.
    Closed,
    /// A person must know of it.
    TooLong,
    /// Perhaps the bucket was deleted; if not, the batch is sent again after this.
    Look(Duration),
    /// It is sent again after this.
    Pause(Duration),
}

/// `unanswered`: batches without an answer, this one included.
fn after_silence(closed: bool, waited: Duration, unanswered: u32) -> Silence {
    // "No responders" is answered at once.
    let pause = MOMENT * unanswered.min(50);
    match (closed, waited > PATIENCE) {
        (true, _) => Silence::Closed,
        (false, true) => Silence::TooLong,
        (false, false) if unanswered == GONE_AFTER => Silence::Look(pause),
        (false, false) => Silence::Pause(pause),
    }
}

/// The server says why it does not store the batch.
async fn stop(bucket: &Bucket, connection: &Connection, text: &str) -> Result<(), Error> {
    let found = connection.stream(&bucket.stream).await?;
    let edited = found.and_then(|info| lost_settings(&bucket.name, &info));
    let refused = || format!("bucket {}: the server refuses to store the commit: {text}", bucket.name);
    let why = edited.unwrap_or_else(refused);
    bucket.report(&why, Ends::Stored);
    incomplete(bucket, connection).await?;
    tell(bucket.book().give_up(&why));
    // It stays so until a person acts.
    tokio::time::sleep(MOMENT * 50).await;
    Ok(())
}

/// Completes a batch of which the server has stored only a part. Then the ledger is read again, as over a new connection.
async fn incomplete(bucket: &Bucket, connection: &Connection) -> Result<(), Error> {
    match bucket.complete_own(connection).await? {
        false => Ok(()),
        true => Err(Error::Missing {
            what: format!("a part of a commit to bucket {}", bucket.name),
        }),
    }
}

/// A host that has just appended lets the others go first, for twice as long as its own append took: they must learn of it
/// before they can append. A turn that is too short costs more than one that no host takes: it ends in a refused batch.
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
    let mut stale = Vec::new();
    if bucket.book().head.n < batch.entry.n {
        let keys = bucket.book().keys_on_their_way();
        let (keys, found) = futures_util::try_join!(bucket.fetch(connection, keys), bucket.stale_replays(connection))?;
        stale = found;
        if !bucket.book().relearn(keys) && stale.is_empty() {
            return Ok(false);
        }
    }
    tell(bucket.book().refused(&stale));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_batch_without_an_answer_is_sent_again_for_as_long_as_there_is_patience() {
        let late = PATIENCE + ms(1);
        let rows = [
            // Whether its connection is closed, the time since the first send, the number of batches without an answer; and
            // what follows.
            (false, ms(0), 1, Silence::Pause(ms(20))),
            (false, ms(0), 4, Silence::Pause(ms(80))),
            (false, ms(0), 5, Silence::Look(ms(100))),
            (false, ms(0), 6, Silence::Pause(ms(120))),
            (false, ms(0), 500, Silence::Pause(ms(1000))),
            (false, PATIENCE, 3, Silence::Pause(ms(60))),
            (false, late, 5, Silence::TooLong),
            (true, ms(0), 1, Silence::Closed),
            (true, late, 5, Silence::Closed),
        ];
        for (closed, waited, unanswered, expected) in rows {
            let found = after_silence(closed, waited, unanswered);
            assert_eq!(found, expected, "{closed}, {waited:?}, {unanswered}");
        }
    }

    #[test]
    fn a_batch_that_is_in_the_way_is_waited_for_longer_each_time_and_not_for_ever() {
        let pauses: Vec<_> = (1..=6).map(look_again).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 20, 20].map(|pause| Some(ms(pause))));
        assert_eq!(look_again(LOOKS_MAX - 1), Some(MOMENT));
        assert_eq!(look_again(LOOKS_MAX), None);
    }

    #[test]
    fn the_third_send_of_a_batch_asks_for_an_answer_to_each_message() {
        let careful = |unanswered| {
            let (began, unmoved) = (Instant::now(), 0);
            Rounds {
                began,
                unanswered,
                unmoved,
            }
            .is_careful()
        };
        assert_eq!([0, 1, 2, 3].map(careful), [false, false, true, true]);
    }
}
