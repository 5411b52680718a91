//! The variables of OpenTelemetry that say whether spans are exported, where, and which
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use super::reader::Reader;
use crate::broker::tls;
use crate::plan::{Otlp, OtlpEndpoint, OtlpProtocol, Sampler, SpanBatch};

/// What the variables say; `None`: nothing is exported. What is wrong with them goes to the reader, if spans are asked for.
/// `mesh`: its name.
pub fn read(variable: impl Fn(&str) -> Option<String>, mesh: &str, reader: &mut Reader) -> Option<Otlp> {
    let mut variables = Variables {
        variable: &variable,
        reader,
    };
    if variables.boolean("OTEL_SDK_DISABLED") {
        return None;
    }
    let asked = variables.of_traces("ENDPOINT");
    let exporters = [("otlp", true), ("none", false)];
    let exporter = variables.get("OTEL_TRACES_EXPORTER").is_some();
    if !(exporter || asked.is_some()) || !variables.word("OTEL_TRACES_EXPORTER", &exporters, true) {
        return None;
    }
    // The specification would export to this machine. Where the variable is set for all programs alike, spans would be lost there unseen.
    let Some(asked) = asked else {
        let what = "spans are asked for, and none are exported, because there is no endpoint: set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://127.0.0.1:4318";
        variables.reader.warning("OTEL_TRACES_EXPORTER", what);
        return None;
    };
    let protocols = [("grpc", OtlpProtocol::Grpc), ("http/protobuf", OtlpProtocol::Http)];
    let protocol = match variables.of_traces("PROTOCOL") {
        None => OtlpProtocol::Http,
        Some((name, _)) => variables.word(&name, &protocols, OtlpProtocol::Http),
    };
    if let Some((name, _)) = variables.of_traces("COMPRESSION") {
        variables.word(&name, &[("none", ())], ());
    }
    let headers = variables.headers();
    let timeout = match variables.of_traces("TIMEOUT") {
        None => Duration::from_secs(10),
        Some((name, _)) => variables.milliseconds(&name, 1, 10_000),
    };
    let endpoint = variables.endpoint(&asked, protocol);
    let ca = variables.certificates();
    let (resource, sampler, batch) = (variables.resource(mesh), variables.sampler(), variables.batch());
    Some(Otlp {
        protocol,
        endpoint: endpoint?,
        headers,
        timeout,
        ca,
        resource,
        sampler,
        batch,
    })
}

/// Whether a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Shown,
    Secret,
}

struct Variables<'a, F> {
    variable: &'a F,
    reader: &'a mut Reader,
}

