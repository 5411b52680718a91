//! A bucket's session: one connection, and everything that is known of the ledger over it. When the connection is gone
//! the session is thrown away, and the next one reads head and index anew.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::bucket::Bucket;
use super::entry::{Head, READER};
use super::index::Index;
use super::read;
use crate::broker::connection::redial_delay;
use crate::broker::provision::check_ledger_bucket;
use crate::broker::{self, Connection, Error};

#[derive(Clone)]
pub struct Link {
    pub connection: Connection,
    pub number: u64,
}

pub struct Session {
    pub connection: Connection,
    pub number: u64,
    pub head: Head,
    pub head_sequence: u64,
    /// Revisions of keys as this host has written them last: a transaction that rests on an older one needs no trip to
    /// the server to be run again.
    pub revisions: HashMap<String, u64>,
}

impl Bucket {
    /// Reads the head and every entry up to it. `Some`: the entry of this append was among them.
    pub(super) async fn sync(&self, session: &mut Session, append: &str) -> Result<Option<u64>, Error> {
        let Some((head, sequence)) = read::head(&session.connection, &self.stream, &self.subjects).await? else {
            return Err(Error::Missing {
                what: format!("the head of bucket {}", self.name),
            });
        };
        if head.bucket != session.head.bucket || head.n < session.head.n {
            return Err(Error::Missing {
                what: format!("the ledger of bucket {}", self.name),
            });
        }
        let mut own = None;
        if head.n > session.head.n {
            let entries = read::entries(
                &session.connection,
                &self.stream,
                &self.subjects,
                session.head.n + 1,
                head.n,
                session.head_sequence,
            )
            .await?;
            let mut index = self.index();
            for entry in &entries {
                index.apply(entry);
                for write in &entry.writes {
                    session.revisions.remove(&write.key);
                }
                if entry.append == append {
                    own = Some(entry.n);
                }
            }
            index.adopt(&head);
        }
        session.head = head;
        session.head_sequence = sequence;
        Ok(own)
    }

    /// The present session, or a new one.
    pub(super) async fn ensure<'a>(&self, guard: &'a mut Option<Session>) -> Result<&'a mut Session, Error> {
        if guard.as_ref().is_some_and(|session| session.connection.is_closed()) {
            self.drop_session(guard);
        }
        if guard.is_none() {
            match self.open().await {
                Ok(session) => {
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    *guard = Some(session);
                }
                Err(error) => {
                    if !error.passes() {
                        self.report(&error.to_string());
                    }
                    return Err(error);
                }
            }
        }
        guard.as_mut().ok_or_else(|| Error::Gone {
            what: "the ledger's session".to_owned(),
        })
    }

    async fn open(&self) -> Result<Session, Error> {
        let connection = broker::open(&self.nats, &format!("jetmesh ledger {}", self.name)).await?;
        let info = connection.stream(&self.stream).await?.ok_or_else(|| {
            Error::Refused(format!(
                "bucket {} is gone: start jetmesh again to make it anew",
                self.name
            ))
        })?;
        check_ledger_bucket(&self.name, &info)?;
        let known = self.making.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (head, head_sequence) = match read::head(&connection, &self.stream, &self.subjects).await? {
            Some(found) => found,
            None if known.is_some() => return Err(self.forgotten()),
            None => read::begin(&connection, &self.stream, &self.subjects).await?,
        };
        if known.is_some_and(|known| known != head.bucket) {
            return Err(self.forgotten());
        }
        if head.min_reader > READER {
            return Err(Error::Refused(format!(
                "bucket {}: its ledger was written by a newer jetmesh (format {}, this host reads {READER}): upgrade",
                self.name, head.min_reader
            )));
        }
        let mut index = Index::new(&head);
        if head.n >= head.index_from.max(1) {
            let from = head.index_from.max(1);
            let entries = read::entries(&connection, &self.stream, &self.subjects, from, head.n, 0).await?;
            entries.iter().for_each(|entry| index.apply(entry));
        }
        // What was at work is not carried over: entries before `index_from` are not read again, and one of them may decide
        // it.
        *self.index() = index;
        *self.making.lock().unwrap_or_else(PoisonError::into_inner) = Some(head.bucket.clone());
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(Link {
            connection: connection.clone(),
            number,
        });
        Ok(Session {
            connection,
            number,
            head,
            head_sequence,
            revisions: HashMap::new(),
        })
    }

    fn forgotten(&self) -> Error {
        Error::Refused(format!(
            "bucket {} was made anew or purged while this host ran, and with it went the memory of what is decided: \
             restore it, or start jetmesh again to see what that means for its handlers",
            self.name
        ))
    }

    pub(super) fn drop_session(&self, guard: &mut Option<Session>) {
        *guard = None;
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn report(&self, text: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_deref() != Some(text) {
            tracing::error!(bucket = %self.name, error = text, "the ledger is stopped");
            *trouble = Some(text.to_owned());
        }
    }
}

/// Keeps a bucket's session open while there is nothing to commit, so that the first event does not wait for it.
pub async fn keep_open(bucket: Arc<Bucket>) {
    let mut attempt = 0;
    loop {
        let opened = {
            let mut guard = bucket.session.lock().await;
            bucket
                .ensure(&mut guard)
                .await
                .map(|session| session.connection.clone())
        };
        match opened {
            Ok(connection) => {
                attempt = 0;
                connection.closed().await;
            }
            Err(_) => {
                attempt += 1;
                tokio::time::sleep(redial_delay(attempt)).await;
            }
        }
    }
}
