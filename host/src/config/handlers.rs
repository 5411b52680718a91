//! `[defaults]` and `[handlers]`: what consumes events, and within which limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::circuit::{self, CircuitKeys};
use super::modules;
use super::names::{check_name, check_stream, check_subject};
use super::narrow;
use super::reader::{Reader, Section};
use super::redrive::{self, RedriveKeys};
use crate::event::parse_rfc3339;
use crate::event::subject::overlap;
use crate::plan::{Handler, Identity, Instance, MEMORY_BYTES_USUAL, RetryPolicy, Start, Stream};

/// Buckets that are the mesh's own.
const RESERVED: [&str; 3] = ["mesh", "mesh_attempts", "mesh_modules"];

/// For how long duplicates are recognised by their message id, by default.
const IDENTITY_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The limits of a handler, from its own section over `[defaults]`.
#[derive(Debug, Clone)]
struct Tuning {
    reused: bool,
    recycle_after: u64,
    concurrency: u64,
    in_flight: Option<u64>,
    timeout: Duration,
    memory_max: u64,
    ack_wait: Duration,
    max_attempts: u64,
    backoff: Duration,
    backoff_max: Duration,
    circuit: CircuitKeys,
    deliver_slack: u64,
    ack_pending_max: u64,
}

/// A host says in time that it works on an event, so hardly any needs more.
const LONG_ACK_WAIT: Duration = Duration::from_secs(3600);

const BUILT_IN: Tuning = Tuning {
    reused: false,
    recycle_after: 128,
    concurrency: 16,
    in_flight: None,
    timeout: Duration::from_secs(10),
    memory_max: MEMORY_BYTES_USUAL as u64,
    ack_wait: Duration::from_secs(30),
    max_attempts: 5,
    backoff: Duration::from_secs(1),
    backoff_max: Duration::from_secs(300),
    circuit: circuit::BUILT_IN,
    deliver_slack: 20,
    ack_pending_max: 1000,
};

impl Tuning {
    fn retry(&self) -> RetryPolicy {
        RetryPolicy {
            max_attempts: u32::try_from(self.max_attempts).unwrap_or(u32::MAX),
            backoff: self.backoff,
            backoff_max: self.backoff_max,
        }
    }

    fn read(section: &mut Section, below: &Tuning, reader: &mut Reader) -> Tuning {
        let ms = Duration::from_millis;
        let tuning = Tuning {
            reused: section.word(reader, "instance", &[("fresh", false), ("reused", true)], below.reused),
            recycle_after: section.number(reader, "recycle_after", 1..=1_000_000, below.recycle_after),
            concurrency: section.number(reader, "concurrency", 1..=10_000, below.concurrency),
            in_flight: section.number_or(reader, "in_flight", 1..=65_536, below.in_flight),
            timeout: section.duration(reader, "timeout", ms(10), below.timeout),
            memory_max: section.bytes(reader, "memory_max", 1 << 20..=4 << 30, below.memory_max),
            ack_wait: section.duration(reader, "ack_wait", ms(1000), below.ack_wait),
            max_attempts: section.number(reader, "max_attempts", 1..=1000, below.max_attempts),
            backoff: section.duration(reader, "backoff", ms(1), below.backoff),
            backoff_max: section.duration(reader, "backoff_max", ms(1), below.backoff_max),
            circuit: CircuitKeys::read(section, &below.circuit, reader),
            deliver_slack: section.number(reader, "deliver_slack", 1..=10_000, below.deliver_slack),
            ack_pending_max: section.number(reader, "ack_pending_max", 1..=1_000_000, below.ack_pending_max),
        };
        let key = |name: &str| section.key(name);
        // What comes from below as a whole has been judged there: one mistake in [defaults] is one problem.
        let flight = |t: &Tuning| (t.in_flight(), t.concurrency);
        let pending = |t: &Tuning| (t.ack_pending_max, t.in_flight());
        let delays = |t: &Tuning| (t.backoff_max, t.backoff);
        if tuning.in_flight() < tuning.concurrency && flight(&tuning) != flight(below) {
            let what = format!("{} is below concurrency, {}", tuning.in_flight(), tuning.concurrency);
            reader.problem(key("in_flight"), what, "leave it out for four times concurrency");
        }
        if tuning.ack_pending_max < tuning.in_flight() && pending(&tuning) != pending(below) {
            let what = format!("{} is below in_flight, {}", tuning.ack_pending_max, tuning.in_flight());
            reader.problem(
                key("ack_pending_max"),
                what,
                "it also holds the events that wait for a retry: make it larger",
            );
        }
        if tuning.ack_wait > LONG_ACK_WAIT && tuning.ack_wait != below.ack_wait {
            let long = humantime::format_duration(tuning.ack_wait);
            let what = format!("{long}: an event that is lost with its host is delivered again only after that");
            reader.warning(key("ack_wait"), what);
        }
        if tuning.backoff_max < tuning.backoff && delays(&tuning) != delays(below) {
            let (most, first) = (
                humantime::format_duration(tuning.backoff_max),
                humantime::format_duration(tuning.backoff),
            );
            reader.problem(key("backoff_max"), format!("{most} is below backoff, {first}"), "");
        }
        tuning
    }

