//! The handler's state: a NATS KV bucket.
//!
//! A read takes part in the transaction: if the key changes before the call's effects are committed, they are dropped
//! and the event is handled again. A call sees its own writes.

use std::{fmt, str::FromStr};

use crate::host;

/// The greatest length of a key.
pub const KEY_BYTES_MAX: usize = 512;

/// Why the state could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The handler has no bucket in the configuration.
    NoBucket,
    /// The key may not look like this; says why.
    InvalidKey(String),
    /// The value, or the writes of this call together, are too large; says the limit.
    TooLarge(String),
    /// Anything else, for instance that NATS cannot be reached.
    Other(String),
    /// The value is not what [`get_parsed`] was to read.
    Unparsable {
        /// The key of the value.
        key: String,
        /// What is wrong with the value.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBucket => f.write_str("the handler has no state bucket"),
            Self::InvalidKey(why) => write!(f, "invalid state key: {why}"),
            Self::TooLarge(limit) => write!(f, "state write too large: {limit}"),
            Self::Other(why) => write!(f, "state: {why}"),
            Self::Unparsable { key, reason } => write!(f, "state value of `{key}`: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// The value of a key, if it has one.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    host::state_get(key)
}

/// The value of a key, read as text and parsed: `let stock: Option<i64> = state::get_parsed("stock.sku-1")?;`
pub fn get_parsed<T>(key: &str) -> Result<Option<T>, Error>
where
    T: FromStr<Err: fmt::Display>,
{
    let unparsable = |reason: String| Error::Unparsable {
        key: key.into(),
        reason,
    };
    let Some(value) = get(key)? else { return Ok(None) };
    let text = std::str::from_utf8(&value).map_err(|error| unparsable(error.to_string()))?;
    text.parse()
        .map(Some)
        .map_err(|error: T::Err| unparsable(format!("`{text}`: {error}")))
}

/// Sets the value of a key: `state::set("stock.sku-1", left.to_string())?;`
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    host::state_set(key, value.as_ref())
}

/// Deletes a key. A key without a value is no error.
pub fn delete(key: &str) -> Result<(), Error> {
    host::state_delete(key)
}

/// Whether a key may look like this: tokens of `A-Z a-z 0-9 - _ / =`, joined by `.`, at most 512 bytes in all.
pub fn is_key(key: &str) -> bool {
    key.len() <= KEY_BYTES_MAX
        && key
            .split('.')
            .all(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/=".contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn keys_are_tokens_joined_by_dots() {
        for key in ["a", "stock.sku-1", "a/b=c_d.E.9"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", ".", "a.", ".a", "a..b", "a b", "a*", "a>", "ü", &"k".repeat(513)] {
            assert!(!is_key(key), "{key}");
        }
    }

    #[test]
    fn a_value_that_does_not_parse_names_its_key() {
        testing::reset();
        testing::set_state("n", "many");
        let error = get_parsed::<i64>("n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "state value of `n`: `many`: invalid digit found in string"
        );
        assert_eq!(get_parsed::<i64>("m"), Ok(None));
    }
}
