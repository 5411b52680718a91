use jetmesh_sdk::{json, serde_json::Value, testing};

use super::*;

fn order(lines: Value) -> Result<(), Error> {
    let order = json!({ "order_id": "o-1", "user_id": "u-7", "lines": lines });
    testing::call(reserve, testing::event("orders.created", order.to_string()))
}

fn rejection(lines: Value) -> String {
    let error = order(lines).unwrap_err();
    assert!(error.is_reject());
    assert_eq!(testing::emitted(), []);
    error.to_string()
}

#[test]
fn lines_of_one_sku_are_summed() {
    testing::reset();
    testing::set_state("stock.sku-1", "10");
    testing::set_state("stock.b.c", "1");
    order(json!([{ "sku": "sku-1", "qty": 2 }, { "sku": "b.c", "qty": 1 }, { "sku": "sku-1", "qty": 3 }])).unwrap();
    assert_eq!(testing::state("stock.sku-1").as_deref(), Some("5"));
    assert_eq!(testing::state("stock.b.c").as_deref(), Some("0"));
    let [reserved] = &testing::emitted()[..] else {
        panic!("one event")
    };
    assert_eq!(reserved.subject, "inventory.reserved");
    let lines = json!([{ "sku": "b.c", "qty": 1, "left": 0 }, { "sku": "sku-1", "qty": 5, "left": 5 }]);
    assert_eq!(reserved.json(), json!({ "order_id": "o-1", "lines": lines }));
}

#[test]
fn an_order_that_cannot_be_met_deducts_nothing() {
    testing::reset();
    testing::set_state("stock.a", "10");
    testing::set_state("stock.b", "1");
    let text = rejection(json!([{ "sku": "a", "qty": 1 }, { "sku": "b", "qty": 2 }]));
    assert_eq!(text, "out-of-stock: sku b: 2 wanted, 1 left");
    assert_eq!(testing::state("stock.a").as_deref(), Some("10"));
    assert_eq!(
        rejection(json!([{ "sku": "c", "qty": 1 }])),
        "out-of-stock: sku c: 1 wanted, 0 left"
    );
    let most = json!({ "sku": "a", "qty": i64::MAX });
    assert!(rejection(json!([most, most])).starts_with("out-of-stock: "));
}

#[test]
fn orders_that_make_no_sense_are_rejected() {
    testing::reset();
    testing::set_state("stock.a", "ten");
    assert_eq!(rejection(json!([])), "no-lines: order o-1 has no lines");
    assert_eq!(
        rejection(json!([{ "sku": "a", "qty": 0 }])),
        "invalid-qty: sku a: 0 wanted"
    );
    for sku in ["", "a b", "a..b", "*"] {
        let text = rejection(json!([{ "sku": sku, "qty": 1 }]));
        assert_eq!(text, format!("invalid-sku: sku {sku:?} cannot be a state key"));
    }
    assert!(rejection(json!([{ "sku": "a", "qty": 1 }])).starts_with("corrupt-stock: state value of `stock.a`: `ten`"));
    assert!(rejection(json!([{ "sku": "a", "qty": 1.5 }])).starts_with("malformed-json: line 1 column "));
}
