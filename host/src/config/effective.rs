//! A plan written out as the configuration that gives it: what is in force, whichever layer it came from.

use std::fmt::Write as _;
use std::time::Duration;

use super::values::{format_bytes, format_duration};
use crate::event::rfc3339;
use crate::plan::{
    AdminPlan, CatchUp, Dst, Handler, Identity, Instance, LogFormat, ModulesPlan, Nats, Outbox, OutboxDatabase,
    OutboxSource, Overlap, Plan, Redrive, Schedule, Start, Stream, When,
};
use crate::text::secret::{HIDDEN, hide, redact};

/// The effective configuration as TOML; secrets are hidden.
pub fn effective(plan: &Plan) -> String {
    let mut text = String::new();
    let mut out = EffectiveText(&mut text);
    out.text("mesh", &plan.mesh);
    out.raw("replicas", &plan.replicas);
    out.raw("relay", &plan.relay);
    out.raw("threads", &plan.threads);
    out.duration("drain_timeout", plan.drain_timeout);
    out.duration("ledger_keep", plan.ledger_keep);
    for (key, bytes) in [
        ("mesh_max_bytes", plan.mesh_bytes_max),
        ("ledger_max_bytes", plan.ledger_bytes_max),
    ] {
        out.optional(key, bytes.map(format_bytes).as_deref());
    }
    out.table("log");
    out.text("filter", &plan.log.filter);
    out.text(
        "format",
        match plan.log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        },
    );
    admin(&mut out, &plan.admin);
    modules(&mut out, &plan.modules);
    out.table("spans");
    out.text("producer", plan.spans.producer.word());
    out.raw("failures", &plan.spans.failures);
    nats(&mut out, &plan.nats);
    for one in &plan.streams {
        stream(&mut out, one);
    }
    for one in &plan.handlers {
        handler(&mut out, one);
    }
    if plan.schedules.as_ref().is_some_and(Vec::is_empty) {
        out.table("schedules");
    }
    for one in plan.schedules.iter().flatten() {
        schedule(&mut out, one);
    }
    for one in &plan.outboxes {
        outbox(&mut out, one);
    }
    text
}

struct EffectiveText<'a>(&'a mut String);

impl EffectiveText<'_> {
    fn table(&mut self, name: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "\n[{name}]");
    }

    fn raw(&mut self, key: &str, value: &impl std::fmt::Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.raw(key, &quote(&hide(value)));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        let values: Vec<String> = values.iter().map(|v| quote(&hide(v))).collect();
        self.raw(key, &format!("[{}]", values.join(", ")));
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.text(key, &format_duration(value));
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }
}

fn admin(out: &mut EffectiveText<'_>, admin: &AdminPlan) {
    if *admin == AdminPlan::default() {
        return;
    }
    out.table("admin");
    out.optional("listen", admin.listen.map(|address| address.to_string()).as_deref());
    let tls = admin.tls.as_ref();
    let files = [
        ("tls_cert", tls.map(|tls| &tls.cert)),
        ("tls_key", tls.map(|tls| &tls.key)),
        ("metrics_token_file", admin.metrics_token.as_ref()),
    ];
    for (key, file) in files {
        out.optional(key, file.map(|file| file.display().to_string()).as_deref());
    }
    if !admin.names.is_empty() {
        out.list("names", &admin.names);
    }
    if let Some(uploads) = admin.uploads {
        out.raw("uploads", &uploads);
    }
}

