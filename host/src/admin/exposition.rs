//! Metrics as the text that Prometheus reads: OpenMetrics 1.0
//! (<https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>), or the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), which has no exemplars.

use std::fmt::{Display, Write as _};

use super::families::{FAMILIES, Family, FamilyKind, Scrape};
use crate::histogram::{Counted, Exemplar};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    OpenMetrics,
    Prometheus,
}

impl TextFormat {
    /// What an `Accept` header asks for.
    pub fn accepted(accept: Option<&str>) -> TextFormat {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => TextFormat::OpenMetrics,
            _ => TextFormat::Prometheus,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            TextFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All families that have samples now.
pub fn text(format: TextFormat, scrape: &Scrape<'_>) -> String {
    text_of(FAMILIES.iter(), format, scrape)
}

/// The same of some.
pub fn text_of(families: impl Iterator<Item = &'static Family>, format: TextFormat, scrape: &Scrape<'_>) -> String {
    let mut text = String::new();
    for family in families {
        let mut samples = Samples {
            family,
            format,
            text: &mut text,
            begun: false,
        };
        (family.samples)(scrape, &mut samples);
    }
    if format == TextFormat::OpenMetrics {
        text += "# EOF\n";
    }
    text
}

/// The samples of one family, as they are written.
pub struct Samples<'a> {
    family: &'static Family,
    format: TextFormat,
    text: &'a mut String,
    /// Its head is written.
    begun: bool,
}

impl Samples<'_> {
    /// A counter or a gauge, with the values of the family's labels.
    pub fn add(&mut self, labels: &[&str], value: impl Display) {
        let suffix = match self.family.kind {
            FamilyKind::Counter => "_total",
            FamilyKind::Gauge | FamilyKind::Histogram => "",
        };
        self.line(suffix, labels, None, &value);
        self.text.push('\n');
    }

    /// The same if there is a value.
    pub fn add_some(&mut self, labels: &[&str], value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(labels, value);
        }
    }

    /// `scale`: of so many is one of the family's unit.
    pub fn histogram(&mut self, labels: &[&str], counted: Option<Counted>, scale: f64) {
        let Some(counted) = counted else { return };
        let mut below = 0;
        let exemplars = counted
            .exemplars
            .iter()
            .map(Option::as_ref)
            .chain(std::iter::repeat(None));
        for (at, (count, exemplar)) in counted.buckets.iter().zip(exemplars).enumerate() {
            below += count;
            let bound = counted.bounds.get(at).map(|bound| float(*bound as f64 / scale));
            let bound = bound.unwrap_or_else(|| "+Inf".to_owned());
            self.line("_bucket", labels, Some(&bound), &below);
            if let Some(exemplar) = exemplar.filter(|_| self.format == TextFormat::OpenMetrics) {
                self.exemplar(exemplar, scale);
            }
            self.text.push('\n');
        }
        self.line("_sum", labels, None, &float(counted.sum as f64 / scale));
        self.text.push('\n');
        self.line("_count", labels, None, &below);
        self.text.push('\n');
    }

    /// Writing to a String cannot fail.
    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: &dyn Display) {
        self.head();
        let (name, names) = (self.family.name, self.family.labels);
        self.text.push_str(name);
        self.text.push_str(suffix);
        let pairs = names.iter().copied().zip(labels.iter().copied());
        for (at, (name, value)) in pairs.chain(bound.map(|bound| ("le", bound))).enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{name}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() || bound.is_some() {
            self.text.push('}');
        }
        let _ = write!(self.text, " {value}");
    }

    fn exemplar(&mut self, exemplar: &Exemplar, scale: f64) {
        let _ = write!(self.text, " # {{event_id=\"{}\"", escaped(&exemplar.event));
        if let Some(trace) = &exemplar.trace {
            let _ = write!(self.text, ",trace_id=\"{}\"", escaped(trace));
        }
        let (value, at) = (float(exemplar.value as f64 / scale), exemplar.at_ms as f64 / 1000.0);
        let _ = write!(self.text, "}} {value} {at:.3}");
    }

    /// What a family begins with.
    fn head(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let Family { kind, help, unit, .. } = self.family;
        let name = match self.format {
            TextFormat::OpenMetrics => self.family.name.to_owned(),
            TextFormat::Prometheus => self.family.full_name(),
        };
        let _ = writeln!(self.text, "# TYPE {name} {}", kind.word());
        if let (TextFormat::OpenMetrics, Some(unit)) = (self.format, unit) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.text, "# HELP {name} {help}");
    }
}

/// A number with the point that it has in Prometheus' own output.
fn float(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n")
}
