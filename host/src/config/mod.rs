//! The configuration: read from layers (defaults, file, `JETMESH_` environment, flags) and checked into a [`Plan`].

mod admin;
mod circuit;
mod context;
pub mod effective;
mod files;
mod handlers;
mod layers;
mod modules;
pub mod names;
mod nats;
mod otel;
mod outboxes;
mod postgres;
mod reader;
mod redrive;
mod schedules;
mod spans;
mod streams;
#[cfg(test)]
mod tests;
mod values;
mod variables;

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format as _, Toml};
use figment::value::Dict;

pub use admin::{address as admin_address, safe as safe_address, token as metrics_token};
pub use effective::effective;
use layers::Layer;
pub use names::{NAME, is_name};
pub use reader::Problem;
use reader::{Reader, Section};
pub use values::{duration, format_duration, rate};

use crate::plan::{Log, LogFormat, Plan};
use crate::text::secret;

/// Where a configuration is looked for if none is named.
const PLACES: [&str; 2] = ["jetmesh.toml", "config/default.toml"];

/// Values of the command line, which override everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub nats_url: Option<String>,
    pub context: Option<String>,
    pub creds: Option<PathBuf>,
    pub nkey: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub wait: Option<String>,
    pub log_filter: Option<String>,
    pub log_format: Option<String>,
    pub admin: Option<String>,
}

/// A configuration that holds together.
#[derive(Debug)]
pub struct Loaded {
    pub plan: Plan,
    pub path: PathBuf,
    /// What is valid, and may surprise.
    pub warnings: Vec<String>,
    /// What is wrong with it; there is none of [`load`].
    pub problems: Vec<Problem>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no configuration: neither ./{} nor ./{} exists; name one with --config FILE", PLACES[0], PLACES[1])]
    None,
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{name}: {why}")]
    Encoding { name: String, why: String },
    #[error("{name}: not valid TOML\n{text}")]
    Syntax { name: String, text: String },
    #[error("error: {name} has {} problem{}\n{}", problems.len(), if problems.len() == 1 { "" } else { "s" }, lines(problems))]
    Problems { name: String, problems: Vec<Problem> },
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads the configuration at `path`, or where it is usually found, with all its layers.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Loaded, Error> {
    let loaded = look(path, overrides)?;
    match loaded.problems.is_empty() {
        true => Ok(loaded),
        false => Err(Error::Problems {
            name: loaded.path.display().to_string(),
            problems: loaded.problems,
        }),
    }
}

/// The same for commands that only read a mesh: an error in another part of the configuration does not prevent that. Handlers
/// without a valid name are left out.
pub fn look(path: Option<&Path>, overrides: &Overrides) -> Result<Loaded, Error> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => PLACES
            .iter()
            .map(PathBuf::from)
            .find(|p| p.is_file())
            .ok_or(Error::None)?,
    };
    let bytes = std::fs::read(&path).map_err(|source| Error::Read {
        path: path.clone(),
        source,
    })?;
    let name = path.display().to_string();
    let text = decoded(bytes).map_err(|why| Error::Encoding {
        name: name.clone(),
        why,
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    let (mut plan, mut reader) = read(&name, &text, base, |file| {
        vec![layers::environment(file), layers::flags(overrides)]
    })?;
    plan.spans.otlp = otel::read(|name| std::env::var(name).ok(), &plan.mesh, &mut reader);
    if !reader.problems.is_empty() {
        missing_modules(&plan, &mut reader);
    }
    let (problems, warnings) = (reader.problems, reader.warnings);
    let needed = |problem: &Problem| problem.key == "mesh" || problem.key.split('.').next() == Some("nats");
    if problems.iter().any(needed) {
        return Err(Error::Problems { name, problems });
    }
    plan.handlers.retain(|handler| {
        let key = format!("handlers.{}", handler.name);
        let names = ["", ".stream", ".consumer", ".bucket"].map(|of| format!("{key}{of}"));
        !problems.iter().any(|problem| names.contains(&problem.key))
    });
    plan.outboxes.retain(|outbox| {
        let key = format!("outbox.{}", outbox.name);
        let names = ["", ".url", ".source", ".table", ".stream"].map(|of| format!("{key}{of}"));
        !problems.iter().any(|problem| names.contains(&problem.key))
    });
    Ok(Loaded {
        plan,
        path,
        warnings,
        problems,
    })
}

/// Reads a configuration from text alone; `base` is what relative module paths begin at.
#[cfg(test)]
pub fn parse(text: &str, base: &Path) -> Result<Plan, Error> {
    let name = "the configuration";
    match read(name, text, base, |_| Vec::new())? {
        (plan, reader) if reader.problems.is_empty() => Ok(plan),
        (_, reader) => Err(Error::Problems {
            name: name.to_owned(),
            problems: reader.problems,
        }),
    }
}

/// The text of a file; or its encoding, which is not UTF-8.
fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, ..] | [0, ..] => {
            return Err("it is encoded in UTF-16 or UTF-32: save it as UTF-8".to_owned());
        }
        _ => {}
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..at];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let byte = error.as_bytes()[at];
        format!(
            "line {line} is not UTF-8: it has the byte {byte:#04x}, as Latin-1 (ISO 8859-1) or Windows-1252 would; save \
             it as UTF-8"
        )
    })
}

