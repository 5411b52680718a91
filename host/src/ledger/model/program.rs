//! What the handlers of the model do: tiny programs over two keys, so chosen that a lost update, a write skew or a stale
//! read gives another result than any serial order.

use bytes::Bytes;

/// The bucket's keys.
pub const KEYS: [&str; 2] = ["a", "b"];
/// Their values. `None`: there is none.
pub type Values = [Option<u8>; 2];
/// What a program writes. `None`: nothing; `Some(None)`: it deletes the key.
pub type Writes = [Option<Option<u8>>; 2];

/// A handler's program for one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// Takes one from the first key, or rejects.
    Take,
    /// Takes one from the first key if both together hold two, else rejects; `SkewSecond` takes from the second.
    SkewFirst,
    SkewSecond,
    /// The first key becomes twice itself and the second: the order of events shows.
    Mix,
    /// Adds one to the first key.
    Add,
    /// Rejects unless the second key holds something; writes nothing.
    Need,
    /// The second key is copied to the first.
    Copy,
    /// Writes the first key without having read it.
    Blind(u8),
    /// Deletes the first key, if it holds something.
    Clear,
}

impl Program {
    /// Which keys it reads.
    pub fn reads(self) -> &'static [&'static str] {
        match self {
            Program::Take | Program::Add | Program::Clear => &KEYS[..1],
            Program::Need | Program::Copy => &KEYS[1..],
            Program::SkewFirst | Program::SkewSecond | Program::Mix => &KEYS,
            Program::Blind(_) => &[],
        }
    }

    /// `None`: it rejects the event.
    pub fn run(self, values: Values) -> Option<Writes> {
        let [a, b] = values.map(|value| value.unwrap_or(0));
        match self {
            Program::Take => (a >= 1).then(|| [Some(Some(a - 1)), None]),
            Program::SkewFirst => (u16::from(a) + u16::from(b) >= 2).then(|| [Some(Some(a.wrapping_sub(1))), None]),
            Program::SkewSecond => (u16::from(a) + u16::from(b) >= 2).then(|| [None, Some(Some(b.wrapping_sub(1)))]),
            Program::Mix => Some([Some(Some(a.wrapping_mul(2).wrapping_add(b))), None]),
            Program::Add => Some([Some(Some(a.wrapping_add(1))), None]),
            Program::Need => (b > 0).then_some([None, None]),
            Program::Copy => Some([Some(Some(b)), None]),
            Program::Blind(value) => Some([Some(Some(value)), None]),
            Program::Clear => (a > 0).then_some([Some(None), None]),
        }
    }
}

/// A value as the bucket holds it.
pub fn bytes(value: u8) -> Bytes {
    value.to_string().into()
}

pub fn value(bytes: &Bytes) -> u8 {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .expect("the model writes numbers")
}
