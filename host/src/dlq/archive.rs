//! A dead letter as one line of JSON, from which it can be put back.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::select::is_id;
use crate::dlq::payload::{Header, Payload, headers};
use crate::event::outcome::Cause;
use crate::event::{Headers, header_map, parse_rfc3339, rfc3339};
use crate::mesh_streams::dead_letter::{self, DEAD_SINCE, Letter, PARTS, SETTLED, handler_of, id_of};

/// A dead letter to put back.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Archived {
    /// What people call the letter by: HANDLER.INCARNATION.SEQUENCE.
    id: String,
    /// Where the letter lies.
    subject: String,
    /// When the event died.
    #[schemars(extend("format" = "date-time"))]
    dead_since: String,
    /// The letter's own headers and its event's.
    headers: Vec<Header>,
    payload: Payload,
}

/// What an export does not have of what was meant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Lacking {
    /// Ids of which there is no letter.
    pub missing: Vec<String>,
    /// What is among the letters and could not be read.
    pub unread: Option<String>,
}

/// A line of an export.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(
    title = "A line of `jetmesh dlq export`: a dead letter to put back, or, in the end, what the export lacks",
    description = ""
)]
pub enum ExportJson {
    Letter(Archived),
    /// The last line of an export that lacks something.
    Lacks(LacksJson),
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LacksJson {
    lacks: Lacking,
}

impl Lacking {
    pub fn is_nothing(&self) -> bool {
        self.missing.is_empty() && self.unread.is_none()
    }

    /// In words.
    pub fn told(&self) -> Vec<String> {
        let missing = self
            .missing
            .iter()
            .map(|id| format!("no dead letter `{id}`, or it is resolved"));
        missing.chain(self.unread.clone()).collect()
    }

    /// As the last line of an export.
    pub fn line(&self) -> String {
        let line = ExportJson::Lacks(LacksJson { lacks: self.clone() });
        serde_json::to_string(&line).expect("it serialises")
    }

    /// What a line says that the export lacks. `None`: it is a line of another kind.
    pub fn parse(text: &str) -> Option<Lacking> {
        serde_json::from_str::<LacksJson>(text).ok().map(|line| line.lacks)
    }
}

/// What a line puts back.
#[derive(Debug, PartialEq)]
pub struct Restored {
    pub subject: String,
    pub headers: Headers,
    pub payload: Bytes,
}

/// A letter, which must be whole, as a line.
pub fn line(letter: &Letter) -> String {
    let kept = letter.headers.iter().filter(|(name, _)| !is_of_storage(name));
    let line = ExportJson::Letter(Archived {
        id: letter.id().to_owned(),
        subject: letter.subject.clone(),
        dead_since: rfc3339(letter.dead_since_ms()),
        headers: headers(&kept.cloned().collect()),
        payload: Payload::of(&letter.payload),
    });
    serde_json::to_string(&line).expect("a letter serialises")
}

/// Headers that say how a letter was stored, not what it is.
fn is_of_storage(name: &str) -> bool {
    is(name, PARTS) || is(name, DEAD_SINCE) || acts(name)
}

/// Headers that the server obeys: one of them could empty the stream.
fn acts(name: &str) -> bool {
    name.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("nats-"))
}

fn is(name: &str, header: &str) -> bool {
    name.eq_ignore_ascii_case(header)
}

