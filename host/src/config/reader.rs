//! Reads a merged configuration key by key, and collects everything that is wrong with it: an operator sees all problems
//! at once, each with its key, value, rule and fix.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::values::{date_as_text, duration, format_bytes, format_duration, meant_bytes, parse_bytes, plain, show};
use crate::config::variables::variable_meant;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    pub what: String,
    pub hint: Option<String>,
    /// The variable or flag that said it; `None`: the file.
    pub source: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}: {}", self.key, self.what)?;
        if let Some(source) = &self.source {
            write!(f, " (from {source})")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What was found while reading.
#[derive(Debug, Default)]
pub struct Reader {
    pub problems: Vec<Problem>,
    /// What is valid, and may surprise.
    pub warnings: Vec<String>,
    /// Every key that was asked for and what it takes, names of streams, handlers and settings as `*`. The reference in
    /// `docs/configuration.md` is made from it.
    pub known: BTreeMap<String, String>,
    /// Keys that a variable or a flag sets, and which.
    pub sources: BTreeMap<String, String>,
}

impl Reader {
    pub fn problem(&mut self, key: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) {
        let (key, hint) = (key.into(), hint.into());
        let source = self.sources.get(&key).cloned();
        self.problems.push(Problem {
            key,
            what: what.into(),
            hint: (!hint.is_empty()).then_some(hint),
            source,
        });
    }

    pub fn warning(&mut self, key: impl fmt::Display, what: impl fmt::Display) {
        self.warnings.push(format!("{key}: {what}"));
    }
}

/// A table of the configuration, being taken apart.
pub struct Section {
    path: String,
    /// The path with names as `*`.
    kind: String,
    values: Dict,
    asked: Vec<&'static str>,
}

impl Section {
    pub fn root(values: Dict) -> Section {
        Section::at(String::new(), String::new(), values)
    }

    fn at(path: String, kind: String, values: Dict) -> Section {
        let asked = Vec::new();
        Section {
            path,
            kind,
            values,
            asked,
        }
    }

    /// The full name of a key here.
    pub fn key(&self, name: &str) -> String {
        join(&self.path, name)
    }

    fn take(&mut self, reader: &mut Reader, name: &'static str, takes: impl Into<String>) -> Option<Value> {
        reader.known.insert(join(&self.kind, name), takes.into());
        self.asked.push(name);
        self.values.remove(name).map(date_as_text)
    }

    /// A table; an empty one if it is not there.
    pub fn section(&mut self, reader: &mut Reader, name: &'static str) -> Section {
        let (path, kind) = (self.key(name), join(&self.kind, name));
        let values = match self.take(reader, name, "table") {
            None => Dict::new(),
            Some(Value::Dict(_, values)) => values,
            Some(other) => {
                reader.problem(
                    &path,
                    format!("{} is not a table", show(&other)),
                    format!("write [{path}]"),
                );
                Dict::new()
            }
        };
        Section::at(path, kind, values)
    }

    /// Whether a key is there.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A table of tables: their names, in order.
    pub fn sections(&mut self, reader: &mut Reader, name: &'static str) -> Vec<(String, Section)> {
        let outer = self.section(reader, name);
        let mut found = Vec::new();
        for (name, value) in outer.values {
            let (path, kind) = (join(&outer.path, &name), join(&outer.kind, "*"));
            match value {
                Value::Dict(_, values) => found.push((name, Section::at(path, kind, values))),
                other => {
                    reader.problem(
                        &path,
                        format!("{} is not a table", show(&other)),
                        format!("write [{path}]"),
                    );
                }
            }
        }
        found
    }

    /// A table of free names and simple values, as text.
    pub fn texts(&mut self, reader: &mut Reader, name: &'static str) -> Vec<(String, String)> {
        let outer = self.section(reader, name);
        let takes = "texts, numbers and booleans";
        reader.known.insert(outer.kind.clone(), takes.to_owned());
        reader.known.insert(join(&outer.kind, "*"), takes.to_owned());
        let mut found = Vec::new();
        for (name, value) in outer.values {
            match date_as_text(value) {
                value @ (Value::Dict(..) | Value::Array(..) | Value::Empty(..)) => {
                    let what = format!("{} is not a text, number or boolean", show(&value));
                    reader.problem(join(&outer.path, &name), what, "a handler reads its settings as text");
                }
                simple => found.push((name, plain(&simple))),
            }
        }
        found
    }

    pub fn text(&mut self, reader: &mut Reader, name: &'static str) -> Option<String> {
        match self.take(reader, name, "text")? {
            Value::String(_, text) => Some(text),
            simple @ (Value::Num(..) | Value::Bool(..) | Value::Char(..)) => Some(plain(&simple)),
            other => {
                let (key, what) = (self.key(name), format!("{} is not a text", show(&other)));
                reader.problem(key, what, "put it in quotes");
                None
            }
        }
    }

    /// A text that must be there.
    pub fn needed(&mut self, reader: &mut Reader, name: &'static str, hint: &str) -> String {
        let text = self.text(reader, name).filter(|text| !text.is_empty());
        text.unwrap_or_else(|| {
            reader.problem(self.key(name), "it is missing", hint);
            String::new()
        })
    }

    pub fn boolean(&mut self, reader: &mut Reader, name: &'static str, default: bool) -> bool {
        match self.take(reader, name, "boolean") {
            None => default,
            Some(Value::Bool(_, value)) => value,
            Some(Value::String(_, text)) if ["true", "false"].contains(&text.trim()) => text.trim() == "true",
            Some(other) => {
                let (key, what) = (self.key(name), format!("{} is neither true nor false", show(&other)));
                reader.problem(key, what, format!("leave it out for the default, {default}"));
                default
            }
        }
    }

    /// A whole number within limits.
    pub fn number(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
        limits: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        self.number_or(reader, name, limits, Some(default)).unwrap_or(default)
    }

    /// Like [`Section::number`]; `None` if it is not there.
    pub fn number_or(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
        limits: std::ops::RangeInclusive<u64>,
        default: Option<u64>,
    ) -> Option<u64> {
        let takes = format!("number, {} to {}", limits.start(), limits.end());
        let Some(value) = self.take(reader, name, takes) else {
            return default;
        };
        let number = match &value {
            Value::Num(..) => plain(&value).parse().ok(),
            Value::String(_, text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if limits.contains(&number) => Some(number),
            _ => {
                let hint = match default {
                    Some(default) => format!("leave it out for the default, {default}"),
                    None => "leave it out for the default".to_owned(),
                };
                let what = format!("{} is not in {}..={}", plain(&value), limits.start(), limits.end());
                reader.problem(self.key(name), what, hint);
                default
            }
        }
    }

    pub fn duration(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
        least: Duration,
        default: Duration,
    ) -> Duration {
        self.duration_or(reader, name, least).unwrap_or(default)
    }

    /// `None`: not there, or wrong.
    pub fn duration_or(&mut self, reader: &mut Reader, name: &'static str, least: Duration) -> Option<Duration> {
        let takes = match least.is_zero() {
            true => "duration".to_owned(),
            false => format!("duration, at least {}", format_duration(least)),
        };
        let value = self.take(reader, name, takes)?;
        let text = plain(&value);
        // A bare 0 needs no unit.
        let text = if text == "0" { "0s".to_owned() } else { text };
        match duration(&text) {
            Ok(duration) if duration >= least && duration <= Duration::from_secs(366 * 24 * 3600) => Some(duration),
            Ok(_) => {
                let what = format!("{text} is not between {} and a year", humantime::format_duration(least));
                reader.problem(self.key(name), what, "");
                None
            }
            Err(hint) => {
                let what = format!("{} is not a duration", show(&value));
                reader.problem(self.key(name), what, hint);
                None
            }
        }
    }

    /// A size such as `64MiB`.
    pub fn bytes(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
        limits: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let hint = format!("leave it out for the default, {}", format_bytes(default));
        self.size(reader, name, limits, &hint).unwrap_or(default)
    }

    /// The same; `None`: not there, or wrong.
    pub fn bytes_or(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
        limits: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        self.size(reader, name, limits, "leave it out for no limit")
    }

    fn size(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
        limits: std::ops::RangeInclusive<u64>,
        hint: &str,
    ) -> Option<u64> {
        let (low, high) = (format_bytes(*limits.start()), format_bytes(*limits.end()));
        let takes = match *limits.end() >= 1 << 50 {
            true => format!("size, at least {low}"),
            false => format!("size, {low} to {high}"),
        };
        let value = self.take(reader, name, takes)?;
        let parsed = parse_bytes(&plain(&value)).filter(|bytes| limits.contains(bytes));
        if parsed.is_none() {
            let what = format!("{} is not a size between {low} and {high}", show(&value));
            let hint = match meant_bytes(&plain(&value)) {
                Some(meant) => format!("units are KiB, MiB and GiB: write \"{meant}\""),
                None => hint.to_owned(),
            };
            reader.problem(self.key(name), what, hint);
        }
        parsed
    }

    /// A list of texts; in a single text, as variables are, `a,b` and `["a", "b"]` both are lists.
    pub fn list(&mut self, reader: &mut Reader, name: &'static str) -> Vec<String> {
        let value = match self.take(reader, name, "list of texts") {
            None => return Vec::new(),
            Some(Value::String(_, text)) if text.trim_start().starts_with('[') => match text.parse() {
                Ok(value) => value,
            },
            Some(value) => value,
        };
        let texts = match &value {
            Value::String(_, text) => Some(text.split(',').map(|one| one.trim().to_owned()).collect()),
            Value::Array(_, values) => values
                .iter()
                .map(|v| {
                    if let Value::String(_, text) = v {
                        Some(text.clone())
                    } else {
                        None
                    }
                })
                .collect(),
            _ => None,
        };
        texts.unwrap_or_else(|| {
            reader.problem(
                self.key(name),
                format!("{} is not a list of texts", show(&value)),
                "write [\"one\", \"two\"]",
            );
            Vec::new()
        })
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, reader: &mut Reader, name: &'static str, words: &[(&str, T)], default: T) -> T {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let Some(value) = self.take(reader, name, all.join(" or ")) else {
            return default;
        };
        let text = plain(&value);
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => *meaning,
            None => {
                reader.problem(
                    self.key(name),
                    format!("{} is not one of {}", show(&value), all.join(", ")),
                    "",
                );
                default
            }
        }
    }

    /// What is left was never asked for: unknown keys.
    pub fn finish(self, reader: &mut Reader) {
        for name in self.values.keys() {
            let near = self
                .asked
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, name), *known))
                .filter(|(distance, known)| *distance <= 2.max(known.len() / 3))
                .min();
            let key = join(&self.path, name);
            let hint = match (variable_meant(&reader.sources, &reader.known, &key), near) {
                (Some(variable), _) => format!("did you mean {variable}? A table and its key are joined by two _"),
                (None, Some((_, known))) => format!("did you mean `{known}`?"),
                (None, None) => format!("known here: {}", self.asked.join(", ")),
            };
            reader.problem(key, "unknown key", hint);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
