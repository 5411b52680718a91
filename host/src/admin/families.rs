//! Every metric of a host: one table, of which `docs/metrics.md` is made.

use std::sync::atomic::{AtomicU64, Ordering};

use super::backlog::{HandlerBacklog, MeshBacklog};
use super::exposition::Samples;
use super::proc::ProcessFigures;
use crate::event::clock;
use crate::handler_task::counters::{Counters, ServingState};
use crate::handler_task::lane::Lane;
use crate::handler_task::metrics::HandlerMetrics;
use crate::histogram::Histogram;
use crate::ledger::Bucket;
use crate::ledger::relay::state::Snapshot;
use crate::micro::Host;
use crate::micro::rollout::RolloutJson;
use crate::outbox::OutboxNow;
use crate::process::telemetry;
use crate::schedule;
use crate::spans;

/// Nanoseconds in a second: what times are counted in, and told in.
const NANOS: f64 = 1e9;

/// What samples are made of.
pub struct Scrape<'a> {
    /// `None`: the host has not started yet.
    pub host: Option<&'a Host>,
    pub backlog: &'a MeshBacklog,
    pub process: ProcessFigures,
    pub now_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
}

impl FamilyKind {
    pub fn word(self) -> &'static str {
        match self {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
        }
    }
}

pub struct Family {
    /// Without the `_total` of a counter.
    pub name: &'static str,
    pub kind: FamilyKind,
    pub unit: Option<&'static str>,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    pub samples: fn(&Scrape<'_>, &mut Samples<'_>),
}

impl Family {
    /// As queries name it.
    pub fn full_name(&self) -> String {
        match self.kind {
            FamilyKind::Counter => format!("{}_total", self.name),
            FamilyKind::Gauge | FamilyKind::Histogram => self.name.to_owned(),
        }
    }

    const fn new(
        name: &'static str,
        kind: FamilyKind,
        labels: &'static [&'static str],
        help: &'static str,
        samples: fn(&Scrape<'_>, &mut Samples<'_>),
    ) -> Family {
        Family {
            name,
            kind,
            unit: None,
            labels,
            help,
            samples,
        }
    }

    const fn in_unit(self, unit: &'static str) -> Family {
        Family {
            unit: Some(unit),
            ..self
        }
    }
}

use FamilyKind::{Counter as C, Gauge as G, Histogram as H};

const HANDLER: &[&str] = &["handler"];
const LEDGER: &[&str] = &["ledger"];
const OUTBOX: &[&str] = &["outbox"];

