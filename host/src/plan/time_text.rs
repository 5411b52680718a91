//! Times as stored JSON has them: RFC 3339 in UTC, which a person can read; milliseconds since the Unix epoch in the code.

use jiff::Timestamp;
use serde::{Deserialize as _, Deserializer, Serializer};

/// A time as text.
pub fn text(ms: u64) -> String {
    let time = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(Timestamp::MAX))
}

fn parse<E: serde::de::Error>(text: &str) -> Result<u64, E> {
    let time: Timestamp = text.parse().map_err(E::custom)?;
    u64::try_from(time.as_millisecond()).map_err(|_| E::custom("a time before 1970"))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
pub fn serialize<S: Serializer>(ms: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text(*ms))
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse(&String::deserialize(from)?)
}

/// The same of times that may be absent.
pub mod option {
    use super::{Deserializer, Serializer, parse, text};
    use serde::Deserialize as _;

    #[expect(clippy::ref_option, reason = "serde hands it over so")]
    pub fn serialize<S: Serializer>(ms: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => to.serialize_str(&text(*ms)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Option::<String>::deserialize(from)?.as_deref().map(parse).transpose()
    }
}