    fn instance(&self) -> Instance {
        match self.reused {
            true => Instance::Reused {
                recycle_after: u32::try_from(self.recycle_after).unwrap_or(u32::MAX),
            },
            false => Instance::Fresh,
        }
    }

    fn in_flight(&self) -> u64 {
        self.in_flight.unwrap_or(self.concurrency * 4)
    }
}

pub fn read(
    root: &mut Section,
    base: &Path,
    (streams, redrive): (&[Stream], &RedriveKeys),
    reader: &mut Reader,
) -> Vec<Handler> {
    let mut section = root.section(reader, "defaults");
    let defaults = Tuning::read(&mut section, &BUILT_IN, reader);
    section.finish(reader);
    let sections = root.sections(reader, "handlers");
    if sections.is_empty() {
        reader.problem(
            "handlers",
            "there is no handler",
            "add [handlers.NAME] with module, stream and subjects",
        );
    }
    let mut found: Vec<Handler> = Vec::new();
    for (name, section) in sections {
        let handler = one(name, section, base, (&defaults, redrive), reader);
        let key = |of: &str| format!("handlers.{}.{of}", handler.name);
        if let Some(other) = found
            .iter()
            .find(|o| o.stream == handler.stream && o.consumer == handler.consumer)
        {
            let what = format!(
                "\"{}\" is already the consumer of handler {}",
                handler.consumer, other.name
            );
            reader.problem(key("consumer"), what, "give each handler a consumer of its own");
        }
        if let Some(stream) = streams.iter().find(|s| s.name == handler.stream) {
            for filter in &handler.subjects {
                if !stream.subjects.iter().any(|subject| overlap(subject, filter)) {
                    let what = format!("`{filter}` is not captured by stream {}", stream.name);
                    reader.problem(
                        key("subjects"),
                        what,
                        format!("it captures {}", stream.subjects.join(", ")),
                    );
                }
            }
        }
        feeds_itself(&handler, streams, reader);
        found.push(handler);
    }
    found
}

/// Warns of a handler that may be given what it emits.
fn feeds_itself(handler: &Handler, streams: &[Stream], reader: &mut Reader) {
    let of_stream = streams.iter().find(|s| s.name == handler.stream);
    let given = match (&handler.subjects[..], of_stream) {
        ([], Some(stream)) => &stream.subjects,
        _ => &handler.subjects,
    };
    for subject in &handler.publish {
        if let Some(own) = given.iter().find(|own| overlap(own, subject)) {
            let what = format!(
                "`{subject}` meets `{own}`, which this handler consumes: it may be given what it emits, up to 16 times \
                 in a row, and then the event is dead (too-many-hops)"
            );
            reader.warning(format!("handlers.{}.publish", handler.name), what);
        }
    }
}

