//! Text of configurations.

use std::path::Path;

use crate::support::modules;

/// The text of a configuration. Its source stream is `ORDERS` on `orders.>`; what handlers emit goes to `EVENTS`.
///
/// Waits are short: an ack wait of 1 s and a backoff of 100 ms. There is no circuit, because most tests have all events fail.
#[derive(Clone)]
pub struct Config {
    top: String,
    nats: String,
    tables: String,
    handlers: Vec<String>,
}

impl Config {
    /// No handler yet.
    pub fn new() -> Self {
        let tables = "\
            [log]\nfilter = \"info,jetmesh=debug,guest=debug\"\n\
            [streams.ORDERS]\nsubjects = [\"orders.>\"]\n\
            [streams.EVENTS]\nsubjects = [\"events.>\", \"inventory.*\", \"points.*\", \"notifications.*\"]\n\
            [defaults]\nack_wait = \"1s\"\nbackoff = \"100ms\"\ncircuit = false\n";
        Self {
            top: String::new(),
            nats: String::new(),
            tables: tables.to_owned(),
            handlers: Vec::new(),
        }
    }

    /// One handler `probe` with the bucket `probe`, which may publish on `events.>`.
    pub fn probe() -> Self {
        Self::probe_with("")
    }

    /// The same with more lines of its table.
    pub fn probe_with(lines: &str) -> Self {
        let lines = format!("bucket = \"probe\"\npublish = [\"events.>\"]\n{lines}");
        Self::new().handler("probe", &modules::handler("probe"), &lines)
    }

    /// One more handler on `ORDERS`, with these lines of its table.
    pub fn handler(mut self, name: &str, module: &Path, lines: &str) -> Self {
        // A stream or subjects of the handler's own are among its lines then.
        let stream = if lines.contains("stream =") {
            ""
        } else {
            "stream = \"ORDERS\"\n"
        };
        self.handlers.push(name.to_owned());
        self.tables += &format!("[handlers.{name}]\nmodule = {module:?}\n{stream}{lines}\n");
        self
    }

    /// A line of the top level, such as `relay = false`.
    pub fn top(mut self, line: &str) -> Self {
        self.top += &format!("{line}\n");
        self
    }

    /// A line of the table `nats`.
    pub fn nats(mut self, line: &str) -> Self {
        self.nats += &format!("{line}\n");
        self
    }

    /// One more table, with its name.
    pub fn table(mut self, table: &str) -> Self {
        self.tables += &format!("{table}\n");
        self
    }

    /// The text, for a server at `url`.
    pub fn text(&self, url: &str) -> String {
        format!("{}[nats]\nurl = {url:?}\n{}{}", self.top, self.nats, self.tables)
    }

    /// The names of its handlers.
    pub fn handlers(&self) -> &[String] {
        &self.handlers
    }
}
