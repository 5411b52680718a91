//! What is answered at the admin address: metrics and health to all who can reach it, and the console.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};

use super::Admin;
use super::exposition::TextFormat;
use super::health::{self, Health};
use crate::config::metrics_token;
use crate::console::Console;
use crate::http::{self, Answer, JSON, Patience, Site};
use crate::text::secret::same;
use crate::trouble::{self, Weight};

const UNREAD: &str = "the token for metrics cannot be read";

/// The admin address of a host.
pub struct AdminSite {
    pub admin: Arc<Admin>,
    pub console: Arc<Console>,
    /// A file with the token that clients of `/metrics` bring. `None`: they need none.
    pub metrics_token: Option<PathBuf>,
    /// Only this machine can reach the address.
    pub is_local: bool,
}

impl Site for AdminSite {
    async fn answer(&self, request: Request<Incoming>, patience: &Patience) -> Answer {
        let known = matches!(request.uri().path(), "/metrics" | "/livez" | "/readyz");
        match known {
            true => self.told(&request),
            false => self.console.answer(request, patience).await,
        }
    }
}

impl AdminSite {
    fn told(&self, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return http::only("GET, HEAD", "only GET and HEAD\n");
        }
        match request.uri().path() {
            "/metrics" => match self.brings_token(request) {
                true => self.metrics(request),
                false => without_token(),
            },
            // Who checks the health of a host brings nothing. Why it is not well is for those who do, or are on this machine.
            "/livez" => of_health(health::live(), self.is_local || self.brings_token(request)),
            _ => of_health(health::ready(&self.admin), self.is_local || self.brings_token(request)),
        }
    }

    fn metrics(&self, request: &Request<Incoming>) -> Answer {
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = TextFormat::accepted(accept);
        http::answer(StatusCode::OK, format.content_type(), self.admin.metrics(format))
    }

    /// Whether a request has the token of the file, as the file is now; also if none is needed.
    fn brings_token(&self, request: &Request<Incoming>) -> bool {
        let Some(file) = &self.metrics_token else {
            return true;
        };
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|given| given.to_str().ok());
        let Some(given) = given.and_then(|given| given.strip_prefix("Bearer ")) else {
            return false;
        };
        match metrics_token(file) {
            Ok(token) => {
                trouble::over(UNREAD, "");
                same(&token, given)
            }
            Err(why) => {
                trouble!(Weight::Aside, "", why, { file = %file.display(), why }, "the token for metrics cannot be read");
                false
            }
        }
    }
}

fn without_token() -> Answer {
    let text = "metrics need the token of admin.metrics_token_file, as `Authorization: Bearer TOKEN`\n";
    let mut answer = http::answer(StatusCode::UNAUTHORIZED, http::TEXT, text);
    http::header(&mut answer, WWW_AUTHENTICATE, "Bearer realm=\"metrics\"");
    answer
}

fn of_health(mut health: Health, tells_why: bool) -> Answer {
    if !tells_why {
        health.reasons.clear();
    }
    let status = match health.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    // A struct of texts is always JSON.
    let text = serde_json::to_string(&health).unwrap_or_default();
    http::answer(status, JSON, text + "\n")
}
