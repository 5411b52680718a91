use serde::de::DeserializeOwned;

use crate::Error;

/// One event: a message of the handler's source stream, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Stable identity, the same for every attempt: `<incarnation of the stream>.<stream sequence>`.
    pub id: String,
    /// The subject that the message was published on.
    pub subject: String,
    /// Names and values. A name may occur more than once; the values of one name keep their order.
    pub headers: Vec<(String, String)>,
    /// The message's body.
    pub payload: Vec<u8>,
    /// When the stream stored the message: milliseconds since 1970-01-01T00:00:00Z.
    pub time_ms: u64,
}

impl Event {
    /// The first value of a header. Names are case-sensitive, as in NATS.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What a handler function can take as an argument.
pub trait FromEvent: Sized {
    /// Makes the argument; an error is the handler's answer, and the function is not called.
    fn from_event(event: Event) -> Result<Self, Error>;
}

impl FromEvent for Event {
    fn from_event(event: Event) -> Result<Self, Error> {
        Ok(event)
    }
}

/// The payload, read as JSON. Fields that `T` does not know are ignored; a payload that is not a `T` is rejected with
/// the code `malformed-json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromEvent for Json<T> {
    fn from_event(event: Event) -> Result<Self, Error> {
        // Some editors and exports put a byte order mark before UTF-8; JSON has none.
        let payload = event.payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&event.payload);
        serde_json::from_slice(payload).map(Json).map_err(|error| {
            let position = format!("line {} column {}", error.line(), error.column());
            let text = error.to_string();
            let text = text.strip_suffix(&format!(" at {position}")).unwrap_or(&text);
            Error::reject("malformed-json", format!("{position}: {text}"))
        })
    }
}

/// A function that can handle events; see [`handler!`](crate::handler!).
pub trait Handler<Arguments> {
    /// Makes the arguments and calls the function.
    fn call(self, event: Event) -> Result<(), Error>;
}

impl<F, A> Handler<(A,)> for F
where
    F: FnOnce(A) -> Result<(), Error>,
    A: FromEvent,
{
    fn call(self, event: Event) -> Result<(), Error> {
        self(A::from_event(event)?)
    }
}

impl<F, A, B> Handler<(A, B)> for F
where
    F: FnOnce(A, B) -> Result<(), Error>,
    A: FromEvent,
    B: FromEvent,
{
    fn call(self, event: Event) -> Result<(), Error> {
        self(A::from_event(event.clone())?, B::from_event(event)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: &str) -> Event {
        Event {
            subject: "s".into(),
            payload: payload.into(),
            ..Event::default()
        }
    }

    #[test]
    fn malformed_json_is_rejected_with_its_position() {
        let error = Json::<Vec<u8>>::from_event(event("[1,\n2,x]")).unwrap_err();
        assert!(error.is_reject());
        assert_eq!(error.to_string(), "malformed-json: line 2 column 3: expected value");
    }

    #[test]
    fn a_byte_order_mark_before_json_is_no_part_of_it() {
        let Ok(Json(numbers)) = Json::<Vec<u8>>::from_event(event("\u{feff}[1, 2]")) else {
            panic!("it is JSON");
        };
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn a_function_may_take_the_event_and_its_json() {
        fn both(event: Event, Json(number): Json<u8>) -> Result<(), Error> {
            assert_eq!((event.subject.as_str(), number), ("s", 7));
            Ok(())
        }
        assert_eq!(both.call(event("7")), Ok(()));
    }
}
