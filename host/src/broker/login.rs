//! How a connection says who it is: users in addresses, and files that hold keys.

use std::path::Path;

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions};

use super::error::{Error, chain};
use crate::plan::{GivenKeys, Nats};
use crate::text::secret;

/// A server's address, and who is to be there if the address says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `nats://host:port`, without a user.
    pub server: String,
    pub login: Option<Login>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    User { name: String, password: String },
    Token(String),
}

/// The addresses of a configuration, each with its own user.
pub fn addresses(nats: &Nats) -> Vec<Address> {
    nats.url.split(',').map(|one| address(one.trim())).collect()
}

/// One address of a configuration.
pub fn address(text: &str) -> Address {
    let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
    let (user, host) = match rest.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, rest),
    };
    let login = user
        .filter(|user| !user.is_empty())
        .map(|user| match user.split_once(':') {
            Some((name, password)) => Login::User {
                name: decoded(name),
                password: decoded(password),
            },
            // As every client of NATS reads it.
            None => Login::Token(decoded(user)),
        });
    Address {
        server: format!("{scheme}://{host}"),
        login,
    }
}

/// A text with `%2F` and the like as what they stand for; anything else stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let byte = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// In both of the server's words on a limit of connections, its own and an account's (`ErrTooManyConnections` and
/// `ErrTooManyAccountConnections` in <https://github.com/nats-io/nats-server/blob/main/server/errors.go>).
const CROWDED: &str = "connections exceeded";

/// Why a connection was not made.
pub fn failed(nats: &Nats, address: &Address, error: &ConnectError) -> Error {
    let (url, why) = (address.server.clone(), chain(error));
    if refused(error) {
        let tried = described(nats, address.login.as_ref());
        return Error::Unauthorized { url, tried, why };
    }
    match why.contains(CROWDED) {
        true => Error::Crowded {
            url,
            why,
            wanted: nats.connections,
        },
        false => Error::Connect { url, why },
    }
}

/// Whether the server refuses who the client says it is. Trying again would not change that.
fn refused(error: &ConnectError) -> bool {
    let said = |error: &dyn std::error::Error| {
        let text = error.to_string().to_lowercase();
        text.contains("authentication expired") || text.contains("authentication revoked")
    };
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => true,
        _ => std::error::Error::source(error).is_some_and(said),
    }
}

/// How to connect as the user that the address or the configuration names.
pub async fn options(nats: &Nats, login: Option<&Login>) -> Result<ConnectOptions, Error> {
    let mut options = ConnectOptions::new();
    if let Some(file) = &nats.creds {
        options = options.credentials_file(file).await.map_err(|e| Error::Credentials {
            what: file.display().to_string(),
            why: e.to_string(),
        })?;
    }
    if let Some(file) = &nats.nkey {
        let seed = seed(file).map_err(|why| Error::Credentials {
            what: file.display().to_string(),
            why,
        })?;
        options = options.nkey(seed);
    }
    match &nats.given {
        Some(GivenKeys::Creds(text)) => {
            options = options.credentials(text).map_err(|e| Error::Credentials {
                what: "the credentials".to_owned(),
                why: e.to_string(),
            })?;
        }
        Some(GivenKeys::Seed(seed)) => options = options.nkey(seed.clone()),
        None => {}
    }
    match login {
        Some(Login::User { name, password }) => options = options.user_and_password(name.clone(), password.clone()),
        Some(Login::Token(token)) => options = options.token(token.clone()),
        None => {
            if let Some(user) = &nats.user {
                options = options.user_and_password(user.clone(), nats.password.clone().unwrap_or_default());
            }
            if let Some(token) = &nats.token {
                options = options.token(token.clone());
            }
        }
    }
    if let Some(ca) = &nats.tls_ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&nats.tls_cert, &nats.tls_key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    if nats.tls_first {
        options = options.tls_first();
    }
    Ok(options)
}

