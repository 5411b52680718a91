//! What is written to dead letters from now on: how a replay's fate is known at once, and at the cost of one message.

use crate::broker::provision::DEAD;
use crate::broker::scan::{From, Scan};
use crate::broker::{self, Connection};
use crate::dlq::course::{Fate, Whose};
use crate::event::{Headers, header, headers_of};
use crate::mesh_streams::attempts::history;
use crate::mesh_streams::dead_letter::{self, ASKED_BY, REPLAYED, SETTLED};

pub struct Watch {
    connection: Connection,
    /// Which run of replays looks on.
    run: String,
    scan: Option<Scan>,
    /// The next sequence that has not been seen.
    next: u64,
}

/// One message on a letter's subject.
#[derive(Debug)]
pub struct Written {
    pub subject: String,
    pub sequence: u64,
    pub fate: (Fate, Whose),
}

impl Watch {
    /// From here on nothing is missed. `run`: which run of replays looks on.
    pub async fn start(connection: &Connection, run: &str) -> Result<Watch, broker::Error> {
        let info = connection.stream(DEAD).await?.ok_or_else(|| broker::Error::Missing {
            what: format!("stream {DEAD}"),
        })?;
        Ok(Watch {
            connection: connection.clone(),
            run: run.to_owned(),
            scan: None,
            next: info.state.last_seq + 1,
        })
    }

    /// The next message, however long it takes to come.
    pub async fn next(&mut self) -> Result<Written, broker::Error> {
        loop {
            let scan = match &mut self.scan {
                Some(scan) => scan,
                None => {
                    // Without the parts of large ones, whose subjects go on.
                    let subjects = ["$MESH.dead.*.*.*.*".to_owned()];
                    let from = From::Sequence(self.next);
                    let scan = Scan::start(&self.connection, DEAD, &subjects, from, u64::MAX, true).await?;
                    self.scan.insert(scan)
                }
            };
            match scan.wait().await {
                Ok(scanned) => {
                    self.next = scanned.sequence + 1;
                    if scanned.malformed.is_some() {
                        continue;
                    }
                    let headers = headers_of(scanned.message.headers.as_ref());
                    if let Some(fate) = fate(&headers, &self.run) {
                        return Ok(Written {
                            subject: scanned.message.subject.to_string(),
                            sequence: scanned.sequence,
                            fate,
                        });
                    }
                }
                // The consumer went with its server; what it would have read is still there.
                Err(broker::Error::Missing { .. }) => self.scan = None,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The fate of a letter's replay by its newest headers, and which run asked for it. Headers that name no run count as this
/// run's: hosts of earlier builds do not write who has asked. `None`: a person has edited the letter, which is no fate.
pub fn fate(headers: &Headers, run: &str) -> Option<(Fate, Whose)> {
    let whose = |asked_by: Option<&str>| match asked_by {
        Some(asked_by) if asked_by != run => Whose::Another,
        Some(_) | None => Whose::Own,
    };
    Some(match header(headers, SETTLED) {
        Some(REPLAYED) => (Fate::Succeeded, whose(header(headers, ASKED_BY))),
        Some(_) => (Fate::Gone, Whose::Another),
        None if dead_letter::is_edited(headers) => return None,
        None => {
            let of = |name| header(headers, name).unwrap_or_default().to_owned();
            let last = history::of(headers).pop();
            let whose = whose(last.as_ref().and_then(|last| last.asked_by.as_deref()));
            let (code, error) = match last {
                Some(last) => (last.code, last.message),
                None => (of(dead_letter::CODE), of(dead_letter::ERROR)),
            };
            (Fate::Failed { code, error }, whose)
        }
    })
}
