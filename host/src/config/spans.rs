//! `[spans]`: how spans stand to each other. The variables of OpenTelemetry tell where they go.

use super::reader::{Reader, Section};
use crate::plan::{ProducerSpan, Spans};

pub fn read(mut section: Section, reader: &mut Reader) -> Spans {
    let producer = section.word(reader, "producer", &ProducerSpan::WORDS, ProducerSpan::Parent);
    let failures = section.boolean(reader, "failures", true);
    section.finish(reader);
    Spans {
        producer,
        failures,
        otlp: None,
    }
}
