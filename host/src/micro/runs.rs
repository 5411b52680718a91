//! How long the runs of a handler's guest took.

use schemars::JsonSchema;
use serde::Serialize;

use crate::histogram::Counted;

/// Runs that took about as long.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RunsJson {
    /// In microseconds; null: longer than the longest bound.
    up_to_us: Option<u64>,
    #[schemars(range(min = 1))]
    count: u64,
}

impl RunsJson {
    pub fn of(counted: &Counted) -> Vec<RunsJson> {
        let bounds = counted.bounds.iter().map(|bound| Some(bound / 1000)).chain([None]);
        let all = bounds.zip(&counted.buckets);
        let all = all.map(|(up_to_us, count)| RunsJson {
            up_to_us,
            count: *count,
        });
        all.filter(|one| one.count > 0).collect()
    }
}
