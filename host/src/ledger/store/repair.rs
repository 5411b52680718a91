//! Completes a batch of which the server has kept only a part: it can after a full disk, when it is restarted while the
//! disk is still full. The entry says what belongs to it, so what is missing is written as it was meant.

use bytes::Bytes;

use super::bucket::Bucket;
use super::{read, send};
use crate::broker::kv::key_subject;
use crate::broker::{By, Connection, Error};
use crate::ledger::core::append::BatchAnswer;
use crate::ledger::core::entry::{Death, DecisionKind, Entry, Head, Write};
use crate::ledger::core::record::{Expect, Record, RecordMark, json};

impl Bucket {
    /// The head of a whole ledger, after what is torn has been completed. Before the first append over a connection.
    pub(super) async fn repair(
        &self,
        connection: &Connection,
        head: Head,
        sequence: u64,
    ) -> Result<(Head, u64), Error> {
        if let Some((entry, at)) = self.entry_stored(connection, head.n + 1, head.n).await? {
            let whole = head.after(&entry);
            let missing = self.missing(connection, &entry, at).await?;
            return self.complete(connection, whole, sequence, missing).await;
        }
        let Some((entry, at)) = self.entry_stored(connection, head.n, head.n).await? else {
            // One that is collected was whole.
            return match head.index_from > head.n {
                true => Ok((head, sequence)),
                false => Err(self.without_entry(connection, &head, sequence).await?),
            };
        };
        let missing = self.missing(connection, &entry, at).await?;
        match missing.is_empty() {
            true => Ok((head, sequence)),
            false => self.complete(connection, head, sequence, missing).await,
        }
    }

    /// Why a head whose entry is not there cannot be used.
    async fn without_entry(&self, connection: &Connection, head: &Head, sequence: u64) -> Result<Error, Error> {
        let (name, stream, n) = (&self.name, &self.stream, head.n);
        // Another host may have completed or collected it since the head was read.
        let now = read::head(connection, stream, &self.subjects).await?;
        if now.is_none_or(|(_, now)| now != sequence) {
            let what = self.subjects.entry(n);
            return Ok(Error::Missing { what });
        }
        Ok(Error::Refused(format!(
            "bucket {name}: the server has kept only a part of entry {n}: the head names it, and neither the entry \
             nor the host that sent it exists any more. It is not known which events it decided: restore stream \
             {stream} from a backup (`nats stream restore`); what has happened since is then done again. Or stop the \
             hosts and reset each handler of this bucket, so that it begins again at its `start`, with `jetmesh \
             reset HANDLER`"
        )))
    }

    /// `head`: the newest entry that the head speaks of.
    async fn entry_stored(&self, connection: &Connection, n: u64, head: u64) -> Result<Option<(Entry, u64)>, Error> {
        let subject = self.subjects.entry(n);
        let Some(stored) = connection.stored(&self.stream, By::Last(&subject)).await? else {
            return Ok(None);
        };
        if let Some(error) = read::in_the_way(&stored, &self.stream).filter(|_| n > head) {
            return Err(error);
        }
        Ok(Some((read::entry(&subject, &stored.payload)?, stored.sequence)))
    }

    /// What belongs to an entry and is not in the bucket, nor anything later in its place.
    async fn missing(&self, connection: &Connection, entry: &Entry, at: u64) -> Result<Vec<Record>, Error> {
        let mut missing = Vec::new();
        for decision in &entry.decisions {
            let follows = decision.follows_death.is_some();
            if decision.verdict == DecisionKind::Done && !follows {
                continue;
            }
            let subject = self.subjects.death(&decision.handler, &decision.event);
            let record = connection.stored(&self.stream, By::Last(&subject)).await?;
            let expect = match record {
                Some(record) if record.sequence > at => continue,
                // Of a replay: the death that its `done` takes the place of.
                Some(record) => Expect::Last(record.sequence),
                None => Expect::Last(0),
            };
            let body = json(&Death {
                n: entry.n,
                append: entry.append.clone(),
                verdict: decision.verdict,
            });
            missing.push(record_of(subject, expect, RecordMark::Plain, body));
        }
        let keys = entry.writes.iter().map(|write| write.key.clone()).collect();
        let known = self.fetch(connection, keys).await?;
        let revisions: std::collections::HashMap<&str, u64> = known
            .iter()
            .map(|(key, revision, _)| (key.as_str(), *revision))
            .collect();
        for write in &entry.writes {
            // Anything else than the base is this write, or one that came after it.
            if revisions.get(write.key.as_str()) == Some(&write.base) {
                missing.push(self.write(entry.n, write)?);
            }
        }
        Ok(missing)
    }

    fn write(&self, n: u64, write: &Write) -> Result<Record, Error> {
        let (mark, body) = match (&write.value, write.bytes) {
            (None, None) => (RecordMark::Tombstone, Some(Bytes::new())),
            (None, Some(_)) => (RecordMark::Plain, None),
            (Some(text), _) => (RecordMark::Plain, text.bytes().ok()),
        };
        let body = body.ok_or_else(|| {
            Error::Refused(format!(
                "bucket {}: the server has kept only a part of entry {n}, and the value of {} is too large for the \
                 entry: write it with `nats kv put {} {} …`; then the hosts continue",
                self.name, write.key, self.name, write.key
            ))
        })?;
        let subject = key_subject(&self.name, &write.key);
        Ok(record_of(subject, Expect::Last(write.base), mark, body))
    }

    async fn complete(
        &self,
        connection: &Connection,
        head: Head,
        sequence: u64,
        missing: Vec<Record>,
    ) -> Result<(Head, u64), Error> {
        let (entry, messages) = (head.n, missing.len() + 1);
        let upon = Expect::Last(sequence);
        let mut records = vec![record_of(self.subjects.head(), upon, RecordMark::Plain, json(&head))];
        records.extend(missing);
        match send::send(connection, ("repair", &records), false).await {
            BatchAnswer::Committed(last) => {
                tracing::warn!(bucket = %self.name, entry, messages,
                    "a batch of which the server had kept only a part is completed");
                Ok((head, last + 1 - messages as u64))
            }
            // Another host completes it: the next look finds it whole.
            BatchAnswer::Refused | BatchAnswer::Unknown => Err(Error::Timeout {
                what: format!("completing entry {entry} of bucket {}", self.name),
            }),
            BatchAnswer::Named(text) => Err(Error::Refused(format!(
                "bucket {}: entry {entry} is incomplete, and the server refuses the rest of it: {text}",
                self.name
            ))),
        }
    }
}

fn record_of(subject: String, expect: Expect, mark: RecordMark, body: Bytes) -> Record {
    Record {
        subject,
        expect,
        mark,
        body,
    }
}
