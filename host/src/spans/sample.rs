//! Which traces are sampled. Pure.

use super::context::{SpanContext, TraceId};
use crate::plan::Sampler;

/// Whether a span is sampled whose parent has this context; `None`: it begins its trace.
pub fn is_sampled(sampler: Sampler, parent: Option<&SpanContext>, trace: TraceId) -> bool {
    match parent {
        Some(parent) if sampler.by_parent => parent.sampled,
        _ => is_within(sampler.ratio, trace),
    }
}

/// Like the samplers of other SDKs, so that the same traces are sampled everywhere: by the last eight bytes of the id.
fn is_within(ratio: f64, trace: TraceId) -> bool {
    let [.., a, b, c, d, e, f, g, h] = trace.0;
    let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    ratio >= 1.0 || (place as f64) < ratio * (1u64 << 63) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::context::SpanId;

    #[test]
    fn a_trace_is_sampled_by_its_parent_or_by_its_id() {
        let of = |by_parent, ratio| Sampler { by_parent, ratio };
        let parent = |sampled| SpanContext {
            trace: TraceId([1; 16]),
            span: SpanId([1; 8]),
            sampled,
        };
        let (low, high) = (TraceId([0x10; 16]), TraceId([0xf0; 16]));
        let rows = [
            (of(true, 1.0), Some(parent(false)), low, false),
            (of(true, 0.0), Some(parent(true)), low, true),
            (of(false, 1.0), Some(parent(false)), low, true),
            (of(true, 0.5), None, low, true),
            (of(true, 0.5), None, high, false),
            (of(true, 1.0), None, high, true),
            (of(true, 0.0), None, low, false),
        ];
        for (sampler, parent, trace, expected) in rows {
            assert_eq!(
                is_sampled(sampler, parent.as_ref(), trace),
                expected,
                "{sampler:?} {parent:?}"
            );
        }
    }

    #[test]
    fn as_many_traces_are_sampled_as_the_ratio_says() {
        let ids = (0..10_000).map(|n| TraceId::of(&[&format!("{n}")]));
        let sampled = ids.filter(|id| is_within(0.1, *id)).count();
        assert!((900..1_100).contains(&sampled), "{sampled}");
    }
}
