//! After which delay a delivery comes again that was not decided, for a reason that is not the event's own. The delay before a
//! retry is decided by `event/outcome`.

use std::time::Duration;

/// The reason usually passes within a second, such as an attempt that could not be recorded, or another delivery of the same event
/// that is being worked on.
pub const SOON: Duration = Duration::from_secs(1);
/// The host could not bring it to its end: a fault, or a panic.
pub const AFTER_FAULT: Duration = Duration::from_secs(5);
/// A replay of an event that is done: by then the relay has resolved its letter.
pub const LETTER_LEFT: Duration = Duration::from_secs(5);
/// It waits until a person corrects something.
pub const FOR_PERSON: Duration = Duration::from_secs(10);
/// An advisory of an event that is being worked on here.
pub const ADVISORY_AT_WORK: Duration = Duration::from_secs(2);
/// An advisory that waits until a person corrects something.
pub const ADVISORY_FOR_PERSON: Duration = Duration::from_secs(30);
