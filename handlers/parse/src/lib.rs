//! parse: the work of the benchmark. Reads an order and does nothing with it.

use std::hint::black_box;

use jetmesh_sdk::{Error, Json};

mod order;

fn parse(Json(order): Json<order::Order>) -> Result<(), Error> {
    // The reading must not be optimised away.
    black_box(order);
    Ok(())
}

jetmesh_sdk::handler!(parse);

#[cfg(test)]
mod tests {
    use jetmesh_sdk::testing;

    use super::*;

    #[test]
    fn what_is_no_order_is_rejected() {
        let order = r#"{"order_id":"o-1","user_id":"u-1","currency":"EUR","total_cents":700,"created_at":"","locale":"en",
            "items":[{"sku":"a","quantity":2,"price_cents":350}]}"#;
        assert_eq!(testing::call(parse, testing::event("orders.created", order)), Ok(()));
        let error = testing::call(parse, testing::event("orders.created", r#"{"order_id":"o-1"}"#)).unwrap_err();
        assert!(error.is_reject());
    }
}
