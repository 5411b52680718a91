//! Logging in to a registry: with a name and a password, or with a token that another address gives for them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::DockerCredential;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::Error;
use super::challenge::{Challenge, challenge};
use super::client::{ANSWER_MAX, Access, OciClient};
use super::credentials::{OciCredentials, credentials};

/// As this program is called by those who give tokens.
const CLIENT_ID: &str = "jetmesh";

impl OciClient {
    /// Logs in as a registry's refusal asks for it. Without a login, a registry may give a token to anyone.
    ///
    /// # Errors
    /// It wants a login and there is none, or does not take it.
    pub(super) async fn log_in(&mut self, refusal: &Response) -> Result<(), Error> {
        let headers = refusal.headers().get_all(WWW_AUTHENTICATE).iter();
        let wanted = challenge(headers.filter_map(|value| value.to_str().ok()));
        let found = credentials(&self.reference).await?;
        let value = match (wanted, &found) {
            (None, _) => return Err(self.login("it wants a login and does not say how".to_owned())),
            (Some(Challenge::Bearer { realm, service }), _) => {
                format!(
                    "Bearer {}",
                    self.token(&realm, service.as_deref(), found.as_ref()).await?
                )
            }
            (Some(Challenge::Basic), None) => return Err(self.missing()),
            (Some(Challenge::Basic), Some(found)) => match &found.login {
                DockerCredential::UsernamePassword(user, password) => basic(user, password),
                DockerCredential::IdentityToken(_) => {
                    let file = found.file.display();
                    return Err(self.login(format!("it wants a name and a password, and {file} has a token for it")));
                }
            },
        };
        let value = HeaderValue::from_str(&value);
        let mut value =
            value.map_err(|_| self.login("its login cannot be sent: it has control characters".to_owned()))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        self.login_file = found.map(|found| found.file);
        Ok(())
    }

    /// A token for what is asked of the repository.
    async fn token(&self, realm: &str, service: Option<&str>, found: Option<&OciCredentials>) -> Result<String, Error> {
        let realm = self.named(realm, "a place for logins")?;
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.reference.repository);
        let mut asked = vec![("scope", scope.as_str())];
        asked.extend(service.map(|service| ("service", service)));
        let request = match found.map(|found| &found.login) {
            Some(DockerCredential::IdentityToken(token)) => {
                asked.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT_ID),
                    ("refresh_token", token),
                ]);
                let form = "application/x-www-form-urlencoded";
                let mut address = realm.clone();
                address.set_query(None);
                let body = encoded(&address, &asked).query().unwrap_or_default().to_owned();
                self.http.post(realm.clone()).header(CONTENT_TYPE, form).body(body)
            }
            Some(DockerCredential::UsernamePassword(user, password)) => {
                let mut login = HeaderValue::from_str(&basic(user, password))
                    .map_err(|_| self.login("its login cannot be sent: it has control characters".to_owned()))?;
                login.set_sensitive(true);
                self.http.get(encoded(&realm, &asked)).header(AUTHORIZATION, login)
            }
            None => self.http.get(encoded(&realm, &asked)),
        };
        let answer = self.send(request.header(ACCEPT, "application/json"), 0).await?;
        match (answer.status(), found) {
            (StatusCode::OK, _) => {}
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST, Some(found)) => {
                return Err(self.wrong(&found.file));
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => return Err(self.missing()),
            _ => return Err(self.refused(answer, "the request for a token").await),
        }
        #[derive(Deserialize)]
        struct GivenToken {
            token: Option<String>,
            access_token: Option<String>,
        }
        let body = self.body(answer, ANSWER_MAX).await?;
        let given = serde_json::from_slice::<GivenToken>(&body).ok();
        let given = given.and_then(|given| given.token.or(given.access_token));
        given.ok_or_else(|| self.login("where it sends for a token, none is given".to_owned()))
    }

    fn login(&self, why: String) -> Error {
        Error::Login(format!("registry {}: {why}", self.reference.host))
    }

    /// Nothing was found to log in with.
    fn missing(&self) -> Error {
        let host = &self.reference.host;
        self.login(format!(
            "it wants a login, and there is none: log in with `docker login {host}` or `podman login {host}`, or name a file with logins in \
             REGISTRY_AUTH_FILE"
        ))
    }

    /// It wants a login after one.
    pub(super) fn not_let_in(&self) -> Error {
        self.login_file
            .as_deref()
            .map_or_else(|| self.missing(), |file| self.wrong(file))
    }

    /// What was found is not taken.
    fn wrong(&self, file: &Path) -> Error {
        let host = &self.reference.host;
        let file = file.display();
        self.login(format!(
            "it does not take the login of {file}: log in again with `docker login {host}`"
        ))
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// An address with more in its query.
fn encoded(url: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url
}
