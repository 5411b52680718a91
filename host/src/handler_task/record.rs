//! What an attempt leaves in the event's record (see `attempts`): its beginning, its failure, and in the end nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::Error;
use crate::broker::kv::kv_stream;
use crate::broker::provision::{ATTEMPTS, kept};
use crate::event::clock::now_ms;
use crate::event::{EventId, Message, rfc3339};
use crate::failpoint;
use crate::handler_task::delivery::{Delivery, Ran};
use crate::handler_task::links::{Link, Links};
use crate::mesh_streams::attempts::{self, Attempt, LOG_TAIL};
use crate::plan::{Handler, Plan};
use crate::wasm::source::ModuleDigest;

/// The attempt records of one handler.
pub struct AttemptRecords {
    plan: Arc<Handler>,
    whole: Arc<Plan>,
    links: Arc<Links>,
    /// Which process this is.
    host: String,
}

impl AttemptRecords {
    pub fn new(plan: Arc<Handler>, whole: Arc<Plan>, links: Arc<Links>, host: &str) -> AttemptRecords {
        AttemptRecords {
            plan,
            whole,
            links,
            host: host.to_owned(),
        }
    }

    /// Reads a record; if the bucket is missing, it is created again and the caller tries again.
    pub async fn load(&self, link: &Link, event: &EventId) -> Result<attempts::Held, Error> {
        let load = attempts::load(&link.connection, &self.plan.name, event);
        kept(&link.connection, &self.whole, &kv_stream(ATTEMPTS), load).await
    }

    /// Counts an attempt before it runs, so that an event which ends the host is counted too. One beyond the last is counted
    /// and not written: it does not run. Neither does one at an event that a person has given up.
    pub async fn begin(&self, delivery: &Delivery, module: &ModuleDigest) -> Result<attempts::Held, Error> {
        let link = self.links.needed("recording an attempt").await?;
        let event = &delivery.message.event;
        let mut held = self.load(&link, event).await?;
        if held.record.given_up.is_some() {
            return Ok(held);
        }
        self.describe(&mut held, &delivery.message);
        if held.record.attempts >= self.plan.retry.max_attempts && !failpoint::off("host-verdict") {
            held.record.attempts += 1;
            return Ok(held);
        }
        held.record.begin(&self.host, &module.to_string());
        attempts::save(&link.connection, event, &mut held).await?;
        if held.record.given_up.is_some() {
            // It was given up meanwhile.
            held.record.not_begun();
        }
        failpoint::point("attempt-written");
        Ok(held)
    }

    fn describe(&self, held: &mut attempts::Held, message: &Message) {
        held.record.handler.clone_from(&self.plan.name);
        held.record.event = message.event.to_string();
        held.record.stream.clone_from(&self.plan.stream);
        held.record.subject.clone_from(&message.subject);
    }

    /// An attempt that has just failed, as records and letters tell it.
    pub fn told(&self, attempt: u32, ran: &Ran) -> Attempt {
        let failure = ran.outcome.failure();
        let (code, message) = failure.map_or_else(Default::default, |f| (f.code, f.message));
        let took = u64::try_from(ran.took.as_millis()).unwrap_or(u64::MAX);
        let last_lines = &ran.lines[ran.lines.len().saturating_sub(LOG_TAIL)..];
        Attempt {
            attempt,
            at: rfc3339(now_ms().saturating_sub(took)),
            host: self.host.clone(),
            module: ran.digest.to_string(),
            outcome: ran.outcome.name().to_owned(),
            code,
            message,
            log: last_lines.iter().map(|l| format!("{} {}", l.level, l.text)).collect(),
            backtrace: ran.outcome.backtrace().to_vec(),
            seed: ran.seed,
            replay: false,
            asked_by: None,
        }
    }

    /// Writes down why an attempt failed and when the next is due.
    pub async fn failed(
        &self,
        delivery: &Delivery,
        record: Option<attempts::Held>,
        attempt: u32,
        ran: &Ran,
        delay: Duration,
    ) -> Result<(), Error> {
        let Some(link) = self.links.next().await else {
            return Ok(());
        };
        let mut held = record.unwrap_or_default();
        self.describe(&mut held, &delivery.message);
        held.record.end(self.told(attempt, ran));
        if !ran.outcome.counts() {
            held.record.attempts = held.record.attempts.saturating_sub(1);
        }
        let due = now_ms() + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        held.record.next = Some(rfc3339(due));
        let save = attempts::save(&link.connection, &delivery.message.event, &mut held);
        kept(&link.connection, &self.whole, &kv_stream(ATTEMPTS), save).await
    }

    /// Takes away the record of an event that is decided.
    pub async fn forget(&self, event: &EventId) {
        let Some(link) = self.links.present() else { return };
        if let Err(error) = attempts::remove(&link.connection, &self.plan.name, event).await {
            // The sweep takes it away later.
            tracing::debug!(handler = %self.plan.name, %event, %error, "an attempt record stays behind");
        }
    }
}
