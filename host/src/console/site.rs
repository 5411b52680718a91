//! What is answered at which path, and to whom: no other site, no other name of this machine, and nothing without a session.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{COOKIE, HOST, HeaderName, HeaderValue, ORIGIN, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::login::{self, LoginForm, SessionJson};
use super::query::Query;
use super::session::ViewerSession;
use super::trouble::ConsoleError;
use super::{Console, assets, exports, live, orders, queries, rehearsals};
use crate::http::{self, Answer, Patience, Site};
use crate::text::secret::same;

/// The largest order: a credentials file, or a list of ids.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// How long a query may take, and how long a stream of what is live lasts, after which the page begins another one, or an export.
const QUERY_MAX: Duration = Duration::from_secs(60);
const STREAM_MAX: Duration = Duration::from_secs(60 * 60);

const CSRF: &str = "x-jetmesh-csrf";

/// On every answer. Nothing from elsewhere is loaded, nothing inline runs, no other page frames this one.
const SECURITY: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

impl Site for Console {
    async fn answer(&self, request: Request<Incoming>, patience: &Patience) -> Answer {
        let answered = self.checked(request, patience).await;
        let mut answer = answered.unwrap_or_else(|error| error.answer());
        for (name, value) in SECURITY {
            http::header(&mut answer, HeaderName::from_static(name), value);
        }
        answer
    }
}

impl Console {
    async fn checked(&self, request: Request<Incoming>, patience: &Patience) -> Result<Answer, ConsoleError> {
        let host = header(&request, HOST.as_str()).unwrap_or_default();
        if !self.is_own_name(host) {
            return Err(ConsoleError::new(
                StatusCode::MISDIRECTED_REQUEST,
                format!(
                    "the console answers as {}, as localhost, by the names of its certificate and those of admin.names, and not as \
                     another name",
                    self.address
                ),
            ));
        }
        let path = request.uri().path().to_owned();
        let is_order = match *request.method() {
            Method::GET | Method::HEAD => false,
            Method::POST => true,
            _ => return Ok(http::only("GET, HEAD, POST", "only GET, HEAD and POST\n")),
        };
        let Some(call) = path.strip_prefix("/api/") else {
            return match assets::file(&path) {
                Some(file) if !is_order => Ok(file),
                Some(_) => Ok(http::only("GET, HEAD", "only GET and HEAD\n")),
                None => Err(ConsoleError::missing(format!("there is nothing at {path}"))),
            };
        };
        self.check_origin(&request, host, is_order)?;
        if call == "login" && is_order {
            return self.log_in(request).await;
        }
        let secret = self.cookie(&request).unwrap_or_default();
        if call == "enter" && is_order {
            return self.enter(&secret).await;
        }
        let Some(session) = self.sessions.find(&secret) else {
            return Err(ConsoleError::new(
                StatusCode::UNAUTHORIZED,
                "no session is open in this browser: log in",
            ));
        };
        if is_order {
            let given = header(&request, CSRF).unwrap_or_default();
            if !same(given, &session.csrf) {
                return Err(ConsoleError::refused(
                    "the order does not bring the session's token: load the page again",
                ));
            }
        }
        if (call, is_order) == ("logout", true) {
            self.sessions.end(&secret);
            let mut answer = json(&serde_json::json!({}))?;
            self.set_cookie(&mut answer, "", "; Max-Age=0");
            return Ok(answer);
        }
        match is_order {
            true => {
                patience.raise(if call == "rehearse" {
                    rehearsals::PATIENCE
                } else {
                    QUERY_MAX
                });
                orders::obey(self, session, call, request).await
            }
            false => self.asked(session, call, request.uri().query(), patience).await,
        }
    }

    async fn asked(
        &self,
        session: Arc<ViewerSession>,
        call: &str,
        query: Option<&str>,
        patience: &Patience,
    ) -> Result<Answer, ConsoleError> {
        if call == "live" {
            patience.raise(STREAM_MAX);
            return Ok(http::events(live::stream(session)));
        }
        if let Some(ticket) = call.strip_prefix("export/") {
            patience.raise(STREAM_MAX);
            return exports::file(self, session, ticket).await;
        }
        patience.raise(QUERY_MAX);
        queries::answer(self, &session, call, &Query::of(query)).await
    }

    /// What a page asks first: the session of its browser, or one that needs no person. Without any, it is told why, which is no failure.
    async fn enter(&self, secret: &str) -> Result<Answer, ConsoleError> {
        if let Some(session) = self.sessions.find(secret) {
            return json(&serde_json::json!({ "session": SessionJson::of(self, &session) }));
        }
        match login::session(self, LoginForm::Nothing {}).await {
            Ok(session) => self.let_in(session, |session| serde_json::json!({ "session": session })),
            Err(error) => json(&serde_json::json!({ "session": null, "why": error.told() })),
        }
    }

