//! What becomes of a letter that is there: it is written again, or settled.

use bytes::Bytes;
use serde_json::json;

use super::{ASKED_BY, Letter, SETTLED, fitting};
use crate::broker::provision::DEAD;
use crate::broker::{Connection, Error};
use crate::event::{Headers, writable};
use crate::text::display::clean;

/// Why a letter is resolved: its replay has succeeded.
pub const REPLAYED: &str = "replayed";
/// How long a settled letter's subject stays taken: longer than any late copy of the letter can live.
pub const SETTLED_TTL: &str = "72h";

/// Writes a letter again with other headers, if it is still the one that was read. A letter that was resolved or overwritten
/// meanwhile stays as it is, and no new one is created. `payload`: its whole body.
pub async fn rewrite(
    connection: &Connection,
    letter: &Letter,
    mut headers: Headers,
    payload: Bytes,
) -> Result<(), Error> {
    headers.retain(|(name, _)| !name.starts_with("Nats-"));
    let body = if letter.is_in_parts() { Bytes::new() } else { payload };
    let (map, body) = fitting(connection, &letter.subject, &headers, body).await?;
    connection
        .publish_upon(&letter.subject, letter.sequence, map, body)
        .await
        .map(|_| ())
        .map_err(|error| error.in_stream(DEAD))
}

/// The headers of the empty message that overwrites a letter and keeps its subject taken for a while: a late copy must
/// not bring the letter back. `asked_by`: which run of `dlq replay` had asked for what settles it.
pub fn settled(reason: &str, asked_by: Option<&str>) -> Headers {
    let mut headers = vec![
        (SETTLED.to_owned(), reason.to_owned()),
        ("Nats-TTL".to_owned(), SETTLED_TTL.to_owned()),
    ];
    headers.extend(asked_by.map(|run| (ASKED_BY.to_owned(), run.to_owned())));
    headers
}

/// Settles a letter, and removes the parts of its body if it is in parts.
pub async fn settle(
    connection: &Connection,
    subject: &str,
    reason: &str,
    asked_by: Option<&str>,
    in_parts: bool,
) -> Result<(), Error> {
    let headers = writable(&settled(reason, asked_by));
    let sent = connection.publish(subject, headers, Bytes::new()).await;
    sent.map_err(|error| error.in_stream(DEAD))?;
    if in_parts {
        purge(connection, &format!("{subject}.part.>")).await?;
    }
    Ok(())
}

/// Removes what lies on a subject, or on those that match it.
pub(super) async fn purge(connection: &Connection, subject: &str) -> Result<(), Error> {
    let what = json!({ "filter": subject });
    let _: serde_json::Value = connection.api(&format!("STREAM.PURGE.{DEAD}"), &what).await?;
    Ok(())
}

/// Discards a letter that is still the one that was read. `false`: it has changed since.
pub async fn discard(connection: &Connection, letter: &Letter, reason: &str) -> Result<bool, Error> {
    resolve(connection, letter, &clean(reason), None).await
}

/// Settles a letter that is still the one that was read. `false`: it has changed since.
pub async fn resolve(
    connection: &Connection,
    letter: &Letter,
    reason: &str,
    asked_by: Option<&str>,
) -> Result<bool, Error> {
    let headers = writable(&settled(reason, asked_by));
    let stored = connection
        .publish_upon(&letter.subject, letter.sequence, headers, Bytes::new())
        .await
        .map_err(|error| error.in_stream(DEAD))?;
    if stored.is_none() {
        return Ok(false);
    }
    if letter.is_in_parts() {
        purge(connection, &format!("{}.part.>", letter.subject)).await?;
    }
    Ok(true)
}