fn outbox(out: &mut EffectiveText<'_>, outbox: &Outbox) {
    out.table(&format!("outbox.{}", outbox.name));
    match &outbox.database {
        OutboxDatabase::Sqlite(file) => out.text("url", &format!("sqlite:{}", file.display())),
        OutboxDatabase::Postgres(postgres) => {
            let ca = postgres.ca.as_ref().map(|ca| format!("&sslrootcert={}", ca.display()));
            let (told, mode) = (&postgres.told, postgres.tls.word());
            out.text("url", &format!("{told}?sslmode={mode}{}", ca.unwrap_or_default()));
            out.optional("password", postgres.password.as_ref().map(|_| HIDDEN));
        }
    }
    match outbox.source {
        OutboxSource::Table => out.text("source", "table"),
        OutboxSource::Log { wal_max } => {
            out.text("source", "log");
            out.optional("wal_max", wal_max.map(format_bytes).as_deref());
        }
    }
    out.text("table", &outbox.table);
    out.text("stream", &outbox.stream);
}

/// A JSON string is also a TOML one, but for DEL, which TOML wants escaped.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn quote_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        quote(key)
    }
}

fn nats(out: &mut EffectiveText<'_>, nats: &Nats) {
    out.table("nats");
    out.text("url", &redact(&nats.url));
    out.optional("user", nats.user.as_deref());
    out.optional("password", nats.password.as_ref().map(|_| HIDDEN));
    out.optional("token", nats.token.as_ref().map(|_| HIDDEN));
    let files = [
        ("creds", &nats.creds),
        ("nkey", &nats.nkey),
        ("tls_ca", &nats.tls_ca),
        ("tls_cert", &nats.tls_cert),
        ("tls_key", &nats.tls_key),
    ];
    for (key, file) in files {
        out.optional(key, file.as_ref().map(|f| f.display().to_string()).as_deref());
    }
    out.raw("tls_first", &nats.tls_first);
    out.optional("inbox_prefix", nats.inbox_prefix.as_deref());
    out.optional("js_domain", nats.js_domain.as_deref());
    out.optional("js_api_prefix", nats.js_api_prefix.as_deref());
    out.text("js_event_prefix", &nats.js_event_prefix);
    out.duration("timeout", nats.timeout);
    match nats.wait {
        Some(wait) => out.duration("wait", wait),
        None => out.text("wait", "forever"),
    }
}

fn modules(out: &mut EffectiveText<'_>, modules: &ModulesPlan) {
    out.table("modules");
    out.list("require", &modules.require);
    out.duration("rollback_window", modules.rollback_window);
    out.optional(
        "cache",
        modules
            .cache
            .as_ref()
            .map(|folder| folder.display().to_string())
            .as_deref(),
    );
}

fn stream(out: &mut EffectiveText<'_>, stream: &Stream) {
    out.table(&format!("streams.{}", quote_key(&stream.name)));
    out.list("subjects", &stream.subjects);
    out.text("retention", stream.retention.word());
    out.raw("replicas", &stream.replicas);
    if let Some(max_age) = stream.max_age {
        out.duration("max_age", max_age);
    }
    if let Some(max_bytes) = stream.max_bytes {
        out.text("max_bytes", &format_bytes(max_bytes));
    }
    out.duration("duplicate_window", stream.duplicate_window);
}

