//! Facts about this call.

use crate::host;

/// The handler's name in the configuration.
pub fn handler_name() -> String {
    host::handler_name()
}

/// Which attempt this is, beginning with 1.
pub fn attempt() -> u32 {
    host::attempt()
}

/// After how many attempts the event becomes a dead letter.
pub fn max_attempts() -> u32 {
    host::max_attempts()
}

/// The same for every attempt of this event by this handler, and different for any other: to be sent along to services
/// outside NATS, so that they can drop repetitions.
pub fn idempotency_key() -> String {
    host::idempotency_key()
}

/// The W3C trace id of the event's `traceparent` header, 32 hex digits, or nothing.
pub fn trace_id() -> Option<String> {
    host::trace_id()
}
