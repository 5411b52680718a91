//! The address of a PostgreSQL, with its password and how it is encrypted.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::reader::{Reader, Section};
use crate::plan::{Postgres, PostgresTls};

/// Both are in use.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
const EXAMPLE: &str = "\"postgres://jetmesh@db.example:5432/shop\"";
/// Words for `sslmode`.
const MODES: [PostgresTls; 3] = [PostgresTls::Disable, PostgresTls::Require, PostgresTls::VerifyFull];

pub fn is_postgres(url: &str) -> bool {
    SCHEMES.iter().any(|scheme| url.starts_with(scheme))
}

/// Reads `url`, and the keys beside it that only PostgreSQL has.
pub fn read(url: &str, section: &mut Section, base: &Path, reader: &mut Reader) -> Postgres {
    let key = section.key("url");
    let password = password(section, base, reader);
    let (plain, asked) = parameters(url);
    let mut postgres = Postgres {
        url: plain,
        name: String::new(),
        password,
        tls: PostgresTls::VerifyFull,
        ca: asked.ca.map(|file| base.join(file)),
        told: without_user(url),
    };
    let config = match Config::from_str(&postgres.url) {
        Ok(config) => config,
        Err(error) => {
            let what = format!(
                "\"{}\" is not the address of a PostgreSQL{}",
                postgres.told,
                wrong_part(&error, &postgres.url)
            );
            reader.problem(key, what, format!("for instance {EXAMPLE}"));
            return postgres;
        }
    };
    if config.get_hosts().is_empty() || config.get_dbname().is_none() {
        let what = format!("\"{}\" lacks a host or a database", postgres.told);
        reader.problem(&key, what, format!("for instance {EXAMPLE}"));
    }
    postgres.told = told(&config);
    config.get_dbname().unwrap_or_default().clone_into(&mut postgres.name);
    postgres.tls = match asked.mode {
        None if config.get_hosts().iter().all(is_near) => PostgresTls::Disable,
        None => PostgresTls::VerifyFull,
        Some(word) => match MODES.iter().find(|mode| mode.word() == word) {
            Some(mode) => *mode,
            None => {
                let what = format!("sslmode \"{}\" is none that an outbox has", word.escape_debug());
                reader.problem(&key, what, "disable, require or verify-full");
                PostgresTls::VerifyFull
            }
        },
    };
    if let Some(ca) = postgres.ca.as_ref().filter(|ca| !ca.is_file()) {
        let what = format!("there is no file {}", ca.display());
        reader.problem(key, what, "sslrootcert: a path, not its content");
    }
    postgres
}

/// Which part of an address is wrong, if that has a plain name, which is no piece of a password.
fn wrong_part(error: &tokio_postgres::Error, url: &str) -> String {
    let reason = std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default();
    let name = reason.split('`').nth(1).unwrap_or_default();
    let plain = !name.is_empty() && name.len() <= 32 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let after_user = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    match plain && (name == "port" || after_user.contains(&format!("{name}="))) {
        true => format!(": {reason}"),
        false => String::new(),
    }
}

/// The keys of a section that only PostgreSQL has, for another database.
pub fn refuse(section: &mut Section, reader: &mut Reader) {
    for name in ["password", "password_file"] {
        if section.text(reader, name).is_some() {
            let what = "only PostgreSQL has a password";
            reader.problem(section.key(name), what, "leave it out");
        }
    }
}

fn password(section: &mut Section, base: &Path, reader: &mut Reader) -> Option<String> {
    let password = section.text(reader, "password");
    let Some(file) = section.text(reader, "password_file") else {
        return password;
    };
    let key = section.key("password_file");
    if password.is_some() {
        reader.problem(key, "not together with password", "leave one of them out");
        return password;
    }
    match std::fs::read_to_string(base.join(&file)) {
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => {
            reader.problem(key, format!("{file}: {error}"), "a file with nothing but the password");
            None
        }
    }
}

/// What an address asks of TLS, in the words of libpq.
#[derive(Default)]
struct AskedTls {
    mode: Option<String>,
    ca: Option<PathBuf>,
}

