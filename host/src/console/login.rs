//! Logging in: a session is a connection to NATS that is made with what the viewer gives.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::session::{self, ViewerSession};
use super::trouble::ConsoleError;
use super::{Admission, Console};
use crate::broker::Error;
use crate::broker::login::{self, addresses};
use crate::broker::user::looks_at_credentials;
use crate::control::person;
use crate::plan::{GivenKeys, Nats, Plan, is_local};

/// What a viewer gives. It is in no log: it has no `Debug`.
#[derive(Deserialize)]
#[serde(tag = "way", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LoginForm {
    /// Nothing: the server may take it.
    Nothing {},
    User {
        user: String,
        password: String,
    },
    Token {
        token: String,
    },
    Nkey {
        seed: String,
    },
    Creds {
        creds: String,
    },
    Invitation {
        token: String,
    },
}

/// What a browser is told of its session.
#[derive(Serialize)]
pub struct SessionJson<'a> {
    pub who: &'a str,
    /// What each order must bring in `X-Jetmesh-Csrf`.
    pub csrf: &'a str,
    pub mesh: &'a str,
    pub version: &'static str,
    /// The addresses of NATS, without users.
    pub nats: String,
    /// Whether events can be published here.
    pub publishes: bool,
    /// Whether a rehearsal can be on a file of the viewer's.
    pub uploads: bool,
}

impl<'a> SessionJson<'a> {
    pub fn of(console: &Console, session: &'a ViewerSession) -> SessionJson<'a> {
        let servers = addresses(&session.plan.nats).into_iter().map(|one| one.server);
        SessionJson {
            who: &session.who,
            csrf: &session.csrf,
            mesh: &session.plan.mesh,
            version: env!("CARGO_PKG_VERSION"),
            nats: servers.collect::<Vec<_>>().join(","),
            publishes: console.publishes(),
            uploads: console.takes_uploads(),
        }
    }
}

/// Between a login that NATS has refused and the answer, so that guessing is slow.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Makes the session that a form asks for.
pub async fn session(console: &Console, form: LoginForm) -> Result<Arc<ViewerSession>, ConsoleError> {
    let nats = &console.plan.nats;
    // Nothing is no guess.
    let is_guess = !matches!(form, LoginForm::Nothing {});
    let (nats, who) = match (form, &console.admission) {
        (LoginForm::Invitation { token }, Admission::Invitation(invitation)) => {
            if !invitation.take(token.trim(), console.address) {
                tokio::time::sleep(REFUSED_PAUSE).await;
                return Err(ConsoleError::refused(
                    "this address was used before, or is not from this command: use the address that it has printed last",
                ));
            }
            (nats.clone(), person::name(nats))
        }
        (_, Admission::Invitation(_)) => {
            return Err(ConsoleError::refused(
                "`jetmesh console` lets in by the address that it prints, with its token: open that one",
            ));
        }
        (LoginForm::Invitation { .. }, Admission::Credentials { .. }) => {
            return Err(ConsoleError::wrong(
                "a host takes credentials of NATS, and no invitation",
            ));
        }
        (LoginForm::Nothing {}, Admission::Credentials { .. }) if !is_local(console.address) => {
            return Err(ConsoleError::refused(ANONYMOUS));
        }
        (form, Admission::Credentials { .. }) => of_viewer(nats, form)?,
    };
    let plan = Arc::new(Plan {
        nats,
        ..Plan::clone(&console.plan)
    });
    match session::open(&plan, &who).await {
        Ok(connection) => {
            if !is_local(console.address) && looks_at_credentials(&connection, &plan.nats).await == Some(false) {
                return Err(ConsoleError::refused(ANONYMOUS));
            }
            Ok(Arc::new(ViewerSession::new(who, plan, connection)))
        }
        Err(error) => {
            if is_guess && matches!(error, Error::Unauthorized { .. }) {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            Err(error.into())
        }
    }
}

/// Where other machines can reach the console, that they can reach it is not enough.
const ANONYMOUS: &str = "other machines can reach this console, and this NATS takes connections without credentials, or with any: so it would \
                         let in everyone. Give NATS users, or reach the console by a forwarded port of the machine";

/// The way to the same server, as another user: nothing of the host's own credentials is in it.
fn of_viewer(host: &Nats, form: LoginForm) -> Result<(Nats, String), ConsoleError> {
    let servers: Vec<String> = addresses(host).into_iter().map(|one| one.server).collect();
    let mut nats = Nats {
        url: servers.join(","),
        tls_ca: host.tls_ca.clone(),
        tls_first: host.tls_first,
        inbox_prefix: host.inbox_prefix.clone(),
        js_domain: host.js_domain.clone(),
        js_api_prefix: host.js_api_prefix.clone(),
        js_event_prefix: host.js_event_prefix.clone(),
        timeout: host.timeout,
        wait: Some(Duration::ZERO),
        ..Nats::default()
    };
    let who = match form {
        LoginForm::Nothing {} | LoginForm::Invitation { .. } => "a viewer without credentials".to_owned(),
        LoginForm::User { user, password } => {
            nats.user = Some(user.clone());
            nats.password = Some(password);
            user
        }
        LoginForm::Token { token } => {
            nats.token = Some(token);
            "a viewer with the token".to_owned()
        }
        LoginForm::Nkey { seed } => {
            let seed = login::seed_in(&seed).map_err(|why| ConsoleError::wrong(format!("the nkey seed: {why}")))?;
            let pair =
                nkeys::KeyPair::from_seed(&seed).map_err(|_| ConsoleError::wrong("the nkey seed: it is not valid"))?;
            nats.given = Some(GivenKeys::Seed(seed));
            pair.public_key()
        }
        LoginForm::Creds { creds } => {
            login::check_credentials_in(&creds)
                .map_err(|why| ConsoleError::wrong(format!("the credentials: {why}")))?;
            let who = name_in(&creds).unwrap_or_else(|| "a viewer with credentials".to_owned());
            nats.given = Some(GivenKeys::Creds(creds));
            who
        }
    };
    Ok((nats, who))
}

/// The name that the token of a credentials file has for its user.
fn name_in(creds: &str) -> Option<String> {
    let token = creds.lines().find(|line| line.starts_with("eyJ"))?;
    let claims = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["name"]
        .as_str()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}
