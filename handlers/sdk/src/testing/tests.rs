use std::time::{Duration, SystemTime};

use super::*;
use crate::{events, state};

fn nothing(_: Event) -> Result<(), Error> {
    Ok(())
}

/// Begins a call.
fn begin() {
    reset();
    call(nothing, event("s", "")).unwrap();
}

#[test]
fn subjects_that_are_not_granted_or_malformed_are_refused() {
    begin();
    events::emit("whatever.it.is", &1).unwrap();
    grant(&["orders.*", "refunds.>"]);
    events::emit("orders.counted", &1).unwrap();
    events::emit("refunds.a.b", &1).unwrap();
    let refused = events::emit("points.added", &1).unwrap_err();
    assert_eq!(
        refused,
        events::Error::NotGranted(
            "handler test may not publish on `points.added`: it may publish orders.*, refunds.> (`publish` in its configuration)"
                .into()
        )
    );
    for subject in [
        "",
        "orders.",
        "orders.*",
        "orders.>",
        "orders.a b",
        "orders.a\u{1b}",
        &"o".repeat(513),
    ] {
        let refused = events::emit(subject, &1).unwrap_err();
        assert!(matches!(refused, events::Error::Invalid(_)), "{subject}: {refused}");
    }
    assert_eq!(emitted().len(), 3);
}

#[test]
fn headers_that_are_reserved_or_malformed_are_refused() {
    begin();
    events::emit_with_headers("s", &[("Kind", "day"), ("Natsy", "")], &1).unwrap();
    let bad = [
        ("Nats-Msg-Id", "1"),
        ("mesh-hops", "1"),
        ("", "1"),
        ("a b", "1"),
        ("a:", "1"),
        ("A", "1\n2"),
    ];
    for header in bad {
        let refused = events::emit_with_headers("s", &[header], &1).unwrap_err();
        assert!(matches!(refused, events::Error::Invalid(_)), "{header:?}: {refused}");
    }
}

#[test]
fn what_is_over_a_limit_is_refused() {
    begin();
    let large = vec![0; 600_000];
    let refused = state::set("k", &large).unwrap_err();
    assert_eq!(
        refused,
        state::Error::TooLarge("a value of 600000 bytes is over the limit of 524288".into())
    );
    state::set("k", &large[..500_000]).unwrap();
    state::set("k", &large[..500_000]).unwrap();
    assert!(matches!(
        state::set("k", &large[..500_000]),
        Err(state::Error::TooLarge(_))
    ));
    assert!(matches!(
        events::emit_bytes("s", &[], &large),
        Err(events::Error::TooLarge(_))
    ));
    // Each call starts with its full allowance.
    call(nothing, event("s", "")).unwrap();
    for n in 0..400 {
        state::get(&n.to_string()).unwrap();
        state::get(&n.to_string()).unwrap();
    }
    assert!(matches!(events::emit("s", &1), Err(events::Error::TooLarge(_))));
    begin();
    let year = Duration::from_secs(366 * 86_400);
    events::after(year).emit("s", &1).unwrap();
    let late = year + Duration::from_secs(60);
    assert!(matches!(
        events::after(late).emit("s", &1),
        Err(events::Error::Invalid(_))
    ));
    assert!(matches!(
        events::at(SystemTime::now() + late).emit("s", &1),
        Err(events::Error::Invalid(_))
    ));
}

#[test]
fn an_invalid_key_says_the_rule() {
    begin();
    let refused = state::get("a b").unwrap_err().to_string();
    assert_eq!(
        refused,
        "invalid state key: `a b`: a key has tokens of A-Z a-z 0-9 - _ / = joined by dots, and 512 bytes at most"
    );
}

#[test]
#[should_panic(expected = "`Bad Code!` is no code: a code has 1 to 64 characters of a-z 0-9 - _ and .")]
fn an_invalid_code_is_told() {
    reset();
    let _ = call(|_: Event| Err(Error::reject("Bad Code!", "")), event("s", ""));
}
