//! What a service has written into the log as a row of an outbox: a message, or a row of a table.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::pgoutput::Relation;
use crate::outbox::marker::RowRef;
use crate::outbox::row::OutboxRow;

/// The year 2000, from which PostgreSQL counts, in microseconds since the Unix epoch.
const EPOCH: i64 = 946_684_800_000_000;
/// The number of the type `bytea`.
const BYTEA: u32 = 17;

/// The content of a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageContent<'a> {
    subject: String,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    /// A text as it is, any other value as JSON, also `null`.
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    payload_base64: Option<String>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// A message at this place of the log, of a transaction that was committed at this time.
pub fn of_message(at: u64, time: i64, content: &Bytes) -> OutboxRow {
    let mut row = OutboxRow {
        at: RowRef(at.cast_signed(), random(at, time, &[])),
        placed: true,
        time_ms: milliseconds(time),
        subject: String::new(),
        headers: None,
        payload: content.clone(),
        odd: None,
    };
    match read(content) {
        Err(why) => row.odd = Some(format!("its message is not what an outbox reads: {why}")),
        Ok((subject, headers, payload)) => {
            (row.subject, row.headers, row.payload) = (subject, headers, payload.into());
        }
    }
    row
}

type Parts = (String, Option<String>, Vec<u8>);

fn read(content: &[u8]) -> Result<Parts, String> {
    // An array would be read as the values of the keys.
    if !content.trim_ascii_start().starts_with(b"{") {
        return Err("it is not a JSON object with the key subject".to_owned());
    }
    let content: MessageContent = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    let payload = match (content.payload, content.payload_base64) {
        (Some(_), Some(_)) => return Err("it has both payload and payload_base64".to_owned()),
        (None, None) => Vec::new(),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map_err(|error| format!("payload_base64: {error}"))?,
        (Some(json), None) => match serde_json::from_str::<String>(json.get()) {
            Ok(text) => text.into_bytes(),
            Err(_) => json.get().as_bytes().to_vec(),
        },
    };
    let headers = content.headers.map(|json| json.get().to_owned());
    Ok((content.subject, headers, payload))
}

/// A row that a transaction has inserted at this place of the log, which was committed at this time. `Err`: its table is no outbox.
pub fn of_insert(
    relation: &Relation,
    values: &[Option<Bytes>],
    (place, time): (u64, i64),
) -> Result<OutboxRow, NoOutbox> {
    let value = |name: &str| {
        let at = relation.columns.iter().position(|column| column.0 == name)?;
        Some((relation.columns[at].1, values.get(at).cloned().flatten()))
    };
    let lacks: Vec<&str> = NEEDED.into_iter().filter(|name| value(name).is_none()).collect();
    if !lacks.is_empty() {
        return Err(NoOutbox(lacks.join(", ")));
    }
    let text = |name: &str| Some(String::from_utf8_lossy(&value(name)?.1?).into_owned());
    let mut odd = None;
    let mut number = |name: &str| {
        let number = text(name).and_then(|text| text.parse::<i64>().ok());
        if number.is_none() {
            odd = Some(format!(
                "its {name} is not a number: the row is named by its place in the log"
            ));
        }
        number
    };
    let (at, placed) = match (number("id"), number("uid")) {
        (Some(id), Some(uid)) => (RowRef(id, uid), false),
        _ => (RowRef(place.cast_signed(), random(place, time, values)), true),
    };
    let payload = match value("payload").unwrap_or_default() {
        (_, None) => Bytes::new(),
        (BYTEA, Some(hex)) => unhex(&hex).unwrap_or_else(|| {
            odd = Some("its payload is not written as hexadecimal digits".to_owned());
            hex
        }),
        (_, Some(text)) => text,
    };
    Ok(OutboxRow {
        at,
        placed,
        time_ms: milliseconds(time),
        subject: text("subject").unwrap_or_default(),
        headers: text("headers"),
        payload,
        odd,
    })
}

/// What a table must have so that its rows are events. Without `headers`, they have none.
const NEEDED: [&str; 4] = ["id", "uid", "subject", "payload"];

/// The columns that a table lacks.
#[derive(Debug)]
pub struct NoOutbox(pub String);

/// As PostgreSQL writes bytes: `\x`, and two digits for each.
fn unhex(text: &[u8]) -> Option<Bytes> {
    let digits = text.strip_prefix(b"\\x")?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?).ok();
    digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