impl<F: Fn(&str) -> Option<String>> Variables<'_, F> {
    /// An empty variable counts as not set.
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|text| !text.trim().is_empty())
    }

    /// The variable for traces, or else the one for everything: its name and value.
    fn of_traces(&self, of: &str) -> Option<(String, String)> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
        names.into_iter().find_map(|prefix| {
            let name = format!("{prefix}{of}");
            let text = self.get(&name)?;
            Some((name, text))
        })
    }

    /// By the specification everything but `true` is false; a slip of the pen is named.
    fn boolean(&mut self, name: &str) -> bool {
        self.word(name, &[("true", true), ("false", false)], false)
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)], default: T) -> T {
        let Some(text) = self.get(name) else { return default };
        let found = words.iter().find(|(word, _)| text.trim().eq_ignore_ascii_case(word));
        if let Some((_, value)) = found {
            return *value;
        }
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let what = format!("\"{}\" is not supported", text.escape_debug());
        self.reader
            .problem(name, what, format!("use one of: {}", all.join(", ")));
        default
    }

    fn number(&mut self, name: &str, least: u64, default: u64) -> u64 {
        self.parsed(
            name,
            default,
            "a whole number",
            |n: &u64| (least..=MOST).contains(n),
            &format!("{least} to {MOST}"),
        )
    }

    fn milliseconds(&mut self, name: &str, least: u64, default: u64) -> Duration {
        Duration::from_millis(self.number(name, least, default))
    }

    fn parsed<T: std::str::FromStr + Display>(
        &mut self,
        name: &str,
        default: T,
        kind: &str,
        within: impl Fn(&T) -> bool,
        limits: &str,
    ) -> T {
        let Some(text) = self.get(name) else { return default };
        if let Some(value) = text.trim().parse().ok().filter(within) {
            return value;
        }
        let what = format!("\"{}\" is not {kind}, {limits}", text.escape_debug());
        self.reader
            .problem(name, what, format!("leave it out for the default, {default}"));
        default
    }

    /// `a=b,c=d`, with `%20` for a space and so on.
    fn pairs(&mut self, name: &str, text: &str, secrecy: Secrecy) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for one in text.split(',').filter(|one| !one.trim().is_empty()) {
            let pair = one.split_once('=').and_then(|(key, value)| {
                let key = key.trim();
                (!key.is_empty()).then_some((key.to_owned(), decoded(value.trim())?))
            });
            let Some(pair) = pair else {
                let what = match secrecy {
                    Secrecy::Shown => format!(
                        "\"{}\" is not KEY=VALUE with %XX for special characters",
                        one.escape_debug()
                    ),
                    Secrecy::Secret => "an element is not KEY=VALUE with %XX for special characters".to_owned(),
                };
                self.reader.problem(name, what, "write KEY=VALUE,KEY=VALUE");
                continue;
            };
            pairs.push(pair);
        }
        pairs
    }

    fn headers(&mut self) -> Vec<(String, String)> {
        let Some((name, text)) = self.of_traces("HEADERS") else {
            return Vec::new();
        };
        let headers = self.pairs(&name, &text, Secrecy::Secret);
        for (header, value) in &headers {
            let valid = HeaderName::try_from(header).is_ok() && HeaderValue::try_from(value).is_ok();
            if !valid {
                let what = format!("the header `{}` cannot be written", header.escape_debug());
                let hint = "a name is letters, digits and -, and a value is one line";
                self.reader.problem(&name, what, hint);
            }
        }
        headers
    }

    fn certificates(&mut self) -> Option<PathBuf> {
        for of in ["CLIENT_KEY", "CLIENT_CERTIFICATE"] {
            if let Some((name, _)) = self.of_traces(of) {
                let hint = "use OTEL_EXPORTER_OTLP_HEADERS, or a collector beside the host";
                self.reader.problem(name, "client certificates are not supported", hint);
            }
        }
        let (name, text) = self.of_traces("CERTIFICATE")?;
        let path = PathBuf::from(&text);
        match tls::certificates(&path) {
            Ok(found) if !found.is_empty() => {}
            read => {
                let why = read.map_or_else(|error| error.to_string(), |_| "it has no certificate".to_owned());
                let hint = "name a file with certificates as PEM";
                self.reader.problem(name, format!("{text}: {why}"), hint);
            }
        }
        Some(path)
    }

    fn endpoint(&mut self, (name, text): &(String, String), protocol: OtlpProtocol) -> Option<OtlpEndpoint> {
        let of_traces = name.contains("_TRACES_");
        let read = endpoint(text.trim(), protocol, of_traces);
        let shown = crate::text::secret::redact(text);
        let shown = shown.escape_debug();
        let (what, hint) = match read {
            Ok(read) => return Some(read),
            Err(WrongEndpoint::Login) => (
                "a user or a password in an address is not sent to a collector".to_owned(),
                "use OTEL_EXPORTER_OTLP_HEADERS, for instance Authorization=Basic%20…",
            ),
            Err(WrongEndpoint::Path) => (
                format!("\"{shown}\" has a path, which gRPC does not have"),
                "leave the path out, or use the protocol http/protobuf",
            ),
            Err(WrongEndpoint::Address) => (
                format!("\"{shown}\" is not an address of http:// or https:// with a host"),
                match protocol {
                    OtlpProtocol::Http => "for instance http://127.0.0.1:4318",
                    OtlpProtocol::Grpc => "for instance http://127.0.0.1:4317",
                },
            ),
        };
        self.reader.problem(name, what, hint);
        None
    }

    fn resource(&mut self, mesh: &str) -> Vec<(String, String)> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let mut attributes = match self.get(name) {
            None => Vec::new(),
            Some(text) => self.pairs(name, &text, Secrecy::Shown),
        };
        if let Some(service) = self.get("OTEL_SERVICE_NAME") {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".to_owned(), service));
        }
        let defaults = [
            ("service.name", "jetmesh"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("jetmesh.mesh", mesh),
        ];
        for (key, value) in defaults {
            if !attributes.iter().any(|(known, _)| known == key) {
                attributes.push((key.to_owned(), value.to_owned()));
            }
        }
        attributes
    }

    fn sampler(&mut self) -> Sampler {
        let of = |by_parent, ratio| Sampler { by_parent, ratio };
        let words = [
            ("parentbased_always_on", of(true, 1.0)),
            ("parentbased_always_off", of(true, 0.0)),
            ("parentbased_traceidratio", of(true, f64::NAN)),
            ("always_on", of(false, 1.0)),
            ("always_off", of(false, 0.0)),
            ("traceidratio", of(false, f64::NAN)),
        ];
        let mut sampler = self.word("OTEL_TRACES_SAMPLER", &words, words[0].1);
        if sampler.ratio.is_nan() {
            let (name, limits) = ("OTEL_TRACES_SAMPLER_ARG", "0 to 1");
            sampler.ratio = self.parsed(name, 1.0, "a number", |ratio| (0.0..=1.0).contains(ratio), limits);
        }
        sampler
    }

    fn batch(&mut self) -> SpanBatch {
        let queue_max = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 1, 2048);
        let export_max = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, 512.min(queue_max));
        if export_max > queue_max {
            let what = format!("{export_max} is more than OTEL_BSP_MAX_QUEUE_SIZE, {queue_max}");
            self.reader.problem(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                what,
                "make it smaller, or the queue larger",
            );
        }
        SpanBatch {
            queue_max: super::narrow(queue_max),
            export_max: super::narrow(export_max),
            delay: self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 1, 5_000),
            timeout: self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 1, 30_000),
        }
    }
}

