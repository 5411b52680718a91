//! Credits loyalty points for an order: raises `balance.<user_id>` by the rule in the handler's settings.
//!
//! `per_order` points for each order (default 10), or, if it is set, `per_100_cents` points for each full 100 cents of
//! the order's total.

use jetmesh_sdk::{Error, Json, events, json, settings, state};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    order_id: String,
    user_id: String,
    total_cents: Option<u64>,
}

fn credit(Json(order): Json<Order>) -> Result<(), Error> {
    let Order { order_id, user_id, .. } = &order;
    let key = format!("balance.{user_id}");
    if !state::is_key(&key) {
        return Err(Error::reject(
            "invalid-user",
            format!("user {user_id:?} cannot be a state key"),
        ));
    }
    let points = points(&order)?;
    let balance = match state::get_parsed::<u64>(&key) {
        Err(error @ state::Error::Unparsable { .. }) => Err(Error::reject("corrupt-balance", error.to_string())),
        balance => Ok(balance?.unwrap_or(0).saturating_add(points)),
    }?;
    state::set(&key, balance.to_string())?;
    let added = json!({ "order_id": order_id, "user_id": user_id, "points": points, "balance": balance });
    events::emit("points.added", &added)?;
    Ok(())
}

fn points(order: &Order) -> Result<u64, Error> {
    let Some(per_100_cents) = setting("per_100_cents")? else {
        return Ok(setting("per_order")?.unwrap_or(10));
    };
    let total_cents = order
        .total_cents
        .ok_or_else(|| Error::reject("missing-total", format!("order {} has no total_cents", order.order_id)))?;
    Ok((total_cents / 100).saturating_mul(per_100_cents))
}

fn setting(name: &str) -> Result<Option<u64>, Error> {
    let Some(text) = settings::get(name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        Error::reject(
            "invalid-setting",
            format!("setting {name}: {text:?} is not a whole number"),
        )
    })
}

jetmesh_sdk::handler!(credit);

#[cfg(test)]
mod tests;
