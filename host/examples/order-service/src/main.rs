//! An order service: it saves an order, and a mesh of jetmesh does what follows from it. `orders` shows how an order and its event
//! are saved in one transaction; `mesh` shows how the service asks what has become of the event.

mod mesh;
mod orders;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use sqlx::AnyPool;

#[derive(Parser)]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// Database, `sqlite:FILE` or `postgres://…`; the host has the same one in `outbox.orders.url`
    #[arg(long, default_value = "sqlite:orders.db", env = "DATABASE_URL")]
    database: String,
    /// NATS server of the mesh
    #[arg(long, default_value = "nats://127.0.0.1:4222", env = "NATS_URL")]
    nats: String,
}

pub struct Service {
    db: AnyPool,
    nats: async_nats::Client,
}

/// What a client is told if its request fails.
pub struct Failure(StatusCode, String);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    sqlx::any::install_default_drivers();
    let db = AnyPool::connect(&args.database).await;
    let db = db.with_context(|| format!("database {}", args.database))?;
    orders::create_table(&db, &args.database).await?;
    if let Err(error) = sqlx::query("SELECT id FROM outbox LIMIT 1").fetch_optional(&db).await {
        let made = match args.database.strip_prefix("sqlite:") {
            Some(_) => "`jetmesh outbox init orders --yes` makes it",
            None => {
                "the owner of the database makes it with `jetmesh outbox init orders | psql DATABASE`, and runs `GRANT SELECT, INSERT ON \
                 outbox TO …` for the role of this service"
            }
        };
        bail!("the table of the outbox: {error}: {made}");
    }
    // The service saves orders while NATS is down.
    let options = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .request_timeout(Some(Duration::from_secs(5)));
    let nats = options.connect(&args.nats).await.context("the URL of NATS")?;
    let service = Router::new()
        .route("/orders", post(orders::create))
        .route("/orders/{id}", get(orders::show))
        .with_state(Arc::new(Service { db, nats }));
    let listener = tokio::net::TcpListener::bind(&args.listen).await;
    let listener =
        listener.with_context(|| format!("cannot listen on {}: choose another with --listen", args.listen))?;
    println!("order service: http://{}", listener.local_addr()?);
    // It may be killed at any moment: what a client has no answer to, it sends again.
    axum::serve(listener, service).await?;
    Ok(())
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Failure {
        eprintln!("database: {error}");
        Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the database does not answer as it should".to_owned(),
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure(status, error) = self;
        (status, axum::Json(serde_json::json!({ "error": error }))).into_response()
    }
}
