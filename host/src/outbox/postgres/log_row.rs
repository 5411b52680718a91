//! What a service has written into the log as a row of an outbox: a message, or a row of a table.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
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
    /// A text as it is, any other value as JSON.
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    payload_base64: Option<String>,
}

/// A message at this place of the log, of a transaction that was committed at this time.
pub fn of_message(at: u64, time: i64, content: &Bytes) -> OutboxRow {
    let mut row = OutboxRow {
        at: RowRef(at.cast_signed(), random(at, time)),
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
    Ok((content.subject, headers.filter(|json| json != "null"), payload))
}

/// A row that a transaction has inserted, which was committed at this time. `Err`: a column is missing.
pub fn of_insert(relation: &Relation, values: &[Option<Bytes>], time: i64) -> Result<OutboxRow, String> {
    let value = |name: &str| {
        let at = relation.columns.iter().position(|column| column.0 == name);
        let at = at.ok_or_else(|| format!("a table of its publication has no column {name}"))?;
        Ok::<_, String>((relation.columns[at].1, values.get(at).cloned().flatten()))
    };
    let text = |name: &str| value(name).map(|(_, bytes)| bytes.map(|b| String::from_utf8_lossy(&b).into_owned()));
    let number = |name: &str| -> Result<i64, String> {
        let number = text(name)?.and_then(|text| text.parse().ok());
        number.ok_or_else(|| format!("column {name} of a table of its publication is not a number"))
    };
    let mut odd = None;
    let payload = match value("payload")? {
        (_, None) => Bytes::new(),
        (BYTEA, Some(hex)) => unhex(&hex).unwrap_or_else(|| {
            odd = Some("its payload is not written as hexadecimal digits".to_owned());
            hex
        }),
        (_, Some(text)) => text,
    };
    Ok(OutboxRow {
        at: RowRef(number("id")?, number("uid")?),
        time_ms: milliseconds(time),
        subject: text("subject")?.unwrap_or_default(),
        headers: text("headers")?,
        payload,
        odd,
    })
}

/// As PostgreSQL writes bytes: `\x`, and two digits for each.
fn unhex(text: &[u8]) -> Option<Bytes> {
    let digits = text.strip_prefix(b"\\x")?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?).ok();
    digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

/// What tells a message from another one at the same place, after an older copy was restored: when it was committed.
fn random(at: u64, time: i64) -> i64 {
    let mut hash = Sha256::new();
    hash.update(at.to_be_bytes());
    hash.update(time.to_be_bytes());
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
            (r#"{"subject": "a.b", "payload": null}"#, ""),
            (r#"{"subject": "a.b"}"#, ""),
        ];
        for (content, payload) in payloads {
            let row = read(content);
            assert_eq!((row.subject.as_str(), row.odd), ("a.b", None), "{content}");
            assert_eq!(row.payload, payload.as_bytes(), "{content}");
        }
        let row = read(r#"{"subject": "a.b", "headers": {"x": "1"}}"#);
        assert_eq!(row.headers.as_deref(), Some(r#"{"x": "1"}"#));
        assert_eq!(row.time_ms, 946_684_800_000);
        for odd in [
            "",
            "[]",
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
            columns: columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(),
        };
        let values = ["42", "a.b", "{}", "\\x00fF", "7"].map(|text| Some(Bytes::from_static(text.as_bytes())));
        let row = of_insert(&relation, &values, 0).unwrap();
        assert_eq!((row.at, &row.payload[..]), (RowRef(42, 7), &[0, 255][..]));
        let mut broken = values.clone();
        broken[3] = Some(Bytes::from_static(b"\\x0"));
        assert!(of_insert(&relation, &broken, 0).unwrap().odd.is_some());
        relation.columns[3].1 = 25;
        assert_eq!(of_insert(&relation, &values, 0).unwrap().payload, "\\x00fF");
        relation.columns.pop();
        assert!(of_insert(&relation, &values, 0).unwrap_err().contains("no column uid"));
    }
}
