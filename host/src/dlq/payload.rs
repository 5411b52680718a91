//! The form that a message's bytes and headers have in the JSON that commands print, and in which exported letters are
//! read again. What a ledger stores has a form of its own.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Headers;
use crate::ledger::core::entry::Text;

/// Bytes in JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "payload")]
pub struct Payload {
    pub encoding: Encoding,
    /// The bytes: as they are if they are UTF-8, else in base64.
    pub data: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Encoding {
    Text,
    Base64,
}

/// One header in JSON: an object for each, as a name may come more than once.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "header")]
pub struct Header {
    pub name: String,
    pub value: String,
}

pub fn headers(list: &Headers) -> Vec<Header> {
    let one = |(name, value): &(String, String)| Header {
        name: name.clone(),
        value: value.clone(),
    };
    list.iter().map(one).collect()
}

impl Payload {
    pub fn of(bytes: &[u8]) -> Payload {
        let (encoding, data) = match Text::of(bytes) {
            Text::Text(data) => (Encoding::Text, data.into_owned()),
            Text::Base64(data) => (Encoding::Base64, data),
        };
        Payload { encoding, data }
    }

    /// `Err` says why the bytes cannot be had.
    pub fn into_bytes(self) -> Result<Bytes, String> {
        let text = match self.encoding {
            Encoding::Text => Text::Text(self.data.into()),
            Encoding::Base64 => Text::Base64(self.data),
        };
        text.into_bytes()
            .map_err(|error| format!("its payload is not base64: {error}"))
    }
}