/// An address without those.
fn parameters(url: &str) -> (String, AskedTls) {
    let Some((address, query)) = url.split_once('?') else {
        return (url.to_owned(), AskedTls::default());
    };
    let mut asked = AskedTls::default();
    let mut others = Vec::new();
    for one in query.split('&') {
        match one.split_once('=') {
            Some(("sslmode", word)) => asked.mode = Some(word.to_owned()),
            Some(("sslrootcert", file)) => asked.ca = Some(file.replace("%2F", "/").into()),
            _ => others.push(one),
        }
    }
    let mark = if others.is_empty() { "" } else { "?" };
    (format!("{address}{mark}{}", others.join("&")), asked)
}

/// A socket, or this machine.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => ["localhost", "127.0.0.1", "::1"].contains(&name.as_str()),
    }
}

/// An address that may not be one, without its user and password.
fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

fn told(config: &Config) -> String {
    let ports = config.get_ports();
    let one = |(at, host): (usize, &Host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Unix(path) => format!("{}:{port}", path.display()),
            Host::Tcp(name) => format!("{name}:{port}"),
        }
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(one).collect();
    format!(
        "postgres://{}/{}",
        hosts.join(","),
        config.get_dbname().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(url: &str) -> (Postgres, Vec<String>) {
        let mut reader = Reader::default();
        let mut section = Section::root(figment::value::Dict::new());
        let read = read(url, &mut section, Path::new("/etc"), &mut reader);
        let problems = reader.problems.iter().map(ToString::to_string).collect();
        (read, problems)
    }

    #[test]
    fn a_server_on_another_machine_proves_its_name_unless_the_address_says_otherwise() {
        let modes = [
            ("postgres://u@db.example/shop", PostgresTls::VerifyFull),
            ("postgresql://u@127.0.0.1:5433/shop", PostgresTls::Disable),
            ("postgres://u@%2Frun%2Fpostgresql/shop", PostgresTls::Disable),
            ("postgres://u@localhost,db.example/shop", PostgresTls::VerifyFull),
            ("postgres://u@db.example/shop?sslmode=disable", PostgresTls::Disable),
            (
                "postgres://u@127.0.0.1/shop?sslmode=require&connect_timeout=2",
                PostgresTls::Require,
            ),
        ];
        for (url, mode) in modes {
            let (read, problems) = read_one(url);
            assert_eq!((read.tls, problems), (mode, Vec::new()), "{url}");
        }
        let (read, _) = read_one("postgres://u:secret@127.0.0.1/shop?sslmode=require&connect_timeout=2");
        assert_eq!(read.url, "postgres://u:secret@127.0.0.1/shop?connect_timeout=2");
        assert_eq!(read.told, "postgres://127.0.0.1:5432/shop");
    }

    #[test]
    fn a_password_is_beside_the_address_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "from a file\n").unwrap();
        let read = |key: &str, value: &str| {
            let mut reader = Reader::default();
            let values = [(key.to_owned(), figment::value::Value::from(value))];
            let mut section = Section::root(values.into_iter().collect());
            read("postgres://u@127.0.0.1/shop", &mut section, folder.path(), &mut reader).password
        };
        assert_eq!(read("password", "told").as_deref(), Some("told"));
        assert_eq!(read("password_file", "secret").as_deref(), Some("from a file"));
        assert_eq!(read("password_file", "none"), None);
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_its_secret() {
        let wrong = [
            ("postgres://u:secret@h:x/db", "is not the address of a PostgreSQL"),
            ("postgres://u:secret@h:99999/db", "`port`"),
            ("postgres://u:secret@h/db?foo=bar", "unknown option `foo`"),
            ("postgres://u:secret@h", "lacks a host or a database"),
            (
                "postgres://u:secret@h/db?sslmode=prefer",
                "disable, require or verify-full",
            ),
            (
                "postgres://u:secret@h/db?sslrootcert=none.pem",
                "there is no file /etc/none.pem",
            ),
        ];
        for (url, said) in wrong {
            let (_, problems) = read_one(url);
            assert!(problems.len() == 1 && problems[0].contains(said), "{url}: {problems:?}");
            assert!(!problems[0].contains("secret"), "{problems:?}");
        }
    }
}