#[rustfmt::skip]
pub static FAMILIES: [Family; 57] = [
    Family::new("jetmesh_build_info", G, &["version"], "1; the version of the host.",
        |_, out| out.add(&[env!("CARGO_PKG_VERSION")], 1)),
    Family::new("jetmesh_handler_serving", G, HANDLER, "1 while the handler takes events on this host, else 0.",
        |scrape, out| lanes(scrape, |lane| out.add(&[name(lane)], u8::from(lane.status.get().state == ServingState::Serving)))),
    Family::new("jetmesh_handler_hindered_events", G, HANDLER,
        "Events that cannot go on although the handler serves; `jetmesh status` says why.",
        |scrape, out| lanes(scrape, |lane| out.add(&[name(lane)], lane.hindered.now().iter().map(|one| one.events).sum::<usize>()))),
    Family::new("jetmesh_handler_paused", G, HANDLER, "1 while a person has paused the handler, else 0.",
        |scrape, out| lanes(scrape, |lane| out.add(&[name(lane)], u8::from(lane.circuit.is_paused())))),
    Family::new("jetmesh_handler_circuit_open", G, HANDLER, "1 while the circuit of the handler is open on this host, else 0.",
        |scrape, out| lanes(scrape, |lane| out.add(&[name(lane)], u8::from(lane.circuit.told().is_some())))),
    Family::new("jetmesh_handler_module_info", G, &["handler", "module"], "1; the module that the handler runs.",
        |scrape, out| lanes(scrape, |lane| out.add(&[name(lane), &lane.runner.digest().to_string()], 1))),
    Family::new("jetmesh_handler_module_not_taken", G, HANDLER,
        "1 while the module file has something else than the module that serves, and it cannot be taken up, else 0.",
        |scrape, out| lanes(scrape, |lane| out.add(&[name(lane)], u8::from(lane.runner.not_taken().is_some())))),
    Family::new("jetmesh_rollout_share", G, HANDLER,
        "Part of the events that run on the version which takes over step by step, from 0 to 1; absent: none does.",
        |scrape, out| rollouts(scrape, out, |rollout| rollout.share)),
    Family::new("jetmesh_rollout_evidence", G, HANDLER,
        "Evidence against the version that takes over step by step; it goes back at 1 / alpha, which is 100 unless said otherwise.",
        |scrape, out| rollouts(scrape, out, |rollout| rollout.evidence)),
    Family::new("jetmesh_events", C, &["handler", "result"],
        "Events that this host has answered for good: done, dead, or repeated, which were decided before.", events),
    Family::new("jetmesh_event_duplicates", C, HANDLER, "Repeated events that were recognised by their id.",
        |scrape, out| counted(scrape, out, |counters| &counters.known_by_id)),
    Family::new("jetmesh_events_removed", C, HANDLER,
        "Messages that their stream has removed before the handler was given them, as far as this host has seen.",
        |scrape, out| counted(scrape, out, |counters| &counters.removed)),
    Family::new("jetmesh_attempts", C, &["handler", "module", "outcome"],
        "Attempts that ended, of the newest four modules of the handler.", attempts),
    Family::new("jetmesh_limits_reached", C, &["handler", "limit"],
        "Runs that a limit of the sandbox has ended: memory, table, stack, or time.", limits),
    Family::new("jetmesh_retries", C, HANDLER, "Attempts after which the event waits for another one.",
        |scrape, out| counted(scrape, out, |counters| &counters.retried)),
    Family::new("jetmesh_dead", C, &["handler", "cause"], "Events that died.", deaths),
    Family::new("jetmesh_conflicts", C, HANDLER, "Runs whose reads had changed before their commit; the event ran again at once.",
        |scrape, out| counted(scrape, out, |counters| &counters.conflicts)),
    Family::new("jetmesh_events_in_flight", G, HANDLER, "Events at work on this host.",
        |scrape, out| lanes(scrape, |lane| out.add(&[name(lane)], lane.in_flight.count()))),
    Family::new("jetmesh_event_wait_seconds", H, HANDLER, "Time from the delivery of an event to the start of its guest.",
        |scrape, out| times(scrape, out, |metrics| &metrics.wait)).in_unit("seconds"),
    Family::new("jetmesh_run_seconds", H, HANDLER, "Time of one run of the guest.",
        |scrape, out| times(scrape, out, |metrics| &metrics.run)).in_unit("seconds"),
    Family::new("jetmesh_commit_seconds", H, HANDLER, "Time from the end of a guest to the commit of what it wants.",
        |scrape, out| times(scrape, out, |metrics| &metrics.commit)).in_unit("seconds"),
    Family::new("jetmesh_event_age_seconds", H, HANDLER, "Time from when the stream stored an event to its decision.",
        |scrape, out| times(scrape, out, |metrics| &metrics.age)).in_unit("seconds"),
    Family::new("jetmesh_backlog_events", G, &["handler", "kind"],
        "Events of the whole mesh that wait, by kind: pending, running, retrying, delayed, or dead.", backlog),
    Family::new("jetmesh_backlog_oldest_seconds", G, HANDLER, "Age of the oldest event that is not decided; 0 if there is none.",
        |scrape, out| waiting(scrape, |handler, backlog| out.add(&[handler], age(scrape, backlog.oldest_ms)))).in_unit("seconds"),
    Family::new("jetmesh_backlog_age_seconds", G, HANDLER, "Time since the figures of jetmesh_backlog_events were looked up.",
        |scrape, out| waiting(scrape, |handler, backlog| out.add(&[handler], age(scrape, Some(backlog.at_ms))))).in_unit("seconds"),
    Family::new("jetmesh_delayed_late_seconds", G, &[],
        "How late the oldest delayed event is, or the timer of a schedule, that is due and not published; 0 if there is none.",
        |scrape, out| out.add_some(&[], scrape.host.map(|_| age(scrape, scrape.backlog.due_ms())))).in_unit("seconds"),
    Family::new("jetmesh_schedule_lag_seconds", H, &[], "Time from the due time of a schedule to the step that fires it, on this host.",
        |_, out| out.histogram(&[], schedule::LAG.now(), NANOS)).in_unit("seconds"),
    Family::new("jetmesh_ledger_working", G, LEDGER, "1 while the ledger can decide events, else 0.",
        |scrape, out| buckets(scrape, |bucket| out.add(&[&bucket.name], u8::from(bucket.trouble().is_none())))),
    Family::new("jetmesh_ledger_append_seconds", H, LEDGER, "Time of the append of one group of transactions.",
        |scrape, out| buckets(scrape, |bucket| out.histogram(&[&bucket.name], bucket.appends.now(), NANOS))).in_unit("seconds"),
    Family::new("jetmesh_ledger_group_decisions", H, LEDGER, "Decisions in one group.",
        |scrape, out| buckets(scrape, |bucket| out.histogram(&[&bucket.name], bucket.groups.now(), 1.0))),
    Family::new("jetmesh_ledger_refused_commits", C, LEDGER, "Groups that the server refused, because another host was first.",
        |scrape, out| buckets(scrape, |bucket| out.add(&[&bucket.name], bucket.refusals()))),
    Family::new("jetmesh_ledger_keys_read", C, LEDGER, "Keys that handlers have read.",
        |scrape, out| buckets(scrape, |bucket| out.add(&[&bucket.name], bucket.reads().0))),
    Family::new("jetmesh_ledger_keys_fetched", C, LEDGER, "Keys among them that were not in the host's cache.",
        |scrape, out| buckets(scrape, |bucket| out.add(&[&bucket.name], bucket.reads().1))),
    Family::new("jetmesh_relay_active", G, LEDGER, "1 on the host that publishes the consequences of the ledger, else 0.",
        |scrape, out| relays(scrape, |ledger, now| out.add(&[ledger], u8::from(now.active)))),
    Family::new("jetmesh_relay_unconfirmed", G, LEDGER, "Messages of consequences that the relay has taken up and not published.",
        |scrape, out| relays(scrape, |ledger, now| out.add(&[ledger], now.unconfirmed))),
    Family::new("jetmesh_relay_oldest_seconds", G, LEDGER, "Age of the oldest of them; 0 if there is none.",
        |scrape, out| relays(scrape, |ledger, now| out.add(&[ledger], age(scrape, now.oldest_ms)))).in_unit("seconds"),
    Family::new("jetmesh_relay_blocked_targets", G, LEDGER, "Targets that accept nothing: something waits for them, or they refused something within the last minute.",
        |scrape, out| relays(scrape, |ledger, now| out.add(&[ledger], now.blocked_now(scrape.now_ms)))),
    Family::new("jetmesh_undeliverable", C, LEDGER, "Emitted events that this host has made dead letters, because their targets refused them.",
        undeliverable),
    Family::new("jetmesh_relay_failing", G, LEDGER, "1 while the relay is broken off by an error and tries again, else 0.",
        |scrape, out| relays(scrape, |ledger, now| out.add(&[ledger], u8::from(now.error.is_some())))),
    Family::new("jetmesh_relay_seconds", H, LEDGER, "Time from the commit of consequences to their publication; those of one group are counted together.", relayed).in_unit("seconds"),
    Family::new("jetmesh_outbox_state", G, &["outbox", "state"], "1; the state of the outbox on this host.",
        |scrape, out| outboxes(scrape, |outbox, now| out.add(&[outbox, now.standing.word()], 1))),
    Family::new("jetmesh_outbox_rows", G, OUTBOX, "Rows that wait to be published.",
        |scrape, out| outboxes(scrape, |outbox, now| out.add_some(&[outbox], now.backlog.and_then(|backlog| backlog.rows)))),
    Family::new("jetmesh_outbox_oldest_seconds", G, OUTBOX, "Age of the oldest of them; 0 if there is none.",
        |scrape, out| outboxes(scrape, |outbox, now| out.add_some(&[outbox], now.backlog.map(|backlog| age(scrape, backlog.oldest_ms))))).in_unit("seconds"),
    Family::new("jetmesh_outbox_published", C, OUTBOX, "Rows that this host has published.",
        |scrape, out| outboxes(scrape, |outbox, now| out.add(&[outbox], now.published))),
    Family::new("jetmesh_outbox_dead", C, OUTBOX, "Rows that this host has made dead letters.",
        |scrape, out| outboxes(scrape, |outbox, now| out.add(&[outbox], now.dead))),
    Family::new("jetmesh_instances", G, &[], "Instances that live on this host, those that are kept for reuse included.",
        |scrape, out| out.add_some(&[], scrape.host.map(|host| host.runtime.instances()))),
    Family::new("jetmesh_instances_waiting", G, &[], "Runs that wait because the host has no room for another instance.",
        |scrape, out| out.add_some(&[], scrape.host.map(|host| host.runtime.waiting()))),
    Family::new("jetmesh_clock_ahead_seconds", G, &[], "How far the host's clock is ahead of the server's; negative: behind.",
        |_, out| out.add(&[], clock::ahead_ms() as f64 / 1000.0)).in_unit("seconds"),
    Family::new("jetmesh_log_lines_lost", C, &[], "Log lines that could not be written.",
        |_, out| out.add(&[], telemetry::lost())),
    Family::new("jetmesh_spans_exported", C, &[], "Spans that a collector has taken.",
        |_, out| out.add(&[], spans::exported())),
    Family::new("jetmesh_spans_dropped", C, &[], "Spans that are lost, because too many waited or no collector took them.",
        |_, out| out.add(&[], spans::dropped())),
    Family::new("jetmesh_panics", C, &[], "Defects of the host that it has met; `jetmesh status --json` says where.",
        |scrape, out| out.add_some(&[], scrape.host.map(|host| host.panics.all().values().map(|one| one.count).sum::<u64>()))),
    Family::new("process_cpu_seconds", C, &[], "Processor time of the process.",
        |scrape, out| out.add_some(&[], scrape.process.cpu_seconds)).in_unit("seconds"),
    Family::new("process_resident_memory_bytes", G, &[], "Resident memory of the process.",
        |scrape, out| out.add_some(&[], scrape.process.resident_bytes)).in_unit("bytes"),
    Family::new("process_open_fds", G, &[], "Open files of the process.",
        |scrape, out| out.add_some(&[], scrape.process.open_files)),
    Family::new("process_max_fds", G, &[], "Files that the process may have open.",
        |scrape, out| out.add_some(&[], scrape.process.open_files_max)),
    Family::new("process_start_time_seconds", G, &[], "When the process began, since the Unix epoch.",
        |scrape, out| out.add_some(&[], scrape.process.started)).in_unit("seconds"),
];

