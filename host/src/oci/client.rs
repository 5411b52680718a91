//! Requests to one registry. Each has a time limit, and each answer a largest size. What is not encrypted goes to this machine only.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_rustls::rustls::{self, ClientConfig};

use super::Error;
use super::reference::{OciReference, is_loopback};
use crate::broker::tls;
use crate::text::display::clean;

/// How long a registry may be silent.
const SILENCE: Duration = Duration::from_secs(15);
/// The slowest that a request or an answer may be, in bytes a second.
const PACE_MIN: u64 = 256 * 1024;
/// How often an answer may send elsewhere.
const REDIRECTS_MAX: usize = 5;
/// Most that is read of an answer that is an error, or a token.
pub const ANSWER_MAX: u64 = 64 * 1024;
/// Most of an error's own words.
const WORDS_MAX: usize = 300;

const AGENT: &str = concat!("jetmesh/", env!("CARGO_PKG_VERSION"));

/// What is asked of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

/// One repository of a registry.
pub struct OciClient {
    pub reference: OciReference,
    pub access: Access,
    pub(super) http: reqwest::Client,
    /// `https://HOST/`, or `http://HOST/` for a registry on this machine.
    base: Url,
    /// What was logged in with, for this host only.
    pub(super) authorization: Option<HeaderValue>,
    /// Where the login was found; `None`: there was none, or none was wanted.
    pub(super) login_file: Option<PathBuf>,
}

impl OciClient {
    /// # Errors
    /// The certificates of the system cannot be read, or the registry cannot be reached.
    pub async fn open(reference: &OciReference, access: Access) -> Result<OciClient, Error> {
        let host = &reference.host;
        let unreachable = |why: String| Error::Unreachable {
            host: host.clone(),
            why,
        };
        let roots = tls::roots(None).map_err(|error| unreachable(error.to_string()))?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let local = reference.is_local();
        let policy = Policy::custom(move |attempt: Attempt| match attempt.previous().len() > REDIRECTS_MAX {
            true => attempt.error("it sends elsewhere too often"),
            false if may_be_asked(attempt.url(), local) => attempt.follow(),
            false => attempt.error("it sends to an address that is not encrypted"),
        });
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .user_agent(AGENT)
            .referer(false)
            .connect_timeout(SILENCE)
            .redirect(policy);
        // What is on this machine is not asked for through another one.
        let builder = if local { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| unreachable(told(error)))?;
        let base = |scheme: &str| {
            let base = Url::parse(&format!("{scheme}://{}/", reference.authority()));
            base.map_err(|error| unreachable(error.to_string()))
        };
        let mut client = OciClient {
            reference: reference.clone(),
            access,
            http,
            base: base("https")?,
            authorization: None,
            login_file: None,
        };
        if local && !client.is_encrypted().await? {
            client.base = base("http")?;
        }
        Ok(client)
    }

    /// Whether a registry on this machine speaks TLS.
    async fn is_encrypted(&self) -> Result<bool, Error> {
        let asked = self.http.get(self.url("")).send();
        match timeout(SILENCE, asked).await {
            Err(_) => Err(self.silent(SILENCE)),
            Ok(Err(error)) if error.is_timeout() => Err(self.silent(SILENCE)),
            // An untrusted certificate is one of TLS too: without it the registry would not answer.
            Ok(Err(error)) => Ok(tls_error(&error).is_some_and(|error| !is_plain(error))),
            Ok(Ok(_)) => Ok(true),
        }
    }

