//! Spans as protobuf, as OTLP has them
//! (<https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto>). Pure.

use crate::spans::context::SpanContext;
use crate::spans::span::{Attributes, SpanRecord, SpanValue};

/// Conventions that names of attributes follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.44.0";
const SCOPE: &str = "jetmesh";

/// An `ExportTraceServiceRequest`.
pub fn request(resource: &[(String, String)], spans: &[SpanRecord]) -> Vec<u8> {
    let mut out = Proto::default();
    // ResourceSpans
    out.message(1, |out| {
        out.message(1, |out| {
            for (key, value) in resource {
                out.message(1, |out| attribute(out, key, &SpanValue::Text(value.clone())));
            }
        });
        // ScopeSpans
        out.message(2, |out| {
            out.message(1, |out| {
                out.text(1, SCOPE);
                out.text(2, env!("CARGO_PKG_VERSION"));
            });
            for one in spans {
                out.message(2, |out| span(out, one));
            }
            out.text(3, SCHEMA);
        });
        out.text(3, SCHEMA);
    });
    out.0
}

fn span(out: &mut Proto, span: &SpanRecord) {
    out.bytes(1, &span.context.trace.0);
    out.bytes(2, &span.context.span.0);
    if let Some(parent) = &span.parent {
        out.bytes(4, &parent.span.0);
    }
    out.text(5, &span.name);
    out.number(6, span.kind as u64);
    out.fixed64(7, span.start_us.saturating_mul(1_000));
    out.fixed64(8, span.end_us.max(span.start_us).saturating_mul(1_000));
    attributes(out, 9, &span.attributes);
    for event in &span.events {
        out.message(11, |out| {
            out.fixed64(1, event.at_us.saturating_mul(1_000));
            out.text(2, event.name);
            attributes(out, 3, &event.attributes);
        });
    }
    if span.dropped_events > 0 {
        out.number(12, span.dropped_events as u64);
    }
    for link in &span.links {
        out.message(13, |out| {
            out.bytes(1, &link.trace.0);
            out.bytes(2, &link.span.0);
            out.fixed32(6, flags(link, Some(true)));
        });
    }
    if let Some(error) = &span.error {
        out.message(15, |out| {
            out.text(2, error);
            out.number(3, STATUS_ERROR);
        });
    }
    out.fixed32(16, flags(&span.context, span.parent.map(|parent| parent.remote)));
}

const STATUS_ERROR: u64 = 2;
const FLAG_REMOTE_KNOWN: u32 = 0x100;
const FLAG_REMOTE: u32 = 0x200;

/// `remote`: whether the parent, or the linked span, is of another process.
fn flags(context: &SpanContext, remote: Option<bool>) -> u32 {
    let remote = if remote == Some(true) { FLAG_REMOTE } else { 0 };
    u32::from(context.sampled) | FLAG_REMOTE_KNOWN | remote
}

fn attributes(out: &mut Proto, field: u64, attributes: &Attributes) {
    for (key, value) in attributes {
        out.message(field, |out| attribute(out, key, value));
    }
}

fn attribute(out: &mut Proto, key: &str, value: &SpanValue) {
    out.text(1, key);
    // Of a `oneof` also what is zero is written.
    out.message(2, |out| match value {
        SpanValue::Text(text) => out.bytes(1, text.as_bytes()),
        SpanValue::Flag(flag) => out.field(2, WireKind::Varint, |out| out.varint(u64::from(*flag))),
        SpanValue::Number(number) => out.field(3, WireKind::Varint, |out| out.varint(number.cast_unsigned())),
    });
}

/// The rejected spans and the reason that an `ExportTraceServiceResponse` names.
pub fn rejected(response: &[u8]) -> Option<(u64, String)> {
    let partial = field(response, 1)?;
    let ProtoField::Bytes(partial) = partial else {
        return None;
    };
    let count = match field(partial, 1) {
        Some(ProtoField::Number(count)) => count,
        _ => 0,
    };
    let why = match field(partial, 2) {
        Some(ProtoField::Bytes(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    Some((count, why))
}

enum ProtoField<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The first field with this number.
fn field(mut message: &[u8], wanted: u64) -> Option<ProtoField<'_>> {
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let found = match key & 7 {
            0 => ProtoField::Number(take_varint(&mut message)?),
            1 => ProtoField::Bytes(message.split_off(..8)?),
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                ProtoField::Bytes(message.split_off(..length)?)
            }
            5 => ProtoField::Bytes(message.split_off(..4)?),
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(found);
        }
    }
    None
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[derive(Clone, Copy)]
enum WireKind {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
    Fixed32 = 5,
}

/// A message that is written field by field, in the order of their numbers; what is zero or empty is left out.
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn field(&mut self, field: u64, kind: WireKind, write: impl FnOnce(&mut Proto)) {
        self.varint(field << 3 | kind as u64);
        write(self);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push((number & 0x7f) as u8);
    }

    fn number(&mut self, field: u64, number: u64) {
        self.field(field, WireKind::Varint, |out| out.varint(number));
    }

    fn fixed64(&mut self, field: u64, number: u64) {
        self.field(field, WireKind::Fixed64, |out| {
            out.0.extend_from_slice(&number.to_le_bytes())
        });
    }

    fn fixed32(&mut self, field: u64, number: u32) {
        self.field(field, WireKind::Fixed32, |out| {
            out.0.extend_from_slice(&number.to_le_bytes())
        });
    }

    fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.field(field, WireKind::Length, |out| {
            out.varint(bytes.len() as u64);
            out.0.extend_from_slice(bytes);
        });
    }

    /// Its length comes first, and is known last.
    fn message(&mut self, field: u64, write: impl FnOnce(&mut Proto)) {
        let mut inner = Proto::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