/// No queue is longer, and no time, in milliseconds: about eleven days.
const MOST: u64 = 1_000_000_000;

/// What is wrong with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrongEndpoint {
    Address,
    /// It has a user or a password.
    Login,
    /// It has a path or a query, and the protocol has none.
    Path,
}

fn endpoint(text: &str, protocol: OtlpProtocol, of_traces: bool) -> Result<OtlpEndpoint, WrongEndpoint> {
    let (_, after_scheme) = text.split_once("://").unwrap_or(("", text));
    if after_scheme
        .split(['/', '?'])
        .next()
        .is_some_and(|authority| authority.contains('@'))
    {
        return Err(WrongEndpoint::Login);
    }
    let uri: hyper::Uri = text.parse().map_err(|_| WrongEndpoint::Address)?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(WrongEndpoint::Address),
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let (base, whole) = (uri.path().trim_end_matches('/'), uri.path_and_query());
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let (path, port) = match (protocol, of_traces) {
        (OtlpProtocol::Grpc, _) if base.is_empty() && query.is_empty() => (GRPC_PATH.to_owned(), 4317),
        (OtlpProtocol::Grpc, _) => return Err(WrongEndpoint::Path),
        (OtlpProtocol::Http, false) => (format!("{base}/v1/traces{query}"), 4318),
        (OtlpProtocol::Http, true) => (whole.map_or_else(|| "/".to_owned(), ToString::to_string), 4318),
    };
    if host.is_empty() {
        return Err(WrongEndpoint::Address);
    }
    // Without a port an address with `https` means the usual one, which is that of a service behind a proxy.
    let usual = if tls { 443 } else { port };
    Ok(OtlpEndpoint {
        tls,
        host,
        port: uri.port_u16().unwrap_or(usual),
        path,
    })
}

/// The method of OTLP over gRPC.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// `%41` is `A`. `None`: it is not written so.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[path = "otel_tests.rs"]
mod tests;