fn lanes<'a>(scrape: &Scrape<'a>, each: impl FnMut(&'a Lane)) {
    let host = scrape.host.into_iter();
    host.flat_map(|host| host.lanes.iter().map(AsRef::as_ref))
        .for_each(each);
}

/// Of handlers with a version that takes over step by step.
fn rollouts(scrape: &Scrape<'_>, out: &mut Samples<'_>, of: fn(&RolloutJson) -> f64) {
    lanes(scrape, |lane| {
        if let Some(rollout) = RolloutJson::of(&lane.runner) {
            out.add(&[name(lane)], of(&rollout));
        }
    });
}

fn name(lane: &Lane) -> &str {
    &lane.plan.name
}

fn counted(scrape: &Scrape<'_>, out: &mut Samples<'_>, counter: fn(&Counters) -> &AtomicU64) {
    lanes(scrape, |lane| {
        let count = counter(&lane.counters).load(Ordering::Relaxed);
        out.add(&[name(lane)], count);
    });
}

fn times(scrape: &Scrape<'_>, out: &mut Samples<'_>, of: fn(&HandlerMetrics) -> &Histogram) {
    lanes(scrape, |lane| {
        out.histogram(&[name(lane)], of(&lane.metrics).now(), NANOS)
    });
}

fn events(scrape: &Scrape<'_>, out: &mut Samples<'_>) {
    lanes(scrape, |lane| {
        let counters = &lane.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let results = [
            ("done", of(&counters.done)),
            ("dead", counters.dead()),
            ("repeated", of(&counters.repeated)),
        ];
        for (result, count) in results {
            out.add(&[name(lane), result], count);
        }
    });
}

