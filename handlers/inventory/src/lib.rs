//! Reserves the stock of an order: lowers `stock.<sku>` for each of its lines, or rejects the order as a whole.

use std::collections::BTreeMap;

use jetmesh_sdk::{Error, Json, events, json, state};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    order_id: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    qty: i64,
}

fn reserve(Json(order): Json<Order>) -> Result<(), Error> {
    let mut reserved = Vec::new();
    for (sku, qty) in wanted(&order)? {
        let key = format!("stock.{sku}");
        let stock = match state::get_parsed::<i64>(&key) {
            Err(error @ state::Error::Unparsable { .. }) => Err(Error::reject("corrupt-stock", error.to_string())),
            stock => Ok(stock?.unwrap_or(0)),
        }?;
        if stock < qty {
            // Nothing is deducted from other lines either: an error drops all writes of this call.
            return Err(Error::reject(
                "out-of-stock",
                format!("sku {sku}: {qty} wanted, {stock} left"),
            ));
        }
        let left = stock - qty;
        state::set(&key, left.to_string())?;
        reserved.push(json!({ "sku": sku, "qty": qty, "left": left }));
    }
    events::emit(
        "inventory.reserved",
        &json!({ "order_id": order.order_id, "lines": reserved }),
    )?;
    Ok(())
}

/// How many of each sku the order wants: its lines, checked and summed.
fn wanted(order: &Order) -> Result<BTreeMap<&str, i64>, Error> {
    if order.lines.is_empty() {
        return Err(Error::reject(
            "no-lines",
            format!("order {} has no lines", order.order_id),
        ));
    }
    let mut wanted = BTreeMap::new();
    for Line { sku, qty } in &order.lines {
        if !state::is_key(&format!("stock.{sku}")) {
            return Err(Error::reject(
                "invalid-sku",
                format!("sku {sku:?} cannot be a state key"),
            ));
        }
        if *qty < 1 {
            return Err(Error::reject("invalid-qty", format!("sku {sku}: {qty} wanted")));
        }
        let sum: &mut i64 = wanted.entry(sku.as_str()).or_default();
        *sum = sum.saturating_add(*qty);
    }
    Ok(wanted)
}

jetmesh_sdk::handler!(reserve);

#[cfg(test)]
mod tests;
