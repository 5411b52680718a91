//! What an advisory comes to. Pure: what the server and the mesh know of the event is handed in.

use std::borrow::Cow;
use std::time::Duration;

use super::message::Advisory;
use crate::broker::consumer::ConsumerInfo;
use crate::event::outcome::{Cause, Failure};
use crate::event::parse_rfc3339;
use crate::handler_task::dead_lettering::{self, Dead};
use crate::handler_task::settle::OWN_TERM;
use crate::mesh_streams::attempts::AttemptRecord;
use crate::plan::Handler;

/// How soon an advisory is looked at again whose event may still be answered.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// What is known of an undecided event that an advisory names, and that this host does not work on.
pub struct Evidence<'a> {
    pub plan: &'a Handler,
    pub advisory: &'a Advisory,
    /// When the server sent it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub now_ms: u64,
    pub consumer: &'a ConsumerInfo,
    pub record: &'a AttemptRecord,
}

/// What an advisory comes to.
#[derive(Debug)]
pub enum Finding {
    /// It is not ours to deal with.
    NotOurs,
    /// Forged, or of another time.
    Contradicted,
    /// It may still turn out to be false: look again.
    Later(Duration),
    /// The event never reached the handler: each time it was lost with its neighbours, or handed back.
    NeverTried,
    Dead(Dead<'static>),
}

/// What an advisory comes to.
pub fn judge(known: &Evidence<'_>) -> Finding {
    let (plan, advisory, consumer) = (known.plan, known.advisory, known.consumer);
    if advisory.stream_seq > consumer.delivered.stream_seq {
        return Finding::Contradicted;
    }
    // While the server waits for answers, this event might be among what it waits for: then its record changes.
    let pending = consumer.num_ack_pending > 0 && advisory.stream_seq > consumer.ack_floor.stream_seq;
    if pending && known.now_ms < known.answered_by() {
        return Finding::Later(LOOK_AGAIN_MAX.min(plan.ack_wait));
    }
    if advisory.kind.ends_with(".terminated") {
        // Without a ledger it is the answer to an event that was dead-lettered.
        if plan.ledger.is_none() && advisory.reason.starts_with(OWN_TERM) {
            return Finding::NotOurs;
        }
        return Finding::Dead(terminated(&advisory.reason, known.record));
    }
    let max = consumer.config["max_deliver"].as_u64().unwrap_or(u64::MAX);
    if advisory.deliveries < max.min(u64::try_from(plan.max_deliver()).unwrap_or(u64::MAX)) {
        return Finding::Contradicted;
    }
    if known.record.attempts == 0 {
        return Finding::NeverTried;
    }
    Finding::Dead(dead_lettering::left_behind(known.record, plan.retry.max_attempts))
}

impl Evidence<'_> {
    /// By when an attempt that runs somewhere would be answered, in milliseconds since the Unix epoch.
    fn answered_by(&self) -> u64 {
        let patience = u64::try_from((self.plan.ack_wait + self.plan.timeout).as_millis()).unwrap_or(u64::MAX);
        let next = self.record.next.as_deref().and_then(parse_rfc3339);
        let due = next.unwrap_or(dead_lettering::of_record(self.record).last_ms);
        due.max(self.at_ms).saturating_add(patience)
    }
}