/// Reads a line. `Err` says what is wrong with it.
pub fn parse(text: &str) -> Result<Restored, String> {
    // At the beginning of a file.
    let text = text.trim_start_matches('\u{feff}');
    let line: Archived = serde_json::from_str(text).map_err(|error| {
        // The caller knows the number of the line, if there are several.
        let why = error.to_string().replace(" at line 1 column ", " at column ");
        format!("it is not an exported letter: {why}")
    })?;
    if !line.subject.starts_with("$MESH.dead.") || !is_id(id_of(&line.subject)) {
        return Err(format!(
            "`{}` is not a dead letter's subject",
            line.subject.escape_debug()
        ));
    }
    if parse_rfc3339(&line.dead_since).is_none() {
        return Err(format!(
            "dead_since: `{}` is not a time",
            line.dead_since.escape_debug()
        ));
    }
    let mut headers: Headers = Vec::new();
    for Header { name, value } in line.headers {
        if is(&name, SETTLED) || acts(&name) {
            return Err(format!("a letter has no header {}", name.escape_debug()));
        }
        if !is_of_storage(&name) {
            headers.push((name, value));
        }
    }
    let of = |name| crate::event::header(&headers, name).unwrap_or_default();
    if of(dead_letter::HANDLER) != handler_of(&line.subject) {
        return Err(format!("its header {} does not fit its subject", dead_letter::HANDLER));
    }
    if Cause::parse(of(dead_letter::CAUSE)).is_none() {
        return Err(format!("its header {} is none that letters have", dead_letter::CAUSE));
    }
    headers.push((DEAD_SINCE.to_owned(), line.dead_since));
    header_map(&headers)?;
    Ok(Restored {
        subject: line.subject,
        headers,
        payload: line.payload.into_bytes()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn letter(payload: Vec<u8>) -> Letter {
        let headers = [
            ("Mesh-Handler", "inventory"),
            ("Mesh-Cause", "rejected"),
            ("Mesh-Error", "库存不足 \"x\""),
            ("Mesh-Original-Nats-Msg-Id", "o-1"),
            ("Mesh-Parts", "2"),
            ("Nats-Expected-Last-Subject-Sequence", "0"),
            ("Trace", "a"),
            ("Trace", "b"),
        ];
        Letter {
            subject: "$MESH.dead.ORDERS.inventory.k.7".into(),
            sequence: 1,
            time_ms: 1_700_000_000_123,
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            payload: payload.into(),
        }
    }

    proptest! {
        #[test]
        fn a_letter_comes_back_as_it_was_but_for_how_it_was_stored(payload in any::<Vec<u8>>()) {
            let letter = letter(payload);
            let text = line(&letter);
            prop_assert!(!text.contains('\n'));
            let back = parse(&text).unwrap();
            prop_assert_eq!(&back.subject, &letter.subject);
            prop_assert_eq!(&back.payload, &letter.payload);
            let mut headers = letter.headers.clone();
            headers.retain(|(name, _)| name != "Mesh-Parts" && !name.starts_with("Nats-"));
            headers.push(("Mesh-Dead-Since".into(), "2023-11-14T22:13:20.123Z".into()));
            prop_assert_eq!(&back.headers, &headers);
            // Once more, from what was put back.
            let again = Letter { headers: back.headers, ..letter };
            prop_assert_eq!(line(&again), text);
        }
    }

    #[test]
    fn a_line_that_could_do_harm_or_is_none_is_refused_and_says_why() {
        let good: Value = serde_json::from_str(&line(&letter(b"{}".to_vec()))).unwrap();
        assert!(parse(&good.to_string()).is_ok());
        let with = |change: &dyn Fn(&mut Value)| {
            let mut line = good.clone();
            change(&mut line);
            parse(&line.to_string()).unwrap_err()
        };
        let header = |name: &'static str, value: &'static str| {
            move |line: &mut Value| {
                let list = line["headers"].as_array_mut().unwrap();
                list.push(json!({ "name": name, "value": value }));
            }
        };
        let rows = [
            (
                with(&|l| l["subject"] = json!("orders.created")),
                "`orders.created` is not",
            ),
            (
                with(&|l| l["subject"] = json!("$MESH.dead.ORDERS.*.k.7")),
                "is not a dead letter's",
            ),
            (
                with(&|l| l["subject"] = json!("$MESH.dead.ORDERS.points.k.7")),
                "does not fit",
            ),
            (
                with(&|l| l["dead_since"] = json!("yesterday")),
                "`yesterday` is not a time",
            ),
            (with(&header("nats-rollup", "all")), "no header nats-rollup"),
            (with(&header("Mesh-Settled", "x")), "no header Mesh-Settled"),
            (
                with(&header("A", "b\r\nNats-Rollup: all")),
                "the header A cannot be written",
            ),
            (with(&|l| l["headers"] = json!([])), "Mesh-Handler"),
            (
                with(&|l| l["headers"] = json!([{ "name": "Mesh-Handler", "value": "inventory" }])),
                "Mesh-Cause",
            ),
            (
                with(&|l| l["payload"] = json!({ "encoding": "base64", "data": "?" })),
                "not base64",
            ),
            (with(&|l| l["payload"] = json!("text")), "not an exported letter"),
            (parse("").unwrap_err(), "not an exported letter"),
        ];
        for (why, text) in rows {
            assert!(why.contains(text), "{why:?} has no {text:?}");
        }
    }
}