/// The login that was tried, for a person who has to find out why it was refused. It contains no secret.
fn described(nats: &Nats, login: Option<&Login>) -> String {
    let file = |path: &Path| secret::hide(&path.display().to_string());
    let mut tried: Vec<String> = Vec::new();
    match login {
        Some(Login::User { name, .. }) => tried.push(format!("user {name} of the address")),
        Some(Login::Token(_)) => tried.push("the token of the address".to_owned()),
        None => {
            tried.extend(nats.user.as_ref().map(|user| format!("user {user}")));
            tried.extend(nats.token.as_ref().map(|_| "the token".to_owned()));
        }
    }
    tried.extend(
        nats.creds
            .as_deref()
            .map(|path| format!("the credentials in {}", file(path))),
    );
    tried.extend(nats.nkey.as_deref().map(|path| format!("the nkey in {}", file(path))));
    tried.extend(
        nats.tls_cert
            .as_deref()
            .map(|path| format!("the certificate in {}", file(path))),
    );
    tried.extend(nats.given.as_ref().map(|_| "the keys that were given".to_owned()));
    match tried.is_empty() {
        true => "none are given".to_owned(),
        false => tried.join(", "),
    }
}

/// The user's seed in a file: the first word that is one, so that comments, a public key beside it, armour and a byte
/// order mark do no harm.
pub fn seed(path: &Path) -> Result<String, String> {
    seed_in(&text(path)?)
}

/// The same of a text.
pub fn seed_in(text: &str) -> Result<String, String> {
    let word = |c: char| !c.is_ascii_alphanumeric();
    let seeds = text
        .split(word)
        .filter_map(|word| Some((word, nkeys::KeyPair::from_seed(word).ok()?)));
    let mut other = None;
    for (word, pair) in seeds {
        match pair.key_pair_type() {
            nkeys::KeyPairType::User => return Ok(word.to_owned()),
            kind => other = Some(kind),
        }
    }
    let public = text
        .split(word)
        .any(|word| nkeys::KeyPair::from_public_key(word).is_ok());
    let begins = "a user's seed begins with SU";
    // A piece of a JWT could look like a seed.
    let lines = text.lines().filter(|line| !line.contains("eyJ"));
    let wrong = lines.flat_map(|line| line.split(word)).find_map(wrong);
    Err(match (other, wrong, public) {
        (Some(kind), ..) => format!("it holds no seed of a user, but one of {kind:?}"),
        (None, Some(why), _) => why,
        (None, None, true) => format!("it holds no seed, only a public key: {begins}"),
        (None, None, false) => format!("it holds no seed: {begins}"),
    })
}

/// Characters of a seed: two bytes of prefix, 32 of the key and two of the checksum in base32
/// (<https://docs.nats.io/using-nats/developer/connecting/nkey>).
const SEED_LENGTH: usize = 58;

/// What is wrong with a word that is meant to be a user's seed, without the word itself, which is nearly the secret. `None`: it
/// is not meant so.
fn wrong(word: &str) -> Option<String> {
    let begins = word.get(..2).is_some_and(|begin| begin.eq_ignore_ascii_case("SU"));
    // A shorter word that begins so is a name, or part of a comment.
    if !(begins && word.len() >= SEED_LENGTH / 2 || word.len() == SEED_LENGTH) {
        return None;
    }
    let is_base32 = |c: char| matches!(c, 'A'..='Z' | '2'..='7');
    let why = match word.len() {
        SEED_LENGTH if word.chars().all(is_base32) => {
            "its prefix or its checksum does not match, so at least one character is wrong".to_owned()
        }
        SEED_LENGTH => "it has characters other than A-Z and 2-7".to_owned(),
        length => format!("it has {length} characters, and a seed has {SEED_LENGTH}"),
    };
    Some(format!(
        "it holds a seed of a user that is not valid: {why}; copy the file again from where it was made"
    ))
}

/// Whether a file can be a `.creds` file.
pub fn check_credentials(path: &Path) -> Result<(), String> {
    check_credentials_in(&text(path)?)
}

/// The same of a text.
pub fn check_credentials_in(text: &str) -> Result<(), String> {
    if !text.contains("BEGIN NATS USER JWT") {
        return Err("it holds no user JWT: a credentials file is made by `nsc generate creds`".to_owned());
    }
    seed_in(text).map(|_| ())
}

