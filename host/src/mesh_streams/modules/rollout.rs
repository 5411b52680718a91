//! How a version takes over from another one step by step: what a person has ordered. What comes of it stands in the ledgers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::EventId;

/// One in this many: shares, error rates and margins are whole numbers of millionths.
pub const MILLION: u32 = 1_000_000;

/// How a version is to take over from another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct RolloutSpec {
    /// Rollouts of one name have growing numbers.
    pub number: u64,
    /// The name in the registry.
    pub name: String,
    /// Digest of the version that serves, in 64 hex digits.
    pub serving: String,
    /// Digest of the version that is tried.
    pub canary: String,
    /// In their order; at least one.
    pub steps: Vec<RolloutStep>,
    /// How probable it may be that a version is rolled back which is no worse, in millionths.
    pub alpha: u32,
    /// How much more of the first attempts may fail on a version that is promoted, in millionths.
    pub margin: u32,
    /// Only events with this header and value run on the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<(String, String)>,
}

/// One stage of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct RolloutStep {
    /// Events run on both versions, and nothing that the canary wants is carried out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// The canary's share of the events, in millionths.
    pub share: u32,
    /// So many events must have run on the canary before the next step,
    pub events: u64,
    /// and so many seconds must have passed.
    pub seconds: u64,
}

impl RolloutSpec {
    /// Whether an event falls into a share: the same for every host, and a growing share keeps what it has.
    pub fn holds(&self, event: &EventId, share: u32) -> bool {
        // FNV-1a, 64 bits, with the finish of MurmurHash3: equal on all platforms, and rollouts draw different events.
        let text = event.to_string();
        let bytes = self.number.to_le_bytes().into_iter().chain(text.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mixed =
            [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53]
                .into_iter()
                .fold(hash ^ (hash >> 33), |hash, by: u64| {
                    let hash = hash.wrapping_mul(by);
                    hash ^ (hash >> 33)
                });
        mixed % u64::from(MILLION) < u64::from(share)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn spec(steps: Vec<RolloutStep>) -> RolloutSpec {
        RolloutSpec {
            number: 7,
            name: "inventory".to_owned(),
            serving: "a".repeat(64),
            canary: "b".repeat(64),
            steps,
            alpha: 10_000,
            margin: 10_000,
            only: None,
        }
    }

    #[test]
    fn a_share_holds_its_part_of_the_events_and_a_larger_one_holds_all_of_them_too() {
        let (spec, count) = (spec(Vec::new()), 100_000u32);
        let mut before = Vec::new();
        for share in [10_000, 100_000, 500_000, MILLION] {
            let held: Vec<u64> = (1..=u64::from(count))
                .filter(|sequence| spec.holds(&EventId::of_test(*sequence), share))
                .collect();
            let expected = f64::from(count) * f64::from(share) / f64::from(MILLION);
            let off = (held.len() as f64 - expected).abs();
            assert!(off <= 5.0 * expected.sqrt(), "{share}: {} of {expected}", held.len());
            assert!(
                before.iter().all(|event| held.contains(event)),
                "{share} has lost events"
            );
            before = held.into_iter().take(500).collect();
        }
        let other = RolloutSpec {
            number: 8,
            ..spec.clone()
        };
        let same = |event: &EventId| spec.holds(event, 100_000) == other.holds(event, 100_000);
        let differs = (1..1000).filter(|sequence| !same(&EventId::of_test(*sequence))).count();
        assert!(differs > 100, "another rollout draws other events");
    }
}
