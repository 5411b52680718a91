//! Takes in the timers of handlers that the server has fired. A timer is a key of its bucket; a transaction of the bucket's ledger
//! takes the key away and has the timer's event as its consequence. So a timer that was cancelled, or set again, before this
//! commit does not fire, and one that comes twice fires once. `decisions/0025-timers.md` says why.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;

use crate::broker::connection::token;
use crate::event::EventId;
use crate::event::effects::{State as _, Version};
use crate::event::timer::{FIRINGS, Firings, id_in};
use crate::failpoint::{self, mistake::Mistake};
use crate::ledger::core::entry::Decision;
use crate::ledger::core::transaction::{Planned, Transaction};
use crate::ledger::relay::due::HandlerTimerDue;
use crate::ledger::{Bucket, CommitError, Committed};
use crate::trouble::{self, Weight};

/// How often a firing is tried beside other hosts that write the same keys.
const TRIES_MAX: u32 = 20;

/// What is told of a timer that cannot fire.
const STOPPED: &str = "a handler's timer is due and cannot fire";

/// Takes the timers of a bucket in, for as long as it is polled.
///
/// # Cancel safety
/// A firing that is dropped half-way is taken in or not. The server delivers the timer again, and that is found out.
pub async fn keep(bucket: Arc<Bucket>, due: Arc<Mutex<Receiver<HandlerTimerDue>>>) {
    let mut inlet = due.lock().await;
    while let Some(due) = inlet.recv().await {
        failpoint::point("timer-due");
        let (key, id) = (&due.key, &due.id);
        let fired = match fire(&bucket, &due).await {
            Ok(fired) => {
                failpoint::point("timer-fired");
                if fired {
                    tracing::debug!(
                        bucket = bucket.name,
                        key,
                        id,
                        subject = due.subject,
                        "a handler's timer has fired"
                    );
                } else {
                    tracing::debug!(
                        bucket = bucket.name,
                        key,
                        id,
                        "a timer that is cancelled or set again is left out"
                    );
                }
                trouble::over(STOPPED, &bucket.name);
                Ok(())
            }
            Err(why) => {
                let name = &bucket.name;
                trouble!(Weight::Aside, name, why, { bucket = name, key, why }, "a handler's timer is due and cannot fire");
                Err(why)
            }
        };
        // If the one that asked is gone, the server delivers the timer again.
        let _ = due.done.send(fired);
    }
}

/// `false`: the bucket does not name it any more.
async fn fire(bucket: &Bucket, due: &HandlerTimerDue) -> Result<bool, String> {
    for _ in 0..TRIES_MAX {
        bucket.catch_up().await.map_err(|error| error.to_string())?;
        let session = bucket.session_number();
        let (value, version) = bucket.get(&due.key).await?;
        let named = value.map(|value| id_in(&value)).transpose();
        let named = named.map_err(|why| format!("key {} cannot be read: {why}", due.key))?;
        let blind = failpoint::planted().is(Mistake::TimerKeyBlind);
        let awaited = named.as_ref() == Some(&due.id) || blind;
        if let (false, Version::Stored(_)) = (awaited, version) {
            return Ok(false);
        }
        let (value, counted) = bucket.get(FIRINGS).await?;
        let firings = match value {
            Some(value) => {
                serde_json::from_slice(&value).map_err(|why| format!("key {FIRINGS} cannot be read: {why}"))?
            }
            None => Firings { token: token(), n: 0 },
        };
        let firing = Firings {
            n: firings.n + 1,
            ..firings
        };
        let reads = BTreeMap::from([(due.key.clone(), version), (FIRINGS.to_owned(), counted)]);
        let tx = match awaited {
            true => transaction(due, &firing, reads, session),
            // It rests on what this host has written and not committed yet: that is waited for.
            false => Transaction {
                decision: None,
                writes: BTreeMap::new(),
                consequences: Vec::new(),
                ..transaction(due, &firing, reads, session)
            },
        };
        match bucket.commit(tx).await {
            Ok(Committed::Here { .. }) if awaited => {
                bucket.raise_floor(FIRINGS, &firing.token, firing.n);
                return Ok(true);
            }
            Ok(Committed::Here { .. } | Committed::Before(_)) | Err(CommitError::Conflict) => {
                bucket.doubt([&due.key, &FIRINGS.to_owned()].into_iter());
            }
            Err(CommitError::TooLarge(why) | CommitError::Host(why)) => return Err(why),
        }
    }
    Err("other hosts write its keys all the time".to_owned())
}

/// The firing as a transaction.
fn transaction(due: &HandlerTimerDue, firing: &Firings, reads: BTreeMap<String, Version>, session: u64) -> Transaction {
    let event = EventId {
        incarnation: firing.token.as_str().into(),
        sequence: firing.n,
    };
    let counted = serde_json::to_vec(firing).expect("a count serialises");
    Transaction {
        handler: FIRINGS.to_owned(),
        event: event.clone(),
        decision: Some(Decision::done(FIRINGS, event.to_string(), 1, String::new())),
        session,
        reads,
        writes: BTreeMap::from([(due.key.clone(), None), (FIRINGS.to_owned(), Some(counted.into()))]),
        consequences: vec![Planned::Event {
            id: due.id.clone(),
            subject: due.subject.clone(),
            headers: due.headers.clone(),
            payload: due.payload.clone(),
        }],
        death: None,
        trial: None,
    }
}