fn one(
    name: String,
    mut section: Section,
    base: &Path,
    (defaults, redrive): (&Tuning, &RedriveKeys),
    reader: &mut Reader,
) -> Handler {
    let key = format!("handlers.{name}");
    check_name(reader, &key, &name);
    let tuning = Tuning::read(&mut section, defaults, reader);
    let module = section.needed(
        reader,
        "module",
        "the component file, relative to this configuration, or \"registry\"",
    );
    let stream = stream(&mut section, &key, reader);
    let subjects = subjects(&mut section, &key, reader);
    let consumer = match section.text(reader, "consumer") {
        None => name.clone(),
        Some(consumer) => {
            check_name(reader, &format!("{key}.consumer"), &consumer);
            consumer
        }
    };
    let start = start(&mut section, &key, reader);
    let bucket = bucket(&mut section, &key, reader);
    let publish = publish(&mut section, &key, reader);
    let own_ledger = section.boolean(reader, "ledger", false);
    let identities = [("sequence", Identity::Sequence), ("message-id", Identity::MessageId)];
    let identity = section.word(reader, "identity", &identities, Identity::Sequence);
    let identity_window = section.duration(reader, "identity_window", Duration::from_secs(1), IDENTITY_WINDOW);
    let redrive = redrive::of_handler(&mut section, redrive, reader);
    let settings: BTreeMap<String, String> = section.texts(reader, "settings").into_iter().collect();
    section.finish(reader);
    let shared = (own_ledger || !publish.is_empty()).then(|| "mesh".to_owned());
    let ledger = bucket.clone().or(shared);
    if identity == Identity::MessageId && ledger.is_none() {
        reader.problem(
            format!("{key}.identity"),
            "message ids are remembered in a ledger, and this handler has none",
            "ledger = true",
        );
    }
    Handler {
        module: modules::origin(&module, &name, base, reader),
        stream,
        subjects,
        consumer,
        start,
        instance: tuning.instance(),
        concurrency: narrow(tuning.concurrency),
        in_flight: narrow(tuning.in_flight()),
        timeout: tuning.timeout,
        memory_bytes_max: narrow(tuning.memory_max),
        ack_wait: tuning.ack_wait,
        retry: tuning.retry(),
        circuit: tuning.circuit.policy(),
        redrive,
        deliver_slack: u32::try_from(tuning.deliver_slack).unwrap_or(u32::MAX),
        ack_pending_max: narrow(tuning.ack_pending_max),
        bucket,
        ledger,
        identity,
        identity_window,
        publish,
        settings,
        name,
    }
}

fn stream(section: &mut Section, key: &str, reader: &mut Reader) -> String {
    let stream = section.needed(reader, "stream", "the stream that it consumes, e.g. \"ORDERS\"");
    let key = format!("{key}.stream");
    if !stream.is_empty() {
        check_stream(reader, &key, &stream);
    }
    if stream.starts_with("MESH_") {
        reader.problem(key, "streams named MESH_… are the mesh's own", "consume one of yours");
    }
    stream
}

fn subjects(section: &mut Section, key: &str, reader: &mut Reader) -> Vec<String> {
    let key = format!("{key}.subjects");
    let subjects = section.list(reader, "subjects");
    for (i, subject) in subjects.iter().enumerate() {
        check_subject(reader, &key, subject);
        if let Some(other) = subjects[..i].iter().find(|other| overlap(other, subject)) {
            let what = format!("`{subject}` overlaps with `{other}`");
            reader.problem(&key, what, "an event would match twice: leave one of them out");
        }
    }
    subjects
}

fn start(section: &mut Section, key: &str, reader: &mut Reader) -> Option<Start> {
    let text = section.text(reader, "start")?;
    let start = parse_start(&text);
    if start.is_none() {
        let what = format!("\"{}\" is not a start", text.escape_debug());
        reader.problem(
            format!("{key}.start"),
            what,
            "\"all\", \"new\", a sequence from 1 on, or an RFC 3339 time",
        );
    }
    start
}

fn bucket(section: &mut Section, key: &str, reader: &mut Reader) -> Option<String> {
    let key = format!("{key}.bucket");
    let bucket = section.text(reader, "bucket")?;
    check_name(reader, &key, &bucket);
    if RESERVED.contains(&bucket.as_str()) {
        reader.problem(key, format!("\"{bucket}\" is the mesh's own"), "use another name");
    }
    Some(bucket)
}

fn publish(section: &mut Section, key: &str, reader: &mut Reader) -> Vec<String> {
    let key = format!("{key}.publish");
    let publish = section.list(reader, "publish");
    for subject in &publish {
        check_subject(reader, &key, subject);
        if subject.starts_with('$') || subject.starts_with("_INBOX") {
            reader.problem(
                &key,
                format!("`{subject}`: subjects of the server and the mesh are not granted"),
                "",
            );
        }
        if subject == ">" || subject.starts_with("*") {
            let what = format!("`{subject}` would grant the server's and the mesh's subjects as well");
            reader.problem(&key, what, "name the subjects, or a prefix such as \"inventory.>\"");
        }
    }
    publish
}

fn parse_start(text: &str) -> Option<Start> {
    match text {
        "all" => Some(Start::All),
        "new" => Some(Start::New),
        text => match text.parse::<u64>() {
            Ok(0) => None,
            Ok(sequence) => Some(Start::Sequence(sequence)),
            Err(_) => {
                let ms = parse_rfc3339(text)?;
                Some(Start::Time(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)))
            }
        },
    }
}