fn attempts(scrape: &Scrape<'_>, out: &mut Samples<'_>) {
    lanes(scrape, |lane| {
        for one in lane.metrics.modules().iter() {
            let module = one.module.to_string();
            for (outcome, count) in one.outcomes() {
                out.add(&[name(lane), &module, outcome], count);
            }
        }
    });
}

fn limits(scrape: &Scrape<'_>, out: &mut Samples<'_>) {
    lanes(scrape, |lane| {
        for (limit, count) in lane.metrics.limits() {
            out.add(&[name(lane), limit], count);
        }
    });
}

fn deaths(scrape: &Scrape<'_>, out: &mut Samples<'_>) {
    lanes(scrape, |lane| {
        for (cause, count) in lane.counters.deaths() {
            out.add(&[name(lane), cause.name()], count);
        }
    });
}

/// Of handlers of which it is known.
fn waiting(scrape: &Scrape<'_>, mut each: impl FnMut(&str, &HandlerBacklog)) {
    lanes(scrape, |lane| {
        if let Some(backlog) = scrape.backlog.of(name(lane)) {
            each(name(lane), &backlog);
        }
    });
}

fn backlog(scrape: &Scrape<'_>, out: &mut Samples<'_>) {
    waiting(scrape, |handler, backlog| {
        let kinds = [
            ("pending", backlog.pending),
            ("running", backlog.running),
            ("retrying", backlog.retrying),
            ("delayed", backlog.delayed),
            ("dead", backlog.dead),
        ];
        for (kind, count) in kinds {
            out.add(&[handler, kind], count);
        }
    });
}

