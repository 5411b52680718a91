//! When a schedule is due, as the configuration says it and as it is stored. `calendar` computes the due times.

use serde::{Deserialize, Serialize};

use super::time_text;

/// What a schedule is due by, as the configuration says it and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    Cron {
        expression: String,
        /// Name of a zone in the IANA database.
        zone: String,
        dst: Dst,
    },
    /// In seconds; counted from the start of the schedule, else from 1970.
    Every(u64),
    /// Once; in milliseconds since the Unix epoch.
    At(#[serde(with = "time_text")] u64),
}

/// What becomes of a local time on the day on which the clock is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dst {
    /// It comes once, on every day.
    Once,
    /// It comes when the clock shows it: not at all where the clock is set forward over it, twice where it is set back.
    Clock,
}

/// When a schedule is due, with its bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timetable {
    pub when: When,
    /// Nothing is due before; in milliseconds since the Unix epoch.
    #[serde(
        default,
        rename = "start",
        with = "time_text::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub start_ms: Option<u64>,
    /// Nothing is due after.
    #[serde(
        default,
        rename = "end",
        with = "time_text::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub end_ms: Option<u64>,
}
