//! What a viewer is told when something does not work.

use hyper::StatusCode;
use serde_json::json;

use crate::broker::Error;
use crate::http::{self, Answer};
use crate::text::secret::hide;

/// Why a request was not answered as it wanted.
pub struct ConsoleError {
    status: StatusCode,
    why: String,
}

impl ConsoleError {
    pub fn new(status: StatusCode, why: impl Into<String>) -> ConsoleError {
        let why = why.into();
        ConsoleError { status, why }
    }

    /// The request is wrong.
    pub fn wrong(why: impl Into<String>) -> ConsoleError {
        ConsoleError::new(StatusCode::BAD_REQUEST, why)
    }

    /// It is not allowed.
    pub fn refused(why: impl Into<String>) -> ConsoleError {
        ConsoleError::new(StatusCode::FORBIDDEN, why)
    }

    pub fn missing(why: impl Into<String>) -> ConsoleError {
        ConsoleError::new(StatusCode::NOT_FOUND, why)
    }

    /// What does not work, in words.
    pub fn told(&self) -> String {
        hide(&self.why)
    }

    pub fn answer(&self) -> Answer {
        let body = json!({ "error": self.told() });
        http::answer(self.status, http::JSON, body.to_string())
    }
}

impl std::fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.told())
    }
}

impl From<Error> for ConsoleError {
    fn from(error: Error) -> ConsoleError {
        let status = match &error {
            Error::Denied { .. } => StatusCode::FORBIDDEN,
            Error::Unauthorized { .. } | Error::Credentials { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_GATEWAY,
        };
        ConsoleError::new(status, error.to_string())
    }
}
