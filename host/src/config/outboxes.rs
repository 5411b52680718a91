//! `[outbox]`: tables of services' databases whose rows become events.

use std::path::{Path, PathBuf};

use super::names::{check_name, check_stream};
use super::postgres;
use super::reader::{Reader, Section};
use crate::event::subject::overlap;
use crate::plan::{Handler, Outbox, OutboxDatabase, OutboxSource, Stream};
use crate::text::secret::redact;

/// How a file of SQLite is named.
const SQLITE: &str = "sqlite:";

/// The least `wal_max`: PostgreSQL keeps whole files of its log, of 16 MiB.
const WAL_MAX_LEAST: u64 = 32 << 20;

pub fn read(root: &mut Section, base: &Path, handlers: &[Handler], reader: &mut Reader) -> Vec<Outbox> {
    let mut found: Vec<Outbox> = Vec::new();
    for (name, section) in root.sections(reader, "outbox") {
        let outbox = one(name, section, base, reader);
        let key = format!("outbox.{}", outbox.name);
        if handlers.iter().any(|handler| handler.name == outbox.name) {
            let what = format!("\"{}\" is the name of a handler", outbox.name);
            reader.problem(
                &key,
                what,
                "dead letters go by these names: give the outbox another one",
            );
        }
        if let Some(other) = found
            .iter()
            .find(|o| o.database == outbox.database && o.table == outbox.table)
        {
            let what = format!("outbox {} has the same table of the same database", other.name);
            reader.problem(format!("{key}.table"), what, "a row is published once, by one outbox");
        }
        let stream = &outbox.stream;
        let marker = outbox.marker();
        let meets = |handler: &&Handler| {
            let all = handler.subjects.is_empty();
            handler.stream == *stream && (all || handler.subjects.iter().any(|subject| overlap(subject, &marker)))
        };
        for handler in handlers.iter().filter(meets) {
            let what = format!(
                "it would be given `{marker}`, with which outbox {} marks stream {stream}",
                outbox.name
            );
            let hint = "name the subjects of its events, for instance [\"orders.>\"]";
            reader.problem(format!("handlers.{}.subjects", handler.name), what, hint);
        }
        found.push(outbox);
    }
    found
}

/// Notes with the streams which of them outboxes publish into.
pub fn mark(streams: &mut [Stream], outboxes: &[Outbox]) {
    for stream in streams {
        let own = outboxes.iter().filter(|outbox| outbox.stream == stream.name);
        stream.markers = own.map(Outbox::marker).collect();
    }
}

fn one(name: String, mut section: Section, base: &Path, reader: &mut Reader) -> Outbox {
    let key = format!("outbox.{name}");
    check_name(reader, &key, &name);
    let url = section.needed(reader, "url", "the database of the service, e.g. \"sqlite:orders.db\"");
    let database = match postgres::is_postgres(&url) {
        true => OutboxDatabase::Postgres(postgres::read(&url, &mut section, base, reader)),
        false => {
            postgres::refuse(&mut section, reader);
            OutboxDatabase::Sqlite(base.join(file(&url, &format!("{key}.url"), reader)))
        }
    };
    let source = source(&database, &mut section, reader);
    let table = section.text(reader, "table").unwrap_or_else(|| "outbox".to_owned());
    check_table(reader, &format!("{key}.table"), &table);
    let stream = section.needed(
        reader,
        "stream",
        "the stream that captures its subjects, e.g. \"ORDERS\"",
    );
    let stream_key = format!("{key}.stream");
    if !stream.is_empty() {
        check_stream(reader, &stream_key, &stream);
    }
    if stream.starts_with("MESH_") || stream.starts_with("KV_") {
        let what = "streams named MESH_… and KV_… are the mesh's own";
        reader.problem(stream_key, what, "publish into one of yours");
    }
    section.finish(reader);
    Outbox {
        database,
        source,
        table,
        stream,
        name,
    }
}

fn source(database: &OutboxDatabase, section: &mut Section, reader: &mut Reader) -> OutboxSource {
    let log = section.word(reader, "source", &[("table", false), ("log", true)], false);
    let wal_max = section.bytes_or(reader, "wal_max", WAL_MAX_LEAST..=1 << 50);
    if !log {
        if wal_max.is_some() {
            let what = "only an outbox with source = \"log\" has it";
            reader.problem(section.key("wal_max"), what, "leave it out");
        }
        return OutboxSource::Table;
    }
    if let OutboxDatabase::Sqlite(_) = database {
        let what = "only PostgreSQL has a log that an outbox can read";
        reader.problem(section.key("source"), what, "\"table\"");
    }
    OutboxSource::Log { wal_max }
}

/// The file that an address of SQLite names.
fn file(url: &str, key: &str, reader: &mut Reader) -> PathBuf {
    let Some(rest) = url.strip_prefix(SQLITE) else {
        if !url.is_empty() {
            let what = format!(
                "\"{}\" is not the address of a database that an outbox can read",
                redact(url)
            );
            let hint = "\"sqlite:FILE\", relative to this configuration, or \"postgres://USER@HOST/DATABASE\"";
            reader.problem(key, what, hint);
        }
        return PathBuf::new();
    };
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.starts_with(':') || path.contains('?') {
        let what = format!("\"{}\" names no file", url.escape_debug());
        reader.problem(key, what, "\"sqlite:orders.db\" or \"sqlite:/var/lib/orders.db\"");
    }
    PathBuf::from(path)
}

/// The name of a table, which stands in statements as it is.
fn check_table(reader: &mut Reader, key: &str, table: &str) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = table.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins
        || table.len() > 48
        || !table.chars().all(word)
        || table.starts_with("sqlite_")
        || table.starts_with("pg_")
    {
        let what = format!("\"{}\" is not a table's name", table.escape_debug());
        reader.problem(
            key,
            what,
            "1 to 48 characters of A-Z a-z 0-9 _, no digit first, not sqlite_… or pg_…",
        );
    }
}
