//! The keys of a handler's circuit.

use std::time::Duration;

use super::narrow;
use super::reader::{Reader, Section};
use super::values::format_duration;
use crate::plan::CircuitPolicy;

/// What the keys say; `on`: there is a circuit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CircuitKeys {
    on: bool,
    policy: CircuitPolicy,
}

pub const BUILT_IN: CircuitKeys = CircuitKeys {
    on: true,
    policy: CircuitPolicy {
        failures: 20,
        percent: 90,
        window: Duration::from_secs(60),
        probe: Duration::from_secs(1),
        probe_max: Duration::from_secs(30),
    },
};

impl CircuitKeys {
    pub fn read(section: &mut Section, below: &CircuitKeys, reader: &mut Reader) -> CircuitKeys {
        let (ms, under) = (Duration::from_millis, &below.policy);
        let on = section.boolean(reader, "circuit", below.on);
        let failures = section.number(reader, "circuit_failures", 1..=1000, under.failures as u64);
        let policy = CircuitPolicy {
            failures: narrow(failures),
            percent: section.number(reader, "circuit_percent", 1..=100, under.percent),
            window: section.duration(reader, "circuit_window", ms(100), under.window),
            probe: section.duration(reader, "circuit_probe", ms(10), under.probe),
            probe_max: section.duration(reader, "circuit_probe_max", ms(10), under.probe_max),
        };
        let probes = |policy: &CircuitPolicy| (policy.probe_max, policy.probe);
        if policy.probe_max < policy.probe && probes(&policy) != probes(under) {
            let (most, first) = (format_duration(policy.probe_max), format_duration(policy.probe));
            let what = format!("{most} is below circuit_probe, {first}");
            reader.problem(section.key("circuit_probe_max"), what, "");
        }
        CircuitKeys { on, policy }
    }

    /// `None`: there is no circuit.
    pub fn policy(&self) -> Option<CircuitPolicy> {
        self.on.then_some(self.policy)
    }
}
