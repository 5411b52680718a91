//! A letter as it is read back.

use bytes::{Bytes, BytesMut};

use super::{DEAD_SINCE, PARTS, REDRIVEN, SETTLED};
use crate::broker::provision::DEAD;
use crate::broker::{By, Connection, Error};
use crate::event::{Headers, header, parse_rfc3339};

#[derive(Debug, Clone)]
pub struct Letter {
    pub subject: String,
    pub sequence: u64,
    pub time_ms: u64,
    pub headers: Headers,
    pub payload: Bytes,
}

impl Letter {
    /// What people call it by: `<handler>.<incarnation>.<sequence>`.
    pub fn id(&self) -> &str {
        id_of(&self.subject)
    }

    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name).unwrap_or_default()
    }

    /// When it died, in milliseconds since the Unix epoch.
    pub fn dead_since_ms(&self) -> u64 {
        parse_rfc3339(self.header(DEAD_SINCE)).unwrap_or(self.time_ms)
    }

    /// How many of its failed replays the mesh had begun by itself.
    pub fn redriven(&self) -> u32 {
        self.header(REDRIVEN).parse().unwrap_or(0)
    }

    /// Its body lies in parts on subjects of their own.
    pub fn is_in_parts(&self) -> bool {
        header(&self.headers, PARTS).is_some()
    }

    /// Why it is resolved; `None`: it is not.
    pub fn settled(&self) -> Option<&str> {
        header(&self.headers, SETTLED)
    }

    pub fn is_settled(&self) -> bool {
        self.settled().is_some()
    }
}

/// The id of a letter, from its subject.
pub fn id_of(subject: &str) -> &str {
    subject
        .strip_prefix("$MESH.dead.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(subject, |(_, id)| id)
}

/// The handler of a letter, or its outbox, from its subject.
pub fn handler_of(subject: &str) -> &str {
    id_of(subject).split('.').next().unwrap_or_default()
}

/// What lies on a letter's subject, settled or not, without the parts of its body.
pub async fn stored(connection: &Connection, subject: &str) -> Result<Option<Letter>, Error> {
    let Some(stored) = connection.stored(DEAD, By::Last(subject)).await? else {
        return Ok(None);
    };
    let headers = stored.headers().map_err(|why| Error::Answer {
        what: subject.to_owned(),
        why,
    })?;
    Ok(Some(Letter {
        subject: stored.subject,
        sequence: stored.sequence,
        time_ms: stored.time_ms,
        headers,
        payload: stored.payload,
    }))
}

/// The letter on a subject, whole; `None` if there is none, or it is resolved.
pub async fn read(connection: &Connection, subject: &str) -> Result<Option<Letter>, Error> {
    let letter = stored(connection, subject).await?;
    let Some(mut letter) = letter.filter(|letter| !letter.is_settled()) else {
        return Ok(None);
    };
    if let Ok(parts) = letter.header(PARTS).parse::<usize>() {
        let mut payload = BytesMut::new();
        for part in 1..=parts {
            let subject = format!("{subject}.part.{part}");
            let stored = connection.stored(DEAD, By::Last(&subject)).await?;
            let stored = stored.ok_or_else(|| Error::Refused(format!("{subject} is missing")))?;
            payload.extend_from_slice(&stored.payload);
        }
        letter.payload = payload.freeze();
    }
    Ok(Some(letter))
}
