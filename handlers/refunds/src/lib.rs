//! Keeps a running total of refunds for each user. `README.md` shows this handler, and `docs/write-a-handler.md` its test.

use jetmesh_sdk::{Error, Json, events, json, state};
use serde::Deserialize;

#[derive(Deserialize)]
struct Refund {
    order_id: String,
    user_id: String,
    cents: u64,
}

fn refund(Json(refund): Json<Refund>) -> Result<(), Error> {
    if refund.cents == 0 {
        return Err(Error::reject("nothing-to-refund", format!("order {}", refund.order_id)));
    }
    let key = format!("refunded.{}", refund.user_id);
    let total = state::get_parsed::<u64>(&key)?.unwrap_or(0) + refund.cents;
    state::set(&key, total.to_string())?;
    let booked = json!({ "order_id": refund.order_id, "total": total });
    events::emit("refunds.booked", &booked)?;
    Ok(())
}

jetmesh_sdk::handler!(refund);

#[cfg(test)]
mod tests {
    use jetmesh_sdk::testing;

    use super::*;

    #[test]
    fn refunds_of_a_user_add_up() {
        testing::reset();
        testing::grant(&["refunds.booked"]);
        testing::set_state("refunded.u-7", "500");
        let event = testing::event("orders.refunded", r#"{"order_id":"o-1","user_id":"u-7","cents":250}"#);
        testing::call(refund, event).unwrap();
        assert_eq!(testing::state("refunded.u-7").as_deref(), Some("750"));
        assert_eq!(testing::emitted()[0].subject, "refunds.booked");
    }
}
