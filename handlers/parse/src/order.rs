//! The order of the benchmark, which also compiles this file to do the same work natively.

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "it is read from JSON, as in any handler, and that is all")]
pub struct Order {
    order_id: String,
    user_id: String,
    currency: String,
    total_cents: u64,
    created_at: String,
    locale: Option<String>,
    items: Vec<Item>,
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "see Order")]
struct Item {
    sku: String,
    quantity: u32,
    price_cents: u64,
}
