use std::{fmt, time::Duration};

/// Why an event could not be handled.
///
/// Every [`std::error::Error`] becomes a retry with the code `error`, so `?` works on anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    code: String,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Retry { delay_ms: Option<u64> },
    Reject,
}

impl Error {
    /// Try again later; after the last attempt the event becomes a dead letter.
    ///
    /// `code` is a short, stable word by which failures are grouped: 1 to 64 characters of `a-z`, `0-9`, `-`, `_` and
    /// `.`. `message` is for people.
    pub fn retry(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Retry { delay_ms: None },
            code: code.into(),
            message: message.into(),
        }
    }

    /// Never try again: the event becomes a dead letter at once. For `code` and `message` see [`Error::retry`].
    pub fn reject(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Reject,
            code: code.into(),
            message: message.into(),
        }
    }

    /// The least delay before the next attempt, instead of the handler's backoff. A rejection stays as it is.
    pub fn after(mut self, delay: Duration) -> Self {
        if let Kind::Retry { delay_ms } = &mut self.kind {
            *delay_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        }
        self
    }

    /// Whether the event is never tried again.
    pub fn is_reject(&self) -> bool {
        self.kind == Kind::Reject
    }

    /// The delay that was asked for with [`Error::after`].
    pub fn delay(&self) -> Option<Duration> {
        match self.kind {
            Kind::Retry { delay_ms } => delay_ms.map(Duration::from_millis),
            Kind::Reject => None,
        }
    }

    /// The code by which failures are grouped.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

// `Error` itself is no `std::error::Error`: this implementation would then overlap with `From<T> for T`.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::retry("error", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_a_retry() {
        let error = Error::from("x".parse::<u8>().unwrap_err());
        assert!(!error.is_reject());
        assert_eq!(error.to_string(), "error: invalid digit found in string");
    }

    #[test]
    fn a_delay_belongs_to_a_retry_only() {
        let delay = Duration::from_secs(2);
        assert_eq!(Error::retry("busy", "").after(delay).delay(), Some(delay));
        assert_eq!(Error::reject("wrong", "").after(delay).delay(), None);
    }
}
