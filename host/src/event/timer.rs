//! What a bucket holds of the timers that its handlers have set. Pure.

use serde::{Deserialize, Serialize};

use super::effects::check_key;

/// Before the name of a timer, in its key.
const PREFIX: &str = "mesh-timer.";
/// The key that counts the firings of a bucket, and the handler that their decisions name.
pub const FIRINGS: &str = "mesh-timers";
/// Most that the name of a timer may have.
const NAME_BYTES_MAX: usize = 128;

/// The value of a timer's key. The key is there from the commit that sets the timer to the one that cancels it or takes its
/// firing in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerState {
    pub format: u32,
    /// Of the event that it emits, and of the delayed event by which the server fires it.
    pub id: String,
    /// RFC 3339.
    pub due: String,
    pub subject: String,
}

/// The value of [`FIRINGS`]: the firings are events of a handler of that name, in the order in which they are taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firings {
    pub token: String,
    pub n: u64,
}

/// The key of a timer. Handlers with a bucket share its timers; one without has its own in the mesh's bucket.
pub fn key(bucket: Option<&str>, handler: &str, name: &str) -> String {
    match bucket {
        Some(_) => format!("{PREFIX}{name}"),
        None => format!("{PREFIX}{handler}.{name}"),
    }
}

/// Whether a key holds what belongs to timers.
pub fn is_of_timers(key: &str) -> bool {
    key == FIRINGS || key.starts_with(PREFIX)
}

/// The id that the value of a timer's key names.
pub fn id_in(value: &[u8]) -> Result<String, String> {
    let state: TimerState = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Ok(state.id)
}

/// Whether a timer may have this name.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "the name of a timer has {} bytes, over the limit of {NAME_BYTES_MAX}",
            name.len()
        ));
    }
    check_key(name).map_err(|why| format!("the name of a timer is a key: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_has_a_key_of_its_own_that_handlers_cannot_use() {
        let (shared, own) = (key(Some("orders"), "a", "unpaid.o-1"), key(None, "a", "unpaid.o-1"));
        assert_eq!(
            (shared.as_str(), own.as_str()),
            ("mesh-timer.unpaid.o-1", "mesh-timer.a.unpaid.o-1")
        );
        for reserved in [&shared, &own, FIRINGS] {
            assert!(is_of_timers(reserved), "{reserved}");
        }
        assert!(!is_of_timers("mesh-timers-of-mine") && !is_of_timers("stock.mesh-timer.a"));
        assert!(check_name("unpaid.o-1").is_ok());
        for bad in ["", "a b", "a..b", &"a".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
