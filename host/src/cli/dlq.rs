//! `jetmesh dlq`: look at dead letters, and give them back.

use serde_json::json;

use super::args::Dlq;
use super::{Args, Error, OK, table};
use crate::broker::connection::header_map;
use crate::broker::provision::DEAD;
use crate::broker::scan::{From, Scan};
use crate::broker::{self, Connection};
use crate::dead_letter::{self, Letter};
use crate::message::{DeliveryInfo, EventId, headers_of};
use crate::replay;

pub async fn run(args: &Args, dlq: &Dlq) -> Result<u8, Error> {
    let loaded = args.load()?;
    let connection = broker::open(&loaded.plan.nats, "jetmesh dlq").await?;
    if connection.stream(DEAD).await?.is_none() {
        return Err(Error::Failed(format!(
            "there is no stream {DEAD}: no host of this mesh has run here"
        )));
    }
    match dlq {
        Dlq::Ls { handler, json } => list(&connection, handler.as_deref(), *json).await,
        Dlq::Show { id } => show(&find(&connection, id).await?),
        Dlq::Replay { id } => replay(&connection, &find(&connection, id).await?).await,
    }
}

async fn list(connection: &Connection, handler: Option<&str>, as_json: bool) -> Result<u8, Error> {
    let letters = letters(connection, handler.unwrap_or("*")).await?;
    if as_json {
        for letter in &letters {
            println!("{}", json_of(letter));
        }
        return Ok(OK);
    }
    if letters.is_empty() {
        println!("no dead letters");
        return Ok(OK);
    }
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            let of = |name: &str| letter.header(name).to_owned();
            vec![
                letter.id().to_owned(),
                crate::message::rfc3339(letter.time_ms),
                of(dead_letter::CAUSE),
                of(dead_letter::CODE),
                of(dead_letter::ATTEMPTS),
                of(dead_letter::SUBJECT),
                of(dead_letter::ERROR),
            ]
        })
        .collect();
    table::print(
        &["ID", "DEAD SINCE", "CAUSE", "CODE", "ATTEMPTS", "SUBJECT", "ERROR"],
        &rows,
    );
    Ok(OK)
}

/// All unsettled letters, without their bodies.
async fn letters(connection: &Connection, handler: &str) -> Result<Vec<Letter>, broker::Error> {
    let filter = [format!("$MESH.dead.*.{handler}.*.*")];
    let mut scan = Scan::start(connection, DEAD, &filter, From::Sequence(1), u64::MAX, true).await?;
    let mut found = Vec::new();
    while let Some(scanned) = scan.next().await? {
        let info = scanned.message.reply.as_deref().and_then(DeliveryInfo::parse);
        let letter = Letter {
            subject: scanned.message.subject.to_string(),
            sequence: scanned.sequence,
            time_ms: info.map_or(0, |i| i.time_ms),
            headers: headers_of(scanned.message.headers.as_ref()),
            payload: bytes::Bytes::new(),
        };
        if !letter.is_settled() {
            found.push(letter);
        }
    }
    Ok(found)
}

/// One letter, whole.
async fn find(connection: &Connection, id: &str) -> Result<Letter, Error> {
    let unknown = || Error::Failed(format!("no dead letter `{id}`; `jetmesh dlq ls` lists them"));
    let wrong = id.split('.').count() != 3 || id.split('.').any(|t| t.is_empty() || t.contains(['*', '>', ' ']));
    if wrong {
        return Err(Error::Usage(format!(
            "`{id}` is not HANDLER.INCARNATION.SEQUENCE, as `jetmesh dlq ls` prints it"
        )));
    }
    let handler = id.split('.').next().unwrap_or_default();
    let all = letters(connection, handler).await?;
    let letter = all.iter().find(|letter| letter.id() == id).ok_or_else(unknown)?;
    dead_letter::read(connection, &letter.subject)
        .await?
        .ok_or_else(unknown)
}

fn show(letter: &Letter) -> Result<u8, Error> {
    println!("{}  ({})", letter.id(), letter.subject);
    println!("dead since {}", crate::message::rfc3339(letter.time_ms));
    println!();
    // The letter's own control headers say nothing about the event.
    let told = letter.headers.iter().filter(|(name, _)| !name.starts_with("Nats-"));
    let (own, original): (Vec<_>, Vec<_>) =
        told.partition(|(name, _)| name.starts_with("Mesh-") && !name.starts_with(dead_letter::ORIGINAL));
    let rows = |list: Vec<&(String, String)>, cut: &str| {
        list.iter()
            .map(|(name, value)| vec![format!("  {}", name.strip_prefix(cut).unwrap_or(name)), value.clone()])
            .collect::<Vec<_>>()
    };
    table::print(&["WHAT IS KNOWN", ""], &rows(own, "Mesh-"));
    if !original.is_empty() {
        println!();
        table::print(&["ITS HEADERS", ""], &rows(original, dead_letter::ORIGINAL));
    }
    println!("\nITS PAYLOAD ({} bytes)", letter.payload.len());
    match (
        serde_json::from_slice::<serde_json::Value>(&letter.payload),
        std::str::from_utf8(&letter.payload),
    ) {
        (Ok(value), _) => println!("{}", serde_json::to_string_pretty(&value).unwrap_or_default()),
        (Err(_), Ok(text)) => println!("{}", crate::guest::clean(text)),
        (Err(_), Err(_)) => println!("not text; get it with `nats stream get {DEAD} {}`", letter.sequence),
    }
    Ok(OK)
}

async fn replay(connection: &Connection, letter: &Letter) -> Result<u8, Error> {
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
    dead_letter::settle(connection, &letter.subject, "replayed").await?;
    println!("{} is published on {subject}", letter.id());
    Ok(OK)
}

fn json_of(letter: &Letter) -> serde_json::Value {
    let of = |name: &str| letter.header(name);
    json!({
        "id": letter.id(),
        "subject": letter.subject,
        "sequence": letter.sequence,
        "dead_since": crate::message::rfc3339(letter.time_ms),
        "handler": of(dead_letter::HANDLER),
        "cause": of(dead_letter::CAUSE),
        "code": of(dead_letter::CODE),
        "error": of(dead_letter::ERROR),
        "attempts": of(dead_letter::ATTEMPTS).parse::<u32>().unwrap_or(0),
        "module": of(dead_letter::MODULE),
        "event": of(dead_letter::EVENT),
        "event_subject": of(dead_letter::SUBJECT),
        "first_attempt": of(dead_letter::FIRST_ATTEMPT),
        "last_attempt": of(dead_letter::LAST_ATTEMPT),
    })
}