    /// An address of this registry's API.
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{path}"));
        url
    }

    /// An address of this repository.
    pub fn of_repository(&self, path: &str) -> Url {
        self.url(&format!("{}/{path}", self.reference.repository))
    }

    /// An address that the registry has named.
    ///
    /// # Errors
    /// It is none, or is not encrypted.
    pub fn named(&self, address: &str, what: &str) -> Result<Url, Error> {
        let url = self.base.join(address).ok();
        let url = url.filter(|url| may_be_asked(url, self.reference.is_local()));
        url.ok_or_else(|| {
            Error::unfit(
                &self.reference,
                format!("its registry names {what} that is no https address; logins and modules are sent to no other"),
            )
        })
    }

    /// Asks for something, logged in if the registry wants it and a login is there.
    ///
    /// # Errors
    /// There is no answer, or no login. Any other answer is the caller's to judge.
    ///
    /// # Cancel safety
    /// Dropped half-way, the registry may have done what was asked.
    pub async fn ask(
        &mut self,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response, Error> {
        let own = url.origin() == self.base.origin();
        let mut logged_in = false;
        loop {
            let mut request = self.http.request(method.clone(), url.clone()).body(body.clone());
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            if let Some(authorization) = self.authorization.as_ref().filter(|_| own) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            let answer = self.send(request, body.len() as u64).await?;
            if answer.status() != StatusCode::UNAUTHORIZED || !own {
                return Ok(answer);
            }
            if logged_in {
                return Err(self.not_let_in());
            }
            self.log_in(&answer).await?;
            logged_in = true;
        }
    }

    /// Sends one request; the time limit grows with its body.
    pub(super) async fn send(&self, request: reqwest::RequestBuilder, bytes: u64) -> Result<Response, Error> {
        let limit = limit(bytes);
        match timeout(limit, request.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_timeout() => Err(self.silent(SILENCE)),
            Ok(Err(error)) => Err(self.unreachable(error)),
            Err(_) => Err(self.silent(limit)),
        }
    }

    /// The body of an answer, if it is no larger than it may be.
    pub async fn body(&self, mut answer: Response, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let too_large = || {
            Error::unfit(
                &self.reference,
                format!("its registry answers with more than {bytes_max} bytes"),
            )
        };
        if answer.content_length().is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_large());
        }
        let whole = limit(bytes_max);
        let read = async {
            let mut bytes = Vec::new();
            loop {
                match timeout(SILENCE, answer.chunk()).await {
                    Err(_) => return Err(self.silent(SILENCE)),
                    Ok(Err(error)) => return Err(self.unreachable(error)),
                    Ok(Ok(None)) => return Ok(bytes),
                    Ok(Ok(Some(chunk))) if (bytes.len() + chunk.len()) as u64 > bytes_max => return Err(too_large()),
                    Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
                }
            }
        };
        timeout(whole, read).await.map_err(|_| self.silent(whole))?
    }

    /// The error of an answer that is not the one that was asked for. `what` follows "to".
    pub async fn refused(&self, answer: Response, what: &str) -> Error {
        let status = answer.status();
        let body = self.body(answer, ANSWER_MAX).await.unwrap_or_default();
        let advice = match status {
            StatusCode::FORBIDDEN if self.authorization.is_some() => "; the login that was used may not do that",
            _ => "",
        };
        Error::Answer {
            host: self.reference.host.clone(),
            status: status.as_u16(),
            what: what.to_owned(),
            why: format!("{}{advice}", words(&body)),
        }
    }

    fn silent(&self, limit: Duration) -> Error {
        let host = self.reference.host.clone();
        Error::Silent { host, limit }
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        let host = self.reference.host.clone();
        let plain = tls_error(&error).is_some_and(is_plain);
        let mut why = told(error);
        if plain {
            why.push_str(
                "; it does not answer with TLS, and without it only registries on this machine are asked: give it a certificate, or reach \
                 it through a tunnel at 127.0.0.1",
            );
        }
        Error::Unreachable { host, why }
    }
}

/// Whether an address may be asked: it is encrypted, or on this machine as its registry is.
fn may_be_asked(url: &Url, local: bool) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => local && url.host_str().is_some_and(is_loopback),
        _ => false,
    }
}

fn limit(bytes: u64) -> Duration {
    SILENCE + Duration::from_secs(bytes / PACE_MIN)
}

/// An error with its causes, without the address, which may hold a token.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = error.source();
    }
    clean(&told)
}

/// What TLS says of an error.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(mut error) = cause {
        // An `io::Error` has as its source not what it wraps, but the source of that.
        while let Some(wrapped) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            error = wrapped;
        }
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Whether the other side has answered with something that is no TLS.
fn is_plain(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidMessage(_))
}

/// What a registry says in an error, for people.
fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct RegistryErrors {
        errors: Vec<RegistryError>,
    }
    #[derive(Deserialize)]
    struct RegistryError {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let told: Vec<String> = match serde_json::from_slice::<RegistryErrors>(body) {
        Ok(told) => told
            .errors
            .iter()
            .map(|one| format!("{} {}", one.code, one.message))
            .collect(),
        Err(_) => Vec::new(),
    };
    match told.is_empty() {
        true => String::new(),
        false => format!(
            ": {}",
            clean(&told.join("; ")).chars().take(WORDS_MAX).collect::<String>()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_without_encryption() {
        let may = |url: &str, local| may_be_asked(&Url::parse(url).expect("an address"), local);
        assert!(may("https://cdn.example/blob?token=1", false));
        assert!(may("http://127.0.0.1:5000/v2/", true) && may("http://[::1]/", true) && may("http://localhost/", true));
        // A registry elsewhere does not send to this machine.
        assert!(!may("http://127.0.0.1:5000/v2/", false));
        assert!(!may("http://10.0.0.1/token", true) && !may("http://auth.example/token", false));
        assert!(!may("ftp://auth.example/token", true));
    }

    #[test]
    fn a_limit_grows_with_what_is_moved() {
        assert_eq!(limit(0), SILENCE);
        assert_eq!(limit(128 * 1024 * 1024), SILENCE + Duration::from_secs(512));
    }

    #[test]
    fn the_words_of_an_error_are_short_and_for_a_terminal() {
        assert_eq!(
            words(br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J way"}]}"#)
                .split(' ')
                .next(),
            Some(":")
        );
        let long = format!(r#"{{"errors":[{{"code":"A","message":"{}"}}]}}"#, "x".repeat(5000));
        assert!(words(long.as_bytes()).len() <= WORDS_MAX + 2);
        assert!(!words(br#"{"errors":[{"code":"A","message":"\u001b"}]}"#).contains('\u{1b}'));
        assert_eq!(words(b"<html>"), "");
    }
}
