//! What becomes of the letter whose replay has ended.

use super::{LetterAsked, ReplayFound};
use crate::broker::{Connection, Error};
use crate::event::rfc3339;
use crate::failpoint;
use crate::handler_task::delivery::{Delivery, Ran};
use crate::handler_task::links::{Link, Links};
use crate::handler_task::record::AttemptRecords;
use crate::ledger::Bucket;
use crate::mesh_streams::attempts::Attempt;
use crate::mesh_streams::attempts::history::{self, HISTORY};
use crate::mesh_streams::dead_letter::{self, DEAD_SINCE, EDITED, Envelope, LEDGER, REDRIVEN, REPLAYED};
use crate::mesh_streams::replay_queue::is_redrive;
use crate::trouble::Weight;

/// The replay of a letter has failed for good: its letter gets one more attempt in its history, and stays as it is
/// otherwise. If that cannot be written, the replay is over anyway.
pub async fn failed_again(links: &Links, records: &AttemptRecords, delivery: &Delivery, attempt: u32, ran: &Ran) {
    let (Some(letter), Some(link)) = (delivery.letter(), links.present()) else {
        return;
    };
    let told = records.told(attempt, ran);
    let told = Attempt {
        replay: true,
        asked_by: delivery.asked_by().map(str::to_owned),
        ..told
    };
    if let Err(error) = add_to_history(&link.connection, letter, told).await {
        let (handler, event) = (links.handler(), &delivery.message.event);
        trouble!(Weight::Aside, handler, error, { %handler, %event, %error },
            "a failed replay is not in its letter's history");
    }
}

/// Nothing happens to a letter that was settled or written again meanwhile.
async fn add_to_history(connection: &Connection, replayed: &Envelope, attempt: Attempt) -> Result<(), Error> {
    let letter = dead_letter::read(connection, &replayed.subject).await?;
    let Some(letter) = letter.filter(|letter| letter.sequence == replayed.sequence) else {
        return Ok(());
    };
    let redriven = letter.redriven() + u32::from(attempt.asked_by.as_deref().is_some_and(is_redrive));
    let mut attempts = history::of(&letter.headers);
    attempts.push(attempt);
    let mut headers = letter.headers.clone();
    headers.retain(|(name, _)| ![HISTORY, DEAD_SINCE, REDRIVEN, EDITED].contains(&name.as_str()));
    if redriven > 0 {
        headers.push((REDRIVEN.to_owned(), redriven.to_string()));
    }
    headers.push((DEAD_SINCE.to_owned(), rfc3339(letter.dead_since_ms())));
    headers.push((HISTORY.to_owned(), history::value(&attempts)));
    failpoint::point("before-history");
    let payload = letter.payload.clone();
    dead_letter::rewrite(connection, &letter, headers, payload).await
}

/// How often the replay of an event that is done is delivered before its letter is resolved here: until then the relay may be
/// about to do that, and the first delivery may have been answered from what a replica had.
const LEFT_OVER_AFTER: u64 = 3;

/// The letter of an event that is not dead. If the event is done, the letter is one too many, and is resolved: its stream has lost
/// the message that resolved it, or the letter was restored from an export after that message had expired.
pub(super) async fn left_over(bucket: &Bucket, link: &Link, asked: &LetterAsked<'_>) -> Result<ReplayFound, Error> {
    let Some(letter) = dead_letter::read(&link.connection, asked.letter.subject).await? else {
        return Ok(ReplayFound::Over);
    };
    bucket.catch_up().await?;
    if letter.header(LEDGER) != bucket.name || bucket.decided(asked.handler, asked.event).is_none() {
        return Ok(ReplayFound::Over);
    }
    if asked.delivered < LEFT_OVER_AFTER {
        return Ok(ReplayFound::Later);
    }
    let (handler, event) = (asked.handler, asked.event);
    if dead_letter::resolve(&link.connection, &letter, REPLAYED, asked.by.as_deref()).await? {
        tracing::warn!(handler, %event, "the dead letter of an event that is done was still there and is resolved");
    }
    Ok(ReplayFound::Over)
}

/// The replay of a handler without a ledger is done: its letter goes.
pub async fn settle_directly(links: &Links, delivery: &Delivery) {
    let (Some(letter), Some(link)) = (delivery.letter(), links.present()) else {
        return;
    };
    if let Err(error) = settle(&link.connection, letter, delivery.asked_by()).await {
        let (handler, event) = (links.handler(), &delivery.message.event);
        trouble!(Weight::Aside, handler, error, { %handler, %event, %error }, "a replayed dead letter stays listed");
    }
}

async fn settle(connection: &Connection, letter: &Envelope, asked_by: Option<&str>) -> Result<(), Error> {
    dead_letter::settle(connection, &letter.subject, REPLAYED, asked_by, letter.in_parts).await
}
