//! An order, and the row of the outbox that becomes its event `orders.created`, are saved in one transaction.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::AnyPool;

use crate::mesh;
use crate::{Failure, Service};

#[derive(Deserialize, Serialize)]
pub struct NewOrder {
    user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    lines: Vec<Line>,
}

#[derive(Deserialize, Serialize)]
struct Line {
    sku: String,
    qty: u32,
    #[serde(default)]
    price_cents: u64,
}

/// `n` counts the orders. `request` is the order as the client sent it. `message_id` and `event` are what its event is known by.
pub async fn create_table(db: &AnyPool, url: &str) -> sqlx::Result<()> {
    let n = match url.starts_with("sqlite:") {
        true => "INTEGER PRIMARY KEY AUTOINCREMENT",
        false => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    };
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS orders (n {n}, idempotency_key TEXT NOT NULL UNIQUE, request TEXT NOT NULL, \
         created TEXT NOT NULL, message_id TEXT, event TEXT)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db).await?;
    Ok(())
}

/// `POST /orders`. The header `Idempotency-Key` names the request: a client that got no answer sends it again with the same key,
/// and gets the order that it has made.
pub async fn create(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Json(order): Json<NewOrder>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let refused = |status, why: &str| Failure(status, why.to_owned());
    let key = headers.get("Idempotency-Key").and_then(|key| key.to_str().ok());
    let key = key.ok_or_else(|| refused(StatusCode::BAD_REQUEST, "the header Idempotency-Key is missing"))?;
    let request = json!(order).to_string();
    let created = humantime::format_rfc3339_millis(SystemTime::now()).to_string();

    let mut transaction = service.db.begin().await?;
    let saved = sqlx::query_scalar(
        "INSERT INTO orders (idempotency_key, request, created) VALUES ($1, $2, $3) \
         ON CONFLICT (idempotency_key) DO NOTHING RETURNING n",
    );
    let saved = saved.bind(key).bind(&request).bind(created);
    let Some(n) = saved.fetch_optional(&mut *transaction).await? else {
        transaction.rollback().await?;
        let before = sqlx::query_as("SELECT n, request FROM orders WHERE idempotency_key = $1").bind(key);
        let (n, before): (i64, String) = before.fetch_one(&service.db).await?;
        return match before == request {
            true => Ok(created_as(n)),
            false => Err(refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "another order has this Idempotency-Key",
            )),
        };
    };
    let cents = order
        .lines
        .iter()
        .map(|line| line.price_cents.saturating_mul(line.qty.into()));
    let mut event = json!(order);
    event["order_id"] = json!(id(n));
    event["total_cents"] = json!(cents.fold(0, u64::saturating_add));
    let row = sqlx::query_as("INSERT INTO outbox (subject, payload) VALUES ('orders.created', $1) RETURNING id, uid");
    let row = row.bind(event.to_string().into_bytes()).fetch_one(&mut *transaction);
    let (row, uid): (i64, i64) = row.await?;
    // The message id of the event that becomes of this row.
    let update = sqlx::query("UPDATE orders SET message_id = $1 WHERE n = $2");
    let update = update.bind(format!("outbox.orders.{row}.{uid}")).bind(n);
    update.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(created_as(n))
}

/// `GET /orders/{id}`: the order, and what each handler of the mesh has made of it.
pub async fn show(State(service): State<Arc<Service>>, Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    let n = name.strip_prefix("o-").and_then(|n| n.parse::<i64>().ok());
    let order = sqlx::query_as("SELECT request, created, message_id, event FROM orders WHERE n = $1").bind(n);
    let order: Option<(String, String, String, Option<String>)> = order.fetch_optional(&service.db).await?;
    let Some((request, created, message_id, event)) = order else {
        return Err(Failure(StatusCode::NOT_FOUND, format!("there is no order {name}")));
    };
    let order: Value = serde_json::from_str(&request).unwrap_or_default();
    let mut answer = json!({ "id": name, "order": order });
    let question = match &event {
        Some(event) => json!({ "id": event }),
        None => json!({ "message_id": message_id, "since": created }),
    };
    match mesh::trace(&service.nats, &question).await {
        Ok(found) => {
            if event.is_none() {
                // The next time, the mesh need not search for it.
                let update = sqlx::query("UPDATE orders SET event = $1 WHERE n = $2");
                update.bind(&found.event).bind(n).execute(&service.db).await?;
            }
            answer["tasks"] = json!(found.tasks());
        }
        Err(why) => answer["tasks_unknown"] = json!(why),
    }
    Ok(Json(answer))
}

fn created_as(n: i64) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(json!({ "id": id(n) })))
}

fn id(n: i64) -> String {
    format!("o-{n}")
}
