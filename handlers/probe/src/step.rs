//! The orders that the probe understands.

use std::collections::BTreeMap;

use jetmesh_sdk::{log, serde_json::Value};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    // Answers.
    Ok,
    Retry {
        code: String,
        message: String,
        delay_ms: Option<u64>,
    },
    Reject {
        code: String,
        message: String,
    },
    /// Asks for a retry until this attempt.
    FailUntil {
        attempt: u32,
    },
    /// Asks for a retry until a key has a value.
    Need {
        key: String,
    },
    Panic {
        message: String,
    },
    Trap,
    // Resources.
    /// Never ends.
    Spin,
    /// Computes for this long.
    Burn {
        ms: u64,
    },
    Sleep {
        ms: u64,
    },
    /// Holds this much more memory until the end of the call.
    Grow {
        mib: usize,
    },
    /// Overflows the stack.
    Recurse,
    // Imports.
    Log {
        level: Level,
        message: String,
        times: Option<u32>,
    },
    Get {
        key: String,
    },
    Set {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    /// Adds to an integer; a key without a value counts as 0.
    Add {
        key: String,
        by: i64,
    },
    /// Takes one off an integer, which must be above 0.
    Take {
        key: String,
    },
    /// Adds a word to a list of words: `<handler>:<text>`, and `=<value>` of another key if one is named.
    Append {
        key: String,
        text: String,
        with: Option<String>,
    },
    /// Emits the value of a key, or nothing for none.
    Tell {
        key: String,
        subject: String,
    },
    /// Steps of one handler only.
    For {
        handler: String,
        #[serde(rename = "do")]
        steps: Vec<Step>,
    },
    /// Steps of one version only.
    InVersion {
        version: String,
        #[serde(rename = "do")]
        steps: Vec<Step>,
    },
    Emit {
        subject: String,
        payload: Value,
        headers: Option<BTreeMap<String, String>>,
    },
    /// Emits later: after so many milliseconds, or at a time in milliseconds since 1970.
    EmitLater {
        subject: String,
        payload: Value,
        after_ms: Option<u64>,
        at_ms: Option<u64>,
    },
    TimerSet {
        name: String,
        subject: String,
        payload: Value,
        after_ms: Option<u64>,
        at_ms: Option<u64>,
    },
    TimerCancel {
        name: String,
    },
    EmitMany {
        subject: String,
        count: u32,
        bytes: usize,
    },
    /// Emits what this event looks like from inside.
    Echo {
        subject: String,
    },
    /// Emits the context, and the setting `greeting`.
    Context {
        subject: String,
    },
    Version {
        subject: String,
    },
    // The world outside.
    Stdout {
        message: String,
    },
    Stderr {
        message: String,
    },
    /// Emits random numbers of both kinds, and the time.
    Random {
        subject: String,
    },
    /// Rejects with the code `drew` and random numbers of both kinds.
    Draw,
    Fs {
        path: String,
    },
    Net {
        address: String,
    },
    /// Rejects with the names of all environment variables.
    Env,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl From<Level> for log::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}