/// Whether a file holds what the title of such a block names, in PEM.
pub fn check_pem(path: &Path, title: &str, what: &str) -> Result<(), String> {
    let text = text(path)?;
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{title}-----"));
    match text.lines().map(str::trim).any(begins) {
        true => Ok(()),
        false => Err(format!("it holds no {what} in PEM (-----BEGIN {title}-----)")),
    }
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("it cannot be read: {e}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, password: &str) -> Option<Login> {
        let (name, password) = (name.to_owned(), password.to_owned());
        Some(Login::User { name, password })
    }

    #[test]
    fn each_address_has_its_own_user_percent_decoded() {
        let nats = Nats {
            url: "nats://a:p%40ss%2Fw@h:1,tls://t%2Ck@[::1]:2, nats://h:3,nats://u:@h:4,nats://50%:%zz%e@h".to_owned(),
            ..Nats::default()
        };
        let rows = [
            ("nats://h:1", user("a", "p@ss/w")),
            ("tls://[::1]:2", Some(Login::Token("t,k".to_owned()))),
            ("nats://h:3", None),
            ("nats://h:4", user("u", "")),
            ("nats://h", user("50%", "%zz%e")),
        ];
        let wanted = rows.map(|(server, login)| Address {
            server: server.to_owned(),
            login,
        });
        assert_eq!(addresses(&nats), wanted);
    }

    #[test]
    fn a_users_seed_is_found_wherever_it_stands_in_its_file() {
        let dir = tempfile::TempDir::new().expect("a temporary folder");
        let file = dir.path().join("k");
        let pair = nkeys::KeyPair::new_user();
        let (seed_text, public) = (pair.seed().expect("it has one"), pair.public_key());
        let found = |text: &str| {
            std::fs::write(&file, text).expect("a writable folder");
            seed(&file)
        };
        for text in [
            format!("{seed_text}\n"),
            format!("\u{feff}{seed_text}"),
            format!("{public}\n{seed_text}\n"),
            format!("# of the host\nseed: \"{seed_text}\"\r\n"),
            format!("-----BEGIN USER NKEY SEED-----\n{seed_text}\n------END USER NKEY SEED------\n"),
        ] {
            assert_eq!(found(&text), Ok(seed_text.clone()));
        }
        let account = nkeys::KeyPair::new_account().seed().expect("it has one");
        for (text, wanted) in [
            (String::new(), "it holds no seed: "),
            ("hunter2".to_owned(), "it holds no seed: "),
            (public, "only a public key"),
            (account, "it holds no seed of a user, but one of Account"),
        ] {
            let refused = found(&text).expect_err("there is none");
            assert!(refused.contains(wanted), "{refused}");
        }
    }

    #[test]
    fn a_mistyped_seed_is_told_as_such_and_not_printed() {
        let dir = tempfile::TempDir::new().expect("a temporary folder");
        let file = dir.path().join("k.creds");
        let good = nkeys::KeyPair::new_user().seed().expect("it has one");
        let jwt = "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n";
        let swapped = |at: usize, c: &str| {
            let other = if &good[at..=at] == c { "B" } else { c };
            format!("{}{other}{}", &good[..at], &good[at + 1..])
        };
        let length = |length: usize| format!("it has {length} characters, and a seed has 58");
        let checksum = "its prefix or its checksum does not match";
        for (seed_text, why) in [
            (swapped(0, "T"), checksum),
            (swapped(20, "A"), checksum),
            (swapped(57, "A"), checksum),
            (swapped(20, "1"), "characters other than A-Z and 2-7"),
            (good.to_lowercase(), "characters other than A-Z and 2-7"),
            (good[..57].to_owned(), &*length(57)),
            (format!("{good}A"), &*length(59)),
        ] {
            let armoured = format!("-----BEGIN USER NKEY SEED-----\n{seed_text}\n------END USER NKEY SEED------\n");
            std::fs::write(&file, format!("{jwt}{armoured}")).expect("a writable folder");
            for refused in [seed(&file).map(drop), check_credentials(&file)] {
                let refused = refused.expect_err("it is wrong");
                assert!(refused.contains("a seed of a user that is not valid"), "{refused}");
                assert!(refused.contains(why), "{why}: {refused}");
                assert!(!refused.contains(&seed_text[..20]), "{refused}");
            }
        }
    }
}
