//! `jetmesh dlq show`: everything that is known of one dead letter.

use crate::broker::provision::DEAD;
use crate::cli::{Error, OK, table};
use crate::dead_letter::{self, Letter};

pub fn run(letter: &Letter) -> Result<u8, Error> {
    println!("{}  ({})", letter.id(), letter.subject);
    println!("dead since {}", crate::message::rfc3339(letter.dead_since_ms()));
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
