//! How much speaks against a canary, and whether enough speaks for it. Only sums, products, quotients and square roots, which IEEE
//! 754 rounds exactly: every host, on every platform, comes to the same number.

use super::counts::StepCounts;
use crate::mesh_streams::modules::MILLION;

/// With more failures of the canary the evidence is asked for less often, as it costs some operations for each of them.
const OFTEN_MAX: u64 = 1_000;
const SELDOM: u64 = 64;

/// The evidence against the canary in one step: the likelihood of its part of the failures, mixed evenly over all parts above its
/// share w, by the likelihood if it is no worse, `E = 1/(1-w) · ∫ θ^c (1-θ)^s dθ / (w^c (1-w)^s)` over θ from w to 1. c and s are the
/// failures of the canary and of the serving version; w is the canary's share of the first attempts as counted, rounded up by one
/// attempt. If the canary is no worse, E reaches 1/α with a probability of at most α, however often one looks (an e-process; Ville's
/// inequality).
///
/// The integral is a sum, as that of a binomial tail: `E = Σ C(c+s+1, k) ((1-w)/w)^(c-k) / ((c+s+1) C(c+s, c))` over k from 0 to c.
pub fn against(counts: &StepCounts) -> f64 {
    let (c, s) = (counts.canary_failed, counts.serving_failed);
    let share = (counts.canary + 1) as f64 / (counts.canary + counts.serving + 1) as f64;
    let odds = (1.0 - share) / share;
    // Of k = c, and then of each that is one smaller.
    let mut term = 1.0 / (s + 1) as f64;
    let mut sum = term;
    for k in (1..=c).rev() {
        term *= odds * k as f64 / (c + s + 2 - k) as f64;
        sum += term;
    }
    sum.min(CERTAIN)
}

/// Above this it makes no difference how large it is.
const CERTAIN: f64 = 1e100;

/// Whether the evidence is asked for after this attempt.
pub fn is_asked(counts: &StepCounts) -> bool {
    counts.canary_failed <= OFTEN_MAX || (counts.canary + counts.serving).is_multiple_of(SELDOM)
}

/// With 95 % confidence, at most this part of the canary's first attempts fails (Wilson and Hilferty's approximation of the Poisson
/// bound; without a failure it is the rule of three: 3 of n).
pub fn failing_at_most(counts: &StepCounts) -> f64 {
    if counts.canary == 0 {
        return 1.0;
    }
    let next = (counts.canary_failed + 1) as f64;
    let root = 1.0 - 1.0 / (9.0 * next) + 1.644_853_627 / (3.0 * next.sqrt());
    next * root * root * root / counts.canary as f64
}

/// Whether the canary fails no more than the serving version and a margin, as far as the counts show. `margin`: in millionths.
pub fn is_no_worse(counts: &StepCounts, margin: u32) -> bool {
    let serving = match counts.serving {
        0 => 0.0,
        serving => counts.serving_failed as f64 / serving as f64,
    };
    failing_at_most(counts) <= serving + f64::from(margin) / f64::from(MILLION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(canary: (u64, u64), serving: (u64, u64)) -> StepCounts {
        StepCounts {
            canary: canary.0,
            canary_failed: canary.1,
            serving: serving.0,
            serving_failed: serving.1,
            ..StepCounts::default()
        }
    }

    #[test]
    fn three_failures_against_none_at_a_tenth_are_enough() {
        let (two, three) = (counts((30, 2), (270, 0)), counts((30, 3), (270, 0)));
        assert!(against(&two) < 100.0 && against(&three) >= 100.0);
        // As many as its share is no evidence, and fewer speak for it.
        assert!(against(&counts((100, 3), (900, 27))) < 2.0);
        assert!(against(&counts((100, 0), (900, 27))) < 0.1);
        // Nothing to compare with, and nothing at all.
        assert!(against(&counts((100, 100), (0, 0))) <= 1.0);
        assert!((against(&counts((0, 0), (0, 0))) - 1.0).abs() < 1e-12);
        assert!(against(&counts((4_000, 4_000), (4_000, 0))) >= 1e99);
    }

    /// The sum is the integral.
    #[test]
    fn the_evidence_is_the_mixture_that_it_says_it_is() {
        for (canary, serving) in [((31, 3), (270, 2)), ((400, 7), (399, 1)), ((9, 1), (990, 40))] {
            let counts = counts(canary, serving);
            let w = (canary.0 + 1) as f64 / (canary.0 + serving.0 + 1) as f64;
            let (c, s) = (canary.1 as f64, serving.1 as f64);
            let at = |theta: f64| (c * (theta / w).ln() + s * ((1.0 - theta) / (1.0 - w)).ln()).exp();
            let parts = 200_000;
            let sum: f64 = (0..parts)
                .map(|part| at(w + (1.0 - w) * (f64::from(part) + 0.5) / f64::from(parts)))
                .sum();
            let integral = sum / f64::from(parts);
            let ratio = against(&counts) / integral;
            assert!((ratio - 1.0).abs() < 1e-3, "{canary:?} {serving:?}: {ratio}");
        }
    }

    #[test]
    fn a_promotion_needs_events_enough_for_the_rule_of_three() {
        let one_percent = 10_000;
        assert!(!is_no_worse(&counts((0, 0), (900, 0)), one_percent));
        assert!(!is_no_worse(&counts((290, 0), (900, 0)), one_percent));
        assert!(is_no_worse(&counts((300, 0), (900, 0)), one_percent));
        assert!(!is_no_worse(&counts((300, 1), (900, 0)), one_percent));
        assert!(is_no_worse(&counts((300, 1), (900, 9)), one_percent));
    }
}
