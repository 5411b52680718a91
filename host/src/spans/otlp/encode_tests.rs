use super::*;
use crate::spans::context::{SpanId, TraceId};
use crate::spans::span::{SpanEvent, SpanKind, SpanParent};

fn context(n: u8, sampled: bool) -> SpanContext {
    SpanContext {
        trace: TraceId([n; 16]),
        span: SpanId([n + 1; 8]),
        sampled,
    }
}

fn spans() -> Vec<SpanRecord> {
    let plain = SpanRecord {
        context: context(1, true),
        parent: None,
        name: "publish orders.>".to_owned(),
        kind: SpanKind::Producer,
        start_us: 1_800_000_000_000_000,
        end_us: 1_800_000_000_000_300,
        attributes: Vec::new(),
        events: Vec::new(),
        dropped_events: 0,
        links: Vec::new(),
        error: None,
    };
    let full = SpanRecord {
        context: context(3, false),
        parent: Some(SpanParent {
            span: SpanId([9; 8]),
            remote: true,
        }),
        name: "process orders.>".to_owned(),
        kind: SpanKind::Consumer,
        attributes: vec![
            ("messaging.system", "nats".into()),
            ("jetmesh.attempt", 300_u64.into()),
            ("empty", "".into()),
            ("zero", 0_u64.into()),
            ("no", false.into()),
            ("below", SpanValue::Number(-1)),
        ],
        events: vec![SpanEvent {
            name: "exception",
            at_us: 1_800_000_000_000_200,
            attributes: vec![("exception.message", "ünlike".into())],
        }],
        links: vec![context(5, true)],
        error: Some("no stock".to_owned()),
        ..plain.clone()
    };
    vec![plain, full]
}

/// The file has what the crate `opentelemetry-proto` 0.33.1 makes of the same spans.
#[test]
fn a_request_is_byte_for_byte_what_the_encoder_of_opentelemetry_writes() {
    let resource = [("service.name".to_owned(), "jetmesh".to_owned())];
    let written = request(&resource, &spans());
    let expected = include_bytes!("request.bin");
    assert_eq!(hex(&written), hex(expected));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_a_collector_rejects_is_read_from_its_answer() {
    assert_eq!(rejected(&[]), None);
    // partial_success { rejected_spans: 300, error_message: "no" }
    let answer = [0x0a, 7, 0x08, 0xac, 0x02, 0x12, 2, b'n', b'o'];
    assert_eq!(rejected(&answer), Some((300, "no".to_owned())));
    assert_eq!(rejected(&[0x0a, 0]), Some((0, String::new())));
    // It ends too early.
    assert_eq!(rejected(&answer[..5]), None);
}
