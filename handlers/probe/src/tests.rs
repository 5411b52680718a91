use jetmesh_sdk::testing;

use super::*;

fn run(orders: Value) -> Result<(), Error> {
    testing::call(probe, testing::event("probe.test", orders.to_string()))
}

#[test]
fn steps_are_carried_out_in_order() {
    testing::reset();
    let add = json!({ "op": "add", "key": "n", "by": 2 });
    run(json!({ "do": [add, add, { "op": "version", "subject": "v" }] })).unwrap();
    run(add).unwrap();
    assert_eq!(testing::state("n").as_deref(), Some("6"));
    assert_eq!(testing::emitted()[0].json(), json!("1"));
}

#[test]
fn the_header_comes_before_the_payload() {
    testing::reset();
    let mut event = testing::event("probe.test", "\0raw");
    event
        .headers
        .push(("Probe".into(), json!({ "op": "echo", "subject": "e" }).to_string()));
    testing::call(probe, event).unwrap();
    let echo = testing::emitted()[0].json();
    assert_eq!(
        (&echo["payload_bytes"], &echo["payload_fnv1a"]),
        (&json!(4), &json!(0x83cb_ee6f_u32))
    );
}

#[test]
fn what_has_no_orders_does_nothing() {
    testing::reset();
    for payload in ["", "\0raw", "7", "{\"order_id\": \"o-1\"}"] {
        testing::call(probe, testing::event("probe.test", payload)).unwrap();
    }
}

#[test]
fn bad_orders_are_rejected() {
    testing::reset();
    for orders in [json!({ "op": "dance" }), json!({ "op": "get" }), json!({ "do": 7 })] {
        assert_eq!(run(orders).unwrap_err().code(), "bad-orders");
    }
}

#[test]
fn lists_and_stocks_tell_what_they_have_been_through() {
    testing::reset();
    let append = json!({ "op": "append", "key": "list", "text": "1", "with": "stock" });
    let own = json!({ "op": "for", "handler": "another", "do": [{ "op": "trap" }] });
    let take = json!({ "op": "take", "key": "stock" });
    run(json!({ "do": [{ "op": "add", "key": "stock", "by": 1 }, append, own] })).unwrap();
    run(json!({ "do": [take, append, { "op": "tell", "key": "stock", "subject": "t" }] })).unwrap();
    assert_eq!(run(take).unwrap_err().code(), "sold-out");
    let list = testing::state("list").unwrap_or_default();
    let values: Vec<_> = list.split(' ').map(|word| word.split_once("=").unwrap().1).collect();
    assert_eq!(values, ["1", "0"]);
    assert_eq!(testing::emitted()[0].json(), json!("0"));
}

#[test]
fn it_fails_until_an_attempt() {
    testing::reset();
    let orders = json!({ "op": "fail_until", "attempt": 2 });
    assert_eq!(
        run(orders.clone()).unwrap_err().to_string(),
        "not-yet: attempt 1 is before 2"
    );
    testing::set_attempt(2);
    run(orders).unwrap();
}

#[test]
fn what_is_emitted_later_says_when() {
    testing::reset();
    run(json!({ "do": [
        { "op": "emit_later", "subject": "a", "payload": 1, "after_ms": 1500 },
        { "op": "emit_later", "subject": "b", "payload": 2, "at_ms": 1000 },
    ] }))
    .unwrap();
    let times: Vec<_> = testing::emitted().iter().map(|event| event.when).collect();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    assert_eq!(
        times,
        [events::When::After(Duration::from_millis(1500)), events::When::At(time)]
    );
}