    async fn log_in(&self, request: Request<Incoming>) -> Result<Answer, ConsoleError> {
        let form: LoginForm = body(request).await?;
        let session = login::session(self, form).await?;
        self.let_in(session, |session| serde_json::json!(session))
    }

    fn let_in(
        &self,
        session: Arc<ViewerSession>,
        told: impl Fn(SessionJson<'_>) -> serde_json::Value,
    ) -> Result<Answer, ConsoleError> {
        let Some(secret) = self.sessions.add(Arc::clone(&session)) else {
            return Err(ConsoleError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "64 sessions are open here, and no more can be: log out in another browser, or wait until one is idle for 30 minutes",
            ));
        };
        let mut answer = json(&told(SessionJson::of(self, &session)))?;
        self.set_cookie(&mut answer, &secret, "");
        Ok(answer)
    }

    /// A browser takes the ports of a machine for one site: the name tells consoles apart.
    fn cookie_name(&self) -> String {
        // Of such a name a browser takes no cookie that was not set by this machine over an encrypted connection.
        let prefix = if self.tls.is_some() { "__Host-" } else { "" };
        format!("{prefix}jetmesh-{}", self.address.port())
    }

    fn set_cookie(&self, answer: &mut Answer, secret: &str, more: &str) {
        let secure = if self.tls.is_some() { "; Secure" } else { "" };
        let cookie = format!(
            "{}={secret}; Path=/; HttpOnly; SameSite=Strict{secure}{more}",
            self.cookie_name()
        );
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            answer.headers_mut().insert(SET_COOKIE, cookie);
        }
    }

    fn cookie(&self, request: &Request<Incoming>) -> Option<String> {
        let name = self.cookie_name();
        let all = request
            .headers()
            .get_all(COOKIE)
            .iter()
            .filter_map(|one| one.to_str().ok());
        let mut pairs = all
            .flat_map(|one| one.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(own, _)| *own == name).map(|(_, secret)| secret.to_owned())
    }

    /// A page of another site can have its name lead here. Its requests still have that name.
    fn is_own_name(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            // The colons of an IPv6 address are inside brackets.
            Some((name, port)) if !port.ends_with(']') => name,
            _ => host,
        };
        let ip = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || ip.is_ok_and(|ip| ip.is_loopback() || ip == self.address.ip())
            || self.tls.as_ref().is_some_and(|tls| tls.is_for(bare))
            || self.plan.admin.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Whether a page of this console asks. A browser says where a request comes from.
    fn check_origin(&self, request: &Request<Incoming>, host: &str, is_order: bool) -> Result<(), ConsoleError> {
        let foreign = || ConsoleError::refused("the request comes from another site");
        let site = header(request, "sec-fetch-site");
        if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
            return Err(foreign());
        }
        // Where it is not encrypted here, a proxy before it can do that.
        let schemes: &[&str] = if self.tls.is_some() {
            &["https://"]
        } else {
            &["http://", "https://"]
        };
        let is_own = |origin: &str| schemes.iter().any(|scheme| origin.strip_prefix(scheme) == Some(host));
        match header(request, ORIGIN.as_str()) {
            Some(origin) if !is_own(origin) => Err(foreign()),
            None if is_order && site != Some("same-origin") => Err(ConsoleError::refused(
                "an order says where it comes from: the header Origin is missing",
            )),
            _ => Ok(()),
        }
    }
}

fn header<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

/// The JSON that a request brings.
pub(super) async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, ConsoleError> {
    let read = Limited::new(request.into_body(), BODY_MAX).collect().await;
    let bytes =
        read.map_err(|_| ConsoleError::wrong(format!("the order is longer than {BODY_MAX} bytes, or was cut")))?;
    of_json(&bytes.to_bytes())
}

pub(super) fn of_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ConsoleError> {
    // Of what is wrong only the kind is told: credentials may be in it.
    serde_json::from_slice(bytes).map_err(|error| {
        let kind = format!("{:?}", error.classify()).to_lowercase();
        ConsoleError::wrong(format!("the order cannot be read ({kind} error): load the page again"))
    })
}

pub(super) fn json(value: &impl Serialize) -> Result<Answer, ConsoleError> {
    let text = serde_json::to_string(value)
        .map_err(|error| ConsoleError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(http::answer(StatusCode::OK, http::JSON, text))
}