/// What tells a message from another one at the same place, after an older copy was restored: when it was committed. Rows that are
/// inserted together have one place, and are told apart by their values.
fn random(at: u64, time: i64, values: &[Option<Bytes>]) -> i64 {
    let mut hash = Sha256::new();
    hash.update(at.to_be_bytes());
    hash.update(time.to_be_bytes());
    for value in values.iter().flatten() {
        hash.update(value);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first) & i64::MAX
}

fn milliseconds(time: i64) -> u64 {
    u64::try_from((time + EPOCH) / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_an_event_with_its_payload_as_it_was_written() {
        let read = |content: &'static str| of_message(7, 0, &Bytes::from_static(content.as_bytes()));
        let payloads = [
            (
                r#"{"subject": "a.b", "payload": {"n": 1.10, "b":2}}"#,
                r#"{"n": 1.10, "b":2}"#,
            ),
            (r#"{"subject": "a.b", "payload": "a \"text\""}"#, r#"a "text""#),
            (r#"{"subject": "a.b", "payload_base64": "aGk="}"#, "hi"),
            (r#"{"subject": "a.b", "payload": null}"#, "null"),
            (r#"{"subject": "a.b"}"#, ""),
        ];
        for (content, payload) in payloads {
            let row = read(content);
            assert_eq!((row.subject.as_str(), row.odd), ("a.b", None), "{content}");
            assert_eq!(row.payload, payload.as_bytes(), "{content}");
        }
        assert_eq!(read(r#"{"subject": "a.b", "headers": null}"#).headers, None);
        let row = read(r#"{"subject": "a.b", "headers": {"x": "1"}}"#);
        assert_eq!(row.headers.as_deref(), Some(r#"{"x": "1"}"#));
        assert_eq!(row.time_ms, 946_684_800_000);
        for odd in [
            "",
            "[]",
            r#"["a.b", null, 1, null]"#,
            "{}",
            r#"{"subject": 1}"#,
            r#"{"subject": "a", "body": 1}"#,
            r#"{"subject": "a", "payload_base64": "?"}"#,
        ] {
            let row = read(odd);
            assert!(row.odd.is_some() && row.payload == odd, "{odd}");
        }
    }

    #[test]
    fn messages_at_one_place_of_two_histories_are_different_rows() {
        let (one, two) = (of_message(7, 1, &Bytes::new()), of_message(7, 2, &Bytes::new()));
        assert_ne!(one.at, two.at);
        assert_eq!(one.at, of_message(7, 1, &Bytes::new()).at);
        assert_ne!(one.at.1, of_message(8, 1, &Bytes::new()).at.1);
    }

    #[test]
    fn a_row_of_a_table_is_an_event_with_its_bytes() {
        let columns = [
            ("id", 20),
            ("subject", 25),
            ("headers", 3802),
            ("payload", BYTEA),
            ("uid", 20),
        ];
        let mut relation = Relation {
            id: 1,
            table: "public.outbox".to_owned(),
            columns: columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(),
        };
        let values = ["42", "a.b", "{}", "\\x00fF", "7"].map(|text| Some(Bytes::from_static(text.as_bytes())));
        let read = |relation: &Relation, values: &[Option<Bytes>]| of_insert(relation, values, (9, 0));
        let row = read(&relation, &values).unwrap();
        assert_eq!((row.at, &row.payload[..]), (RowRef(42, 7), &[0, 255][..]));
        let mut broken = values.clone();
        broken[3] = Some(Bytes::from_static(b"\\x0"));
        assert!(read(&relation, &broken).unwrap().odd.is_some());
        relation.columns[3].1 = 25;
        assert_eq!(read(&relation, &values).unwrap().payload, "\\x00fF");
        // A row that cannot be named by its columns is named by its place, and is a dead letter.
        broken[0] = None;
        let row = read(&relation, &broken).unwrap();
        assert!(row.at.0 == 9 && row.odd.is_some_and(|odd| odd.contains("its id is not a number")));
        relation.columns.remove(2);
        let mut plain = values.to_vec();
        plain.remove(2);
        assert_eq!(read(&relation, &plain).unwrap().headers, None);
        relation.columns.truncate(2);
        assert_eq!(read(&relation, &plain).unwrap_err().0, "uid, payload");
    }
}
