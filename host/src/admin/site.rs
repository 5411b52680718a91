//! What is answered at the admin address: metrics and health to all who can reach it, and the console.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::{Method, Request, StatusCode};

use super::Admin;
use super::exposition::TextFormat;
use super::health::{self, Health};
use crate::console::Console;
use crate::http::{self, Answer, JSON, Patience, Site};

/// The admin address of a host.
pub struct AdminSite {
    pub admin: Arc<Admin>,
    pub console: Arc<Console>,
}

impl Site for AdminSite {
    async fn answer(&self, request: Request<Incoming>, patience: &Patience) -> Answer {
        let known = matches!(request.uri().path(), "/metrics" | "/livez" | "/readyz");
        match known {
            true => told(&self.admin, &request),
            false => self.console.answer(request, patience).await,
        }
    }
}

fn told(admin: &Admin, request: &Request<Incoming>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return http::only("GET, HEAD", "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let format = TextFormat::accepted(accept);
            http::answer(StatusCode::OK, format.content_type(), admin.metrics(format))
        }
        "/livez" => of_health(&health::live()),
        _ => of_health(&health::ready(admin)),
    }
}

fn of_health(health: &Health) -> Answer {
    let status = match health.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    // A struct of texts is always JSON.
    let text = serde_json::to_string(health).unwrap_or_default();
    http::answer(status, JSON, text + "\n")
}
