//! The handler's log. Each line carries the handler, the event and the attempt.

use crate::host;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Steps of the code.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What happens in normal operation.
    Info,
    /// What someone should look at some day.
    Warn,
    /// What someone should look at.
    Error,
}

/// Writes one line.
pub fn log(level: Level, message: impl AsRef<str>) {
    host::log(level, message.as_ref());
}

/// Writes a line of [`Level::Trace`].
pub fn trace(message: impl AsRef<str>) {
    log(Level::Trace, message);
}

/// Writes a line of [`Level::Debug`].
pub fn debug(message: impl AsRef<str>) {
    log(Level::Debug, message);
}

/// Writes a line of [`Level::Info`].
pub fn info(message: impl AsRef<str>) {
    log(Level::Info, message);
}

/// Writes a line of [`Level::Warn`].
pub fn warn(message: impl AsRef<str>) {
    log(Level::Warn, message);
}

/// Writes a line of [`Level::Error`].
pub fn error(message: impl AsRef<str>) {
    log(Level::Error, message);
}
