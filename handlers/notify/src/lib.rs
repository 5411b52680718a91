//! Requests a notification for an order, in the customer's language.

use jetmesh_sdk::{Error, Json, events, json};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    order_id: String,
    user_id: String,
    locale: Option<String>,
}

fn notify(Json(order): Json<Order>) -> Result<(), Error> {
    let Order {
        order_id,
        user_id,
        locale,
    } = order;
    let language = locale.as_deref().and_then(|locale| locale.split('-').next());
    let (locale, text) = match language {
        Some("zh") => ("zh", format!("您的订单 {order_id} 已创建")),
        _ => ("en", format!("Your order {order_id} has been created")),
    };
    let request = json!({ "order_id": order_id, "user_id": user_id, "locale": locale, "text": text });
    events::emit("notifications.requested", &request)?;
    Ok(())
}

jetmesh_sdk::handler!(notify);

#[cfg(test)]
mod tests {
    use jetmesh_sdk::testing;

    use super::*;

    #[test]
    fn the_text_is_in_the_customers_language() {
        let (en, zh) = ("Your order o-1 has been created", "您的订单 o-1 已创建");
        for (asked, locale, text) in [
            (json!("en"), "en", en),
            (json!("zh"), "zh", zh),
            (json!("zh-CN"), "zh", zh),
            (json!("zhx"), "en", en),
            (json!("fr"), "en", en),
            (json!(null), "en", en),
        ] {
            testing::reset();
            let order = json!({ "order_id": "o-1", "user_id": "u-7", "locale": asked });
            testing::call(notify, testing::event("orders.created", order.to_string())).unwrap();
            let [request] = &testing::emitted()[..] else {
                panic!("one event")
            };
            assert_eq!(request.subject, "notifications.requested");
            let expected = json!({ "order_id": "o-1", "user_id": "u-7", "locale": locale, "text": text });
            assert_eq!(request.json(), expected);
        }
    }

    #[test]
    fn what_is_no_order_is_rejected() {
        let error = testing::call(notify, testing::event("orders.created", "{\"order_id\": oops")).unwrap_err();
        assert_eq!(error.to_string(), "malformed-json: line 1 column 14: expected value");
    }
}