/// A configuration, and what was found while reading it.
fn read(name: &str, text: &str, base: &Path, over: impl FnOnce(&Dict) -> Vec<Layer>) -> Result<(Plan, Reader), Error> {
    let syntax = |e: figment::Error| Error::Syntax {
        name: name.to_owned(),
        text: without_secrets(&e.to_string()),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut figment = Figment::from(Toml::string(text));
    let mut reader = Reader::default();
    for layer in over(&figment.extract().map_err(syntax)?) {
        layer.sources(&mut reader.sources);
        figment = figment.merge(layer);
    }
    let plan = plan(figment.extract().map_err(syntax)?, base, &mut reader);
    Ok((plan, reader))
}

/// Modules that are not there, so that all that is wrong is said at once.
fn missing_modules(plan: &Plan, reader: &mut Reader) {
    for handler in &plan.handlers {
        let missing = |file: &&Path| file.file_name().is_some() && !file.exists();
        let Some(file) = handler.module.file().filter(missing) else {
            continue;
        };
        let key = format!("handlers.{}.module", handler.name);
        let said = reader.problems.iter().any(|problem| problem.key == key);
        if !said {
            reader.problem(key, format!("there is no file {}", file.display()), "");
        }
    }
}

/// A syntax error quotes the line that it is about: not one that may hold a secret.
fn without_secrets(error: &str) -> String {
    let error = error.trim_end().trim_end_matches("in TOML source string").trim_end();
    let signs = ["password", "token", "@", "-----BEGIN", "KEY", "eyJ"];
    if !signs.iter().any(|sign| error.contains(sign)) && !secret::is_in(error) {
        return error.to_owned();
    }
    let quoted = |line: &&str| {
        line.split_once('|')
            .is_some_and(|(n, _)| n.trim().parse::<usize>().is_ok() || n.trim().is_empty())
    };
    error
        .lines()
        .filter(|line| !quoted(line))
        .collect::<Vec<_>>()
        .join("\n")
}

fn plan(values: Dict, base: &Path, reader: &mut Reader) -> Plan {
    let mut root = Section::root(values);
    let mesh = root.text(reader, "mesh").unwrap_or_else(|| "jetmesh".to_owned());
    names::check_name(reader, "mesh", &mesh);
    let replicas = root.number(reader, "replicas", 1..=5, 1);
    let relay = root.boolean(reader, "relay", true);
    let threads = root.number(reader, "threads", 0..=256, 0);
    let drain_timeout = root.duration(reader, "drain_timeout", Duration::ZERO, Duration::from_secs(30));
    let ledger_keep = root.duration(reader, "ledger_keep", Duration::ZERO, Duration::from_secs(24 * 3600));
    let mesh_bytes_max = root.bytes_or(reader, "mesh_max_bytes", 1 << 20..=1 << 50);
    let ledger_bytes_max = root.bytes_or(reader, "ledger_max_bytes", 1 << 20..=1 << 50);
    let log = log(root.section(reader, "log"), reader);
    let admin = admin::read(root.section(reader, "admin"), reader);
    let spans = spans::read(root.section(reader, "spans"), reader);
    let modules = modules::read(root.section(reader, "modules"), base, reader);
    let mut nats = nats::read(root.section(reader, "nats"), reader);
    let mut streams = streams::read(&mut root, reader);
    let redrive = redrive::read(&mut root, reader);
    let handlers = handlers::read(&mut root, base, (&streams, &redrive), reader);
    let schedules = schedules::read(&mut root, reader);
    let outboxes = outboxes::read(&mut root, base, &handlers, reader);
    outboxes::mark(&mut streams, &outboxes);
    root.finish(reader);
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if threads == 0 { cores() } else { narrow(threads) };
    nats.connections = crate::broker::shared::wanted(threads, relay, !outboxes.is_empty());
    // That of the rounds of redrives.
    let redrives = handlers.iter().any(|handler| handler.redrive.is_some());
    nats.connections.most += usize::from(redrives);
    if admin.listen.is_some() {
        nats.connections.add_admin();
    }
    if handlers.iter().any(|handler| handler.module.registered().is_some()) {
        nats.connections.add_registry();
    }
    Plan {
        mesh,
        nats,
        log,
        admin,
        modules,
        spans,
        replicas: narrow(replicas),
        relay,
        threads,
        drain_timeout,
        ledger_keep,
        mesh_bytes_max,
        ledger_bytes_max,
        streams,
        handlers,
        schedules,
        outboxes,
    }
}

fn log(mut section: Section, reader: &mut Reader) -> Log {
    let filter = section.text(reader, "filter").unwrap_or_else(|| "info".to_owned());
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
        reader.problem(
            "log.filter",
            format!("\"{filter}\": {error}"),
            "for instance \"info\" or \"jetmesh=debug\"",
        );
    }
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.word(reader, "format", &formats, LogFormat::Text);
    section.finish(reader);
    Log { filter, format }
}

/// A number that has been checked to be small.
fn narrow(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
