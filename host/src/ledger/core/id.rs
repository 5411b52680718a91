//! An id by which an entry makes duplicates of an event recognisable. Pure.

use serde::{Deserialize, Serialize};

/// What an event is known by besides its place in its stream: an event of the same handler with the same hash, stored
/// within the window before or after it, is the same event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    pub hash: Hash,
    /// When its stream stored it, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub window_ms: u64,
    /// By the header of an event that the mesh itself has emitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emitted: bool,
}

#[cfg(test)]
impl Id {
    /// A publisher's id, known within 10 ms.
    pub fn of_test(hash: u64, time_ms: u64) -> Id {
        Id {
            hash: Hash([hash, 0]),
            time_ms,
            window_ms: 10,
            emitted: false,
        }
    }
}

/// 128 bits, in hexadecimal digits where they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hash(pub [u64; 2]);

impl std::hash::Hash for Hash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // It is spread already: half of it finds its place in a table.
        state.write_u64(self.0[0]);
    }
}

impl From<Hash> for String {
    fn from(Hash([high, low]): Hash) -> String {
        format!("{high:016x}{low:016x}")
    }
}

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Hash, String> {
        let both = u128::from_str_radix(&text, 16).map_err(|e| e.to_string())?;
        Ok(Hash([(both >> 64) as u64, both as u64]))
    }
}
