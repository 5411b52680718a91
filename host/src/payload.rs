//! The form that a message's bytes and headers have in the JSON that commands print, and in which exported letters are
//! read again. What a ledger stores has a form of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::message::Headers;

/// Bytes in JSON: as they are if they are UTF-8, else in base64.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    pub encoding: Encoding,
    pub data: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Text,
    Base64,
}

/// One header in JSON: an object for each, as a name may come more than once.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
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
        match std::str::from_utf8(bytes) {
            Ok(text) => Payload {
                encoding: Encoding::Text,
                data: text.to_owned(),
            },
            Err(_) => Payload {
                encoding: Encoding::Base64,
                data: BASE64.encode(bytes),
            },
        }
    }

    /// `Err` says why the bytes cannot be had.
    pub fn into_bytes(self) -> Result<Bytes, String> {
        match self.encoding {
            Encoding::Text => Ok(self.data.into()),
            Encoding::Base64 => BASE64
                .decode(&self.data)
                .map(Bytes::from)
                .map_err(|error| format!("its payload is not base64: {error}")),
        }
    }
}
