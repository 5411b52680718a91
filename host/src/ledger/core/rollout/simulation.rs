//! The verdict over many rollouts by chance: how often a version is rolled back that is no worse, and how soon one is that is worse.
//! The figures stand in docs/modules.md; `cargo test -p jetmesh --features failpoints --lib -- --nocapture simulated` prints them.

#[cfg(test)]
mod tests {
    use super::super::counts::{Trial, TrialEnd, TrialSide};
    use super::super::state::{RolloutEnd, RolloutState};
    use crate::mesh_streams::modules::{MILLION, RolloutStep, spec};

    /// SplitMix64: every run draws the same.
    struct Chance(u64);

    impl Chance {
        fn happens(&mut self, probability: f64) -> bool {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut drawn = self.0;
            drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            drawn ^= drawn >> 31;
            ((drawn >> 11) as f64) < probability * (1u64 << 53) as f64
        }
    }

    /// How first attempts fail.
    #[derive(Clone, Copy)]
    struct Failing {
        serving: f64,
        canary: f64,
        /// So many events in a row fail at a time as often as is said; between two bursts, none.
        burst: u64,
    }

    /// Runs a rollout of one step without an end. Returns with which event, and which failure of the canary, it was rolled back.
    fn rolled_back(share: u32, failing: Failing, events: u64, chance: &mut Chance) -> Option<(u64, u64)> {
        let step = RolloutStep {
            shadow: false,
            share,
            events: u64::MAX,
            seconds: 0,
        };
        let mut state = RolloutState::new(spec(vec![step]), 0);
        for n in 1..=events {
            let on_canary = chance.happens(f64::from(share) / f64::from(MILLION));
            // In a burst of ten times the rate, one event of ten is.
            let rate = if on_canary { failing.canary } else { failing.serving };
            let rate = match failing.burst {
                0 => rate,
                length if (n / length).is_multiple_of(10) => rate * 10.0,
                _ => 0.0,
            };
            let failed = chance.happens(rate);
            let end = if failed { TrialEnd::Failed } else { TrialEnd::Done };
            let trial = Trial {
                handler: String::new(),
                event: String::new(),
                rollout: state.spec.number,
                step: 0,
                on: if on_canary {
                    TrialSide::Canary
                } else {
                    TrialSide::Serving
                },
                canary: on_canary.then_some(end),
                serving: (!on_canary).then_some(end),
                differs: false,
            };
            state.take(&trial, (n, 0));
            if let Some(verdict) = &state.verdict {
                assert_eq!(verdict.end, RolloutEnd::RolledBack);
                return Some((n, state.counts[0].canary_failed));
            }
        }
        None
    }

    const ROLLOUTS: u32 = 1_000;
    const EVENTS: u64 = 5_000;

    #[test]
    fn a_simulated_version_that_is_no_worse_is_seldom_rolled_back_however_often_one_looks() {
        let mut chance = Chance(17);
        for share in [10_000, 100_000, 500_000] {
            for (rate, burst) in [(0.001, 0), (0.01, 0), (0.1, 0), (0.01, 50)] {
                let failing = Failing {
                    serving: rate,
                    canary: rate,
                    burst,
                };
                let alarms = (0..ROLLOUTS)
                    .filter(|_| rolled_back(share, failing, EVENTS, &mut chance).is_some())
                    .count();
                println!("share {share}, rate {rate}, bursts of {burst}: {alarms} of {ROLLOUTS} rolled back");
                // 1 % of 1,000, and three standard deviations of that.
                assert!(alarms <= 19, "share {share}, rate {rate}, bursts of {burst}: {alarms}");
            }
        }
    }

    #[test]
    fn a_simulated_version_that_is_worse_is_rolled_back_after_few_failures() {
        let mut chance = Chance(18);
        for share in [10_000, 100_000, 500_000] {
            for (serving, canary) in [(0.0, 1.0), (0.0, 0.1), (0.01, 0.1), (0.02, 0.2)] {
                let failing = Failing {
                    serving,
                    canary,
                    burst: 0,
                };
                let mut found: Vec<(u64, u64)> = (0..200)
                    .filter_map(|_| rolled_back(share, failing, 40_000, &mut chance))
                    .collect();
                found.sort_unstable();
                let (events, failures) = found[found.len() / 2];
                println!(
                    "share {share}, {serving} against {canary}: {} of 200 rolled back, at the median after {events} events and {failures} \
                     failures of the canary",
                    found.len()
                );
                assert!(
                    found.len() >= 195,
                    "share {share}, {serving} against {canary}: {}",
                    found.len()
                );
            }
        }
    }
}