fn handler(out: &mut EffectiveText<'_>, handler: &Handler) {
    out.table(&format!("handlers.{}", handler.name));
    out.text("module", &handler.module.to_string());
    out.text("stream", &handler.stream);
    out.list("subjects", &handler.subjects);
    out.text("consumer", &handler.consumer);
    match handler.start {
        None => {}
        Some(Start::All) => out.text("start", "all"),
        Some(Start::New) => out.text("start", "new"),
        // TOML's numbers end at i64::MAX.
        Some(Start::Sequence(sequence)) if i64::try_from(sequence).is_err() => out.text("start", &sequence.to_string()),
        Some(Start::Sequence(sequence)) => out.raw("start", &sequence),
        Some(Start::Time(time)) => {
            let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            out.text("start", &rfc3339(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        }
    }
    match handler.instance {
        Instance::Fresh => out.text("instance", "fresh"),
        Instance::Reused { recycle_after } => {
            out.text("instance", "reused");
            out.raw("recycle_after", &recycle_after);
        }
    }
    out.raw("concurrency", &handler.concurrency);
    out.raw("in_flight", &handler.in_flight);
    out.duration("timeout", handler.timeout);
    out.text("memory_max", &format_bytes(handler.memory_bytes_max as u64));
    out.duration("ack_wait", handler.ack_wait);
    out.raw("max_attempts", &handler.retry.max_attempts);
    out.duration("backoff", handler.retry.backoff);
    out.duration("backoff_max", handler.retry.backoff_max);
    out.raw("circuit", &handler.circuit.is_some());
    if let Some(circuit) = &handler.circuit {
        out.raw("circuit_failures", &circuit.failures);
        out.raw("circuit_percent", &circuit.percent);
        out.duration("circuit_window", circuit.window);
        out.duration("circuit_probe", circuit.probe);
        out.duration("circuit_probe_max", circuit.probe_max);
    }
    out.raw("deliver_slack", &handler.deliver_slack);
    out.raw("ack_pending_max", &handler.ack_pending_max);
    out.optional("bucket", handler.bucket.as_deref());
    out.raw("ledger", &handler.ledger.is_some());
    out.text(
        "identity",
        match handler.identity {
            Identity::Sequence => "sequence",
            Identity::MessageId => "message-id",
        },
    );
    out.duration("identity_window", handler.identity_window);
    out.list("publish", &handler.publish);
    if let Some(own) = &handler.redrive {
        redrive(out, &handler.name, own);
    }
    if !handler.settings.is_empty() {
        out.table(&format!("handlers.{}.settings", handler.name));
        for (key, value) in &handler.settings {
            out.text(&quote_key(key), value);
        }
    }
}

fn redrive(out: &mut EffectiveText<'_>, handler: &str, redrive: &Redrive) {
    out.table(&format!("handlers.{handler}.redrive"));
    out.list("causes", &redrive.causes);
    out.list("codes", &redrive.codes);
    out.duration("every", redrive.every);
    out.duration("after", redrive.after);
    out.duration("backoff", redrive.backoff);
    out.duration("backoff_max", redrive.backoff_max);
    out.raw("max_times", &redrive.times_max);
    let rate = redrive.per_second.map(|rate| format!("{rate}/s"));
    out.optional("rate", rate.as_deref());
}

fn schedule(out: &mut EffectiveText<'_>, schedule: &Schedule) {
    out.table(&format!("schedules.{}", schedule.name));
    match &schedule.timetable.when {
        When::Cron { expression, zone, dst } => {
            out.text("cron", expression);
            out.text("zone", zone);
            out.text(
                "dst",
                match dst {
                    Dst::Once => "once",
                    Dst::Clock => "clock",
                },
            );
        }
        When::Every(seconds) => out.duration("every", Duration::from_secs(*seconds)),
        When::At(ms) => out.text("at", &rfc3339(*ms)),
    }
    out.optional("start", schedule.timetable.start_ms.map(rfc3339).as_deref());
    out.optional("end", schedule.timetable.end_ms.map(rfc3339).as_deref());
    out.duration("jitter", Duration::from_millis(schedule.jitter_ms));
    out.text("subject", &schedule.subject);
    out.text("payload", &schedule.payload);
    out.text(
        "overlap",
        match schedule.overlap {
            Overlap::All => "all",
            Overlap::Skip => "skip",
            Overlap::One => "one",
        },
    );
    out.text(
        "catch_up",
        match schedule.catch_up {
            CatchUp::Last => "last",
            CatchUp::All => "all",
            CatchUp::None => "none",
        },
    );
    out.duration("catch_up_window", Duration::from_millis(schedule.catch_up_window_ms));
    if let Some(most) = schedule.max_runs {
        out.raw("max_runs", &most);
    }
    if !schedule.headers.is_empty() {
        out.table(&format!("schedules.{}.headers", schedule.name));
        for (name, value) in &schedule.headers {
            out.text(&quote_key(name), value);
        }
    }
}