/// The death of an event that another client terminated.
fn terminated(reason: &str, record: &AttemptRecord) -> Dead<'static> {
    let message = match reason {
        "" => "a person or a program terminated it, without a reason".to_owned(),
        reason => format!("a person or a program terminated it: {reason}"),
    };
    let failure = Failure {
        code: "terminated".to_owned(),
        message,
    };
    Dead {
        cause: Cause::Terminated,
        failure: Cow::Owned(failure),
        record: dead_lettering::of_record(record),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::rfc3339;
    use crate::mesh_streams::attempts::Attempt;

    const MAX_DELIVER: &str = "io.nats.jetstream.advisory.v1.max_deliver";
    const TERMINATED: &str = "io.nats.jetstream.advisory.v1.terminated";
    /// When the advisory was sent.
    const AT: u64 = 1_000_000;
    const SEQUENCE: u64 = 7;

    fn plan(ledger: bool) -> Handler {
        Handler {
            ledger: ledger.then(|| "b".to_owned()),
            ack_wait: Duration::from_secs(3),
            timeout: Duration::from_secs(2),
            ..Handler::of_test("h")
        }
    }

    fn advisory(kind: &str, more: Value) -> Advisory {
        let mut advisory =
            json!({ "type": kind, "timestamp": rfc3339(AT), "stream": "S", "consumer": "h", "stream_seq": SEQUENCE });
        advisory
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(advisory).unwrap()
    }

    /// The server gave up after as many deliveries as the consumer allows.
    fn gave_up(plan: &Handler) -> Advisory {
        advisory(MAX_DELIVER, json!({ "deliveries": plan.max_deliver() }))
    }

    /// A consumer with nothing unanswered; `more` changes that.
    fn consumer(plan: &Handler, more: Value) -> ConsumerInfo {
        let position = |sequence: u64| json!({ "consumer_seq": sequence, "stream_seq": sequence });
        let mut info = json!({
            "name": "h", "config": { "max_deliver": plan.max_deliver() },
            "delivered": position(20), "ack_floor": position(20),
            "num_pending": 0, "num_ack_pending": 0, "num_redelivered": 0,
        });
        info.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(info).unwrap()
    }

    fn record(attempts: u32) -> AttemptRecord {
        let mut record = AttemptRecord::default();
        for attempt in 1..=attempts {
            record.end(Attempt {
                attempt,
                at: rfc3339(AT - 10_000),
                host: "x".to_owned(),
                module: "m".to_owned(),
                outcome: "retry".to_owned(),
                code: "busy".to_owned(),
                message: "no".to_owned(),
                log: Vec::new(),
                backtrace: Vec::new(),
                seed: None,
                replay: false,
                asked_by: None,
            });
        }
        record
    }

    fn found(
        plan: &Handler,
        advisory: &Advisory,
        consumer: &ConsumerInfo,
        record: &AttemptRecord,
        now_ms: u64,
    ) -> String {
        let finding = judge(&Evidence {
            plan,
            advisory,
            at_ms: AT,
            now_ms,
            consumer,
            record,
        });
        match finding {
            Finding::NotOurs => "not ours".to_owned(),
            Finding::Contradicted => "contradicted".to_owned(),
            Finding::Later(delay) => format!("later {delay:?}"),
            Finding::NeverTried => "never tried".to_owned(),
            Finding::Dead(dead) => format!("{} {} {}", dead.cause, dead.failure.code, dead.record.attempts),
        }
    }

    #[test]
    fn what_the_server_gave_up_on_is_dead_if_it_was_tried_and_else_it_is_run() {
        let plan = plan(true);
        let last = plan.retry.max_attempts;
        let rows = [
            (0, "never tried".to_owned()),
            (1, "max-deliver busy 1".to_owned()),
            (last, format!("exhausted busy {last}")),
        ];
        for (attempts, expected) in rows {
            let (advisory, consumer) = (gave_up(&plan), consumer(&plan, json!({})));
            assert_eq!(
                found(&plan, &advisory, &consumer, &record(attempts), AT),
                expected,
                "{attempts}"
            );
        }
    }

    #[test]
    fn an_advisory_that_its_consumer_contradicts_is_left_out() {
        let (plan, record) = (plan(true), record(1));
        let untouched = consumer(&plan, json!({}));
        let early = advisory(MAX_DELIVER, json!({ "deliveries": plan.max_deliver() - 1 }));
        assert_eq!(found(&plan, &early, &untouched, &record, AT), "contradicted");
        // The consumer allows fewer than the plan.
        let other = consumer(&plan, json!({ "config": { "max_deliver": plan.max_deliver() - 1 } }));
        assert_eq!(found(&plan, &early, &other, &record, AT), "max-deliver busy 1");
        let position = json!({ "consumer_seq": 9, "stream_seq": SEQUENCE - 1 });
        let behind = consumer(&plan, json!({ "delivered": position }));
        assert_eq!(found(&plan, &gave_up(&plan), &behind, &record, AT), "contradicted");
    }

    #[test]
    fn an_event_that_may_still_be_answered_is_looked_at_again_until_it_cannot() {
        let plan = plan(true);
        let floor = json!({ "consumer_seq": 3, "stream_seq": SEQUENCE - 1 });
        let pending = consumer(&plan, json!({ "num_ack_pending": 1, "ack_floor": floor }));
        let find = |record: &AttemptRecord, now_ms| found(&plan, &gave_up(&plan), &pending, record, now_ms);
        // Ack wait and timeout are five seconds.
        assert_eq!(find(&record(1), AT + 4_999), "later 3s");
        assert_eq!(find(&record(1), AT + 5_000), "max-deliver busy 1");
        // Its next attempt is due later.
        let next = AttemptRecord {
            next: Some(rfc3339(AT + 60_000)),
            ..record(1)
        };
        assert_eq!(find(&next, AT + 64_999), "later 3s");
        assert_eq!(find(&next, AT + 65_000), "max-deliver busy 1");
        // What lies at or below the ack floor is not pending.
        let floor = json!({ "consumer_seq": 3, "stream_seq": SEQUENCE });
        let answered = consumer(&plan, json!({ "num_ack_pending": 1, "ack_floor": floor }));
        assert_eq!(
            found(&plan, &gave_up(&plan), &answered, &record(1), AT),
            "max-deliver busy 1"
        );
    }

    #[test]
    fn a_termination_is_a_death_unless_it_is_the_hosts_own_answer() {
        let own = json!({ "reason": "jetmesh: rejected: out-of-stock" });
        let rows = [
            (true, json!({ "reason": "by hand" }), "terminated terminated 1"),
            (false, json!({}), "terminated terminated 1"),
            // Without a ledger the letter was stored before; with one, the ledger is asked, and has no decision.
            (false, own.clone(), "not ours"),
            (true, own, "terminated terminated 1"),
        ];
        for (ledger, more, expected) in rows {
            let plan = plan(ledger);
            let (advisory, consumer) = (advisory(TERMINATED, more), consumer(&plan, json!({})));
            assert_eq!(found(&plan, &advisory, &consumer, &record(1), AT), expected, "{ledger}");
        }
    }
}
