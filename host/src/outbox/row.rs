//! A row of an outbox's table, and whether it is an event.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::marker::{RowRef, SkippedRow};
use crate::event::effects::{Emit, check_subject};
use crate::event::subject::subject_matches;
use crate::event::{Headers, check_header};
use crate::plan::lsn_text;

/// A row as the database has it.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    pub at: RowRef,
    /// Its id is its place in the log, and not one of a table.
    pub placed: bool,
    /// When it was written, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub subject: String,
    /// JSON.
    pub headers: Option<String>,
    pub payload: Bytes,
    /// A column whose value has another type than it should.
    pub odd: Option<String>,
}

impl OutboxRow {
    /// About how much of a batch it is.
    pub fn bytes(&self) -> usize {
        self.subject.len() + self.headers.as_ref().map_or(0, String::len) + self.payload.len()
    }

    /// Its id for people.
    pub fn name(&self) -> String {
        match self.placed {
            true => lsn_text(self.at.0.cast_unsigned()),
            false => self.at.0.to_string(),
        }
    }

    /// Whether a person has skipped it.
    pub fn is(&self, skipped: &SkippedRow) -> bool {
        self.placed && self.at.0 == skipped.id
    }

    /// Its headers, as far as they can be read.
    pub fn readable_headers(&self) -> Headers {
        headers(self.headers.as_deref()).unwrap_or_default()
    }
}

/// What a stream takes.
#[derive(Debug, Clone)]
pub struct StreamLimits {
    pub stream: String,
    /// What it captures.
    pub subjects: Vec<String>,
    /// The largest message that the server and the stream take.
    pub message_bytes_max: usize,
}

/// Why a row can never be an event of the stream; `Ok`: its headers.
pub fn judge(row: &OutboxRow, limits: &StreamLimits) -> Result<Headers, String> {
    if let Some(odd) = &row.odd {
        return Err(odd.clone());
    }
    check_subject(&row.subject)?;
    if row.subject.starts_with('$') || row.subject.starts_with("_INBOX") {
        return Err(format!("`{}` is a subject of the server or the mesh", row.subject));
    }
    if !limits
        .subjects
        .iter()
        .any(|pattern| subject_matches(pattern, &row.subject))
    {
        let (stream, captured) = (&limits.stream, limits.subjects.join(", "));
        return Err(format!(
            "stream {stream} does not capture `{}`: it captures {captured}",
            row.subject
        ));
    }
    let headers = headers(row.headers.as_deref())?;
    let emit = Emit {
        subject: row.subject.clone(),
        headers,
        payload: row.payload.clone(),
        due_ms: None,
    };
    emit.check(limits.message_bytes_max)
        .map_err(|error| error.to_string())?;
    Ok(emit.headers)
}

/// Reads a JSON object whose values are texts, numbers as they are written, booleans, or lists of these. `null`: no headers.
fn headers(text: Option<&str>) -> Result<Headers, String> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Ok(Headers::new());
    };
    let read: Option<BTreeMap<String, &RawValue>> =
        serde_json::from_str(text).map_err(|error| format!("its headers are not a JSON object: {error}"))?;
    let mut headers = Headers::new();
    for (name, value) in read.unwrap_or_default() {
        let values = match value.get() {
            "null" => continue,
            list if list.starts_with('[') => serde_json::from_str(list).unwrap_or_default(),
            _ => vec![value],
        };
        for value in values {
            let text =
                written(value).ok_or_else(|| format!("header `{}`: its value is not a text", name.escape_debug()))?;
            check_header(&name, &text)?;
            headers.push((name.clone(), text));
        }
    }
    Ok(headers)
}

/// A text, a number with all its digits, or a boolean.
fn written(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        json if json.starts_with(['[', '{']) => None,
        json if json.starts_with('"') => serde_json::from_str(json).ok(),
        json => Some(json.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: &str, headers: Option<&str>, bytes: usize) -> OutboxRow {
        OutboxRow {
            at: RowRef(1, 2),
            placed: false,
            time_ms: 3,
            subject: subject.to_owned(),
            headers: headers.map(str::to_owned),
            payload: vec![b'x'; bytes].into(),
            odd: None,
        }
    }

    fn limits() -> StreamLimits {
        StreamLimits {
            stream: "ORDERS".to_owned(),
            subjects: vec!["orders.>".to_owned(), "$MESH.outbox.orders".to_owned()],
            message_bytes_max: 10_000,
        }
    }

    #[test]
    fn a_row_is_an_event_if_its_stream_can_take_it() {
        let headers = r#"{"traceparent": "00-1", "n": 7, "list": ["a", true], "none": null}"#;
        let read = judge(&row("orders.a", Some(headers), 5), &limits()).unwrap();
        let expected = [("list", "a"), ("list", "true"), ("n", "7"), ("traceparent", "00-1")];
        assert_eq!(read, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        for none in [" ", "null", " null ", "{}"] {
            assert_eq!(judge(&row("orders.a", Some(none), 5), &limits()), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_place_of_a_log_names_no_row_of_a_table() {
        let skipped = SkippedRow {
            id: 1,
            why: String::new(),
        };
        let mut row = row("orders.a", None, 1);
        assert!(!row.is(&skipped) && row.name() == "1");
        row.placed = true;
        assert!(row.is(&skipped) && row.name() == "0/1");
    }

    #[test]
    fn a_number_in_headers_has_the_digits_that_were_written() {
        for number in ["12.50", "123456789012345678901234567890", "-0", "1E2"] {
            let headers = format!("{{\"n\": {number}, \"list\": [ {number} ]}}");
            let read = judge(&row("orders.a", Some(&headers), 5), &limits()).unwrap();
            assert_eq!(read, ["list", "n"].map(|name| (name.to_owned(), number.to_owned())));
        }
    }

    #[test]
    fn a_row_that_its_stream_can_never_take_says_why() {
        let rows = [
            (row("orders.", None, 1), "between dots are not empty"),
            (row("orders.*", None, 1), "wildcards"),
            (row("stock.a", None, 1), "stream ORDERS does not capture `stock.a`"),
            (row("$MESH.outbox.orders", None, 1), "of the server or the mesh"),
            (row("orders.a", Some("[1]"), 1), "not a JSON object"),
            (
                row("orders.a", Some(r#"{"a": {}}"#), 1),
                "header `a`: its value is not a text",
            ),
            (
                row("orders.a", Some(r#"{"Nats-TTL": "1s"}"#), 1),
                "begin with Nats- or Mesh-",
            ),
            (row("orders.a", Some(r#"{"a": "x\ny"}"#), 1), "one line"),
            (row("orders.a", None, 10_000), "over the limit"),
            (
                OutboxRow {
                    odd: Some("odd".to_owned()),
                    ..row("orders.a", None, 1)
                },
                "odd",
            ),
        ];
        for (row, why) in rows {
            let found = judge(&row, &limits()).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
    }
}
