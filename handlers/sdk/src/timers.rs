//! Events that come at a later time, unless that is called off.
//!
//! A timer has a name, by which a later call sets it again or cancels it. Handlers with the same bucket share the names. Setting and
//! cancelling are effects of the call, committed with its others: a timer that is cancelled by a commit before its firing does not
//! fire.
//!
//! ```
//! # use std::time::Duration;
//! # use jetmesh_sdk::{events, timers};
//! # let order_id = "o-1";
//! // When the order is created:
//! timers::set(&format!("unpaid.{order_id}"), events::after(Duration::from_secs(900)), "orders.unpaid", &order_id)?;
//! // When it is paid:
//! timers::cancel(&format!("unpaid.{order_id}"))?;
//! # Ok::<(), events::Error>(())
//! ```

use serde::Serialize;

use crate::{
    events::{Error, When, json},
    host,
};

/// Sets a timer whose event has a payload of JSON, in place of what it was set to before.
pub fn set(name: &str, when: When, subject: &str, payload: &impl Serialize) -> Result<(), Error> {
    set_bytes(name, when, subject, &[], &json(payload)?)
}

/// Sets a timer whose event has headers and a payload of any bytes.
pub fn set_bytes(name: &str, when: When, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<(), Error> {
    host::timer_set(name, when, subject, headers, payload)
}

/// Takes a timer away; nothing happens if there is none.
pub fn cancel(name: &str) -> Result<(), Error> {
    host::timer_cancel(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{events, testing};

    #[test]
    fn the_last_step_of_a_call_counts_and_what_fails_sets_nothing() {
        testing::reset();
        let later = events::after(Duration::from_secs(900));
        let work = |name: &'static str, fails: bool| {
            move |_: crate::Event| {
                set(name, events::at(std::time::SystemTime::UNIX_EPOCH), "a", &1)?;
                set(name, later, "orders.unpaid", &"o-1")?;
                cancel("other")?;
                match fails {
                    true => Err(crate::Error::retry("no", "")),
                    false => Ok(()),
                }
            }
        };
        let event = || testing::event("s", "");
        testing::call(work("other", true), event()).unwrap_err();
        assert!(testing::timers().is_empty());
        testing::call(work("unpaid.o-1", false), event()).unwrap();
        let timers = testing::timers();
        assert_eq!(timers.len(), 1);
        let timer = &timers["unpaid.o-1"];
        assert_eq!(
            (timer.subject.as_str(), timer.json(), timer.when),
            ("orders.unpaid", "o-1".into(), later)
        );
        assert!(matches!(cancel("a b"), Err(Error::Invalid(_))));
        assert!(matches!(cancel(&"a".repeat(129)), Err(Error::Invalid(_))));
        let reserved = crate::state::get("mesh-timer.a").unwrap_err();
        assert!(matches!(reserved, crate::state::Error::InvalidKey(_)));
    }
}
