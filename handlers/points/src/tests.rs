use jetmesh_sdk::{json, serde_json::Value, testing};

use super::*;

fn order(order: Value) -> Result<(), Error> {
    testing::call(credit, testing::event("orders.created", order.to_string()))
}

fn rejection(order_json: Value) -> String {
    let error = order(order_json).unwrap_err();
    assert!(error.is_reject());
    error.to_string()
}

#[test]
fn each_order_adds_ten_by_default() {
    testing::reset();
    order(json!({ "order_id": "o-1", "user_id": "u-7" })).unwrap();
    order(json!({ "order_id": "o-2", "user_id": "u-7", "total_cents": 2500 })).unwrap();
    assert_eq!(testing::state("balance.u-7").as_deref(), Some("20"));
    let [_, added] = &testing::emitted()[..] else {
        panic!("two events")
    };
    assert_eq!(added.subject, "points.added");
    assert_eq!(
        added.json(),
        json!({ "order_id": "o-2", "user_id": "u-7", "points": 10, "balance": 20 })
    );
}

#[test]
fn a_rule_by_total_replaces_the_rule_by_order() {
    testing::reset();
    testing::set_setting("per_order", "5");
    order(json!({ "order_id": "o-1", "user_id": "u-7" })).unwrap();
    assert_eq!(testing::state("balance.u-7").as_deref(), Some("5"));
    testing::set_setting("per_100_cents", "2");
    order(json!({ "order_id": "o-2", "user_id": "u-7", "total_cents": 1299 })).unwrap();
    assert_eq!(testing::state("balance.u-7").as_deref(), Some("29"));
    let text = rejection(json!({ "order_id": "o-3", "user_id": "u-7" }));
    assert_eq!(text, "missing-total: order o-3 has no total_cents");
}

#[test]
fn what_makes_no_sense_is_rejected() {
    testing::reset();
    testing::set_state("balance.u-8", "lots");
    let text = rejection(json!({ "order_id": "o-1", "user_id": "a b" }));
    assert_eq!(text, "invalid-user: user \"a b\" cannot be a state key");
    assert!(rejection(json!({ "order_id": "o-1", "user_id": "u-8" })).starts_with("corrupt-balance: "));
    assert!(rejection(json!({ "order_id": "o-1" })).starts_with("malformed-json: line 1 column "));
    testing::set_setting("per_order", "-1");
    let text = rejection(json!({ "order_id": "o-1", "user_id": "u-7" }));
    assert_eq!(text, "invalid-setting: setting per_order: \"-1\" is not a whole number");
}
