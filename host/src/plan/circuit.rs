//! When the circuit of a handler opens, and how it is probed.

use std::time::Duration;

/// The circuit of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitPolicy {
    /// It opens when this number of attempts ended with `retry`…
    pub failures: usize,
    /// …which is at least this percentage of all attempts that ended meanwhile…
    pub percent: u64,
    /// …and all of them lie within this time.
    pub window: Duration,
    /// The first probe comes so long after it has opened; the time doubles with each further one.
    pub probe: Duration,
    /// Most that there is between two probes.
    pub probe_max: Duration,
}
