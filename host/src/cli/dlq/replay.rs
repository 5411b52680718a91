//! `jetmesh dlq replay`: dead letters go back to where they failed.

use crate::broker::Connection;
use crate::broker::connection::header_map;
use crate::cli::{Error, OK};
use crate::dead_letter::{self, Letter};
use crate::message::EventId;
use crate::replay;

pub async fn run(connection: &Connection, letter: &Letter) -> Result<u8, Error> {
    if letter.header(dead_letter::CAUSE) == "undeliverable" {
        return publish_again(connection, letter).await;
    }
    let handler = letter.header(dead_letter::HANDLER);
    let event = EventId::parse(letter.header(dead_letter::EVENT)).ok_or_else(|| {
        Error::Failed(format!(
            "{}: its {} header names no event",
            letter.id(),
            dead_letter::EVENT
        ))
    })?;
    if letter.header(dead_letter::CAUSE) == "lost" {
        return Err(Error::Failed(format!(
            "{}: the event was lost with its payload; there is nothing to replay",
            letter.id()
        )));
    }
    replay::ask(connection, handler, &event, Some(&letter.subject)).await?;
    println!(
        "{} goes to {handler} once more; it leaves `jetmesh dlq ls` when it is done",
        letter.id()
    );
    Ok(OK)
}

/// An emitted event that no stream took: it goes where it was meant to go, under its own id.
async fn publish_again(connection: &Connection, letter: &Letter) -> Result<u8, Error> {
    let subject = letter.header(dead_letter::SUBJECT);
    let headers = dead_letter::originals(&letter.headers);
    let mut map = header_map(&headers).map_err(Error::Failed)?;
    map.insert("Nats-Msg-Id", letter.header(dead_letter::EVENT));
    connection.publish(subject, map, letter.payload.clone()).await?;
    dead_letter::settle_replayed(connection, letter).await?;
    println!("{} is published on {subject}", letter.id());
    Ok(OK)
}