/// Each ledger once.
fn buckets<'a>(scrape: &Scrape<'a>, mut each: impl FnMut(&'a Bucket)) {
    let mut seen = std::collections::BTreeSet::new();
    lanes(scrape, |lane| {
        if let Some(bucket) = lane.bucket.as_deref()
            && seen.insert(&bucket.name)
        {
            each(bucket);
        }
    });
}

fn relays(scrape: &Scrape<'_>, mut each: impl FnMut(&str, &Snapshot)) {
    for relay in scrape.host.into_iter().flat_map(|host| &host.relays) {
        each(relay.ledger(), &relay.snapshot());
    }
}

fn undeliverable(scrape: &Scrape<'_>, out: &mut Samples<'_>) {
    for relay in scrape.host.into_iter().flat_map(|host| &host.relays) {
        out.add(&[relay.ledger()], relay.undeliverable());
    }
}

fn relayed(scrape: &Scrape<'_>, out: &mut Samples<'_>) {
    for relay in scrape.host.into_iter().flat_map(|host| &host.relays) {
        out.histogram(&[relay.ledger()], relay.published.now(), NANOS);
    }
}

fn outboxes(scrape: &Scrape<'_>, mut each: impl FnMut(&str, &OutboxNow)) {
    for outbox in scrape.host.into_iter().flat_map(|host| &host.outboxes) {
        each(&outbox.name, &outbox.snapshot());
    }
}

/// How long ago a moment was, in seconds; 0: there is none.
fn age(scrape: &Scrape<'_>, at_ms: Option<u64>) -> f64 {
    at_ms.map_or(0.0, |at| scrape.now_ms.saturating_sub(at) as f64 / 1000.0)
}
