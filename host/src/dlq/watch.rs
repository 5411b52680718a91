//! What is written to dead letters from now on: how a replay's fate is known at once, and at the cost of one message.

use crate::broker::provision::DEAD;
use crate::broker::scan::{From, Scan};
use crate::broker::{self, Connection};
use crate::dead_letter::{self, REPLAYED, SETTLED};
use crate::dlq::course::Fate;
use crate::history;
use crate::message::{Headers, header, headers_of};

pub struct Watch {
    connection: Connection,
    scan: Option<Scan>,
    /// The next sequence that has not been seen.
    next: u64,
}

/// One message on a letter's subject.
#[derive(Debug)]
pub struct Written {
    pub subject: String,
    pub sequence: u64,
    pub fate: Fate,
}

impl Watch {
    /// From here on nothing is missed.
    pub async fn start(connection: &Connection) -> Result<Watch, broker::Error> {
        let info = connection.stream(DEAD).await?.ok_or_else(|| broker::Error::Missing {
            what: format!("stream {DEAD}"),
        })?;
        Ok(Watch {
            connection: connection.clone(),
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
                    return Ok(Written {
                        subject: scanned.message.subject.to_string(),
                        sequence: scanned.sequence,
                        fate: fate(&headers_of(scanned.message.headers.as_ref())),
                    });
                }
                // The consumer went with its server; what it would have read is still there.
                Err(broker::Error::Missing { .. }) => self.scan = None,
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a letter's newest headers say of its replay.
pub fn fate(headers: &Headers) -> Fate {
    match header(headers, SETTLED) {
        Some(REPLAYED) => Fate::Succeeded,
        Some(_) => Fate::Gone,
        None => {
            let of = |name| header(headers, name).unwrap_or_default().to_owned();
            match history::of(headers).pop() {
                Some(last) => Fate::Failed {
                    code: last.code,
                    error: last.message,
                },
                None => Fate::Failed {
                    code: of(dead_letter::CODE),
                    error: of(dead_letter::ERROR),
                },
            }
        }
    }
}
