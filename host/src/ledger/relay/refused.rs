//! What becomes of what was published: taken, refused, or never answered.

use super::asked::{Asked, TargetAnswer};
use std::sync::Arc;

use tokio::time::Instant;

use super::blocked::{AGAIN, Manner, Waiting};
use super::carry::Relay;
use super::flight::{Answered, Cargo, What};
use super::targets::{Refusal, refusal};
use crate::broker::error::Code;
use crate::broker::provision::{DEAD, DELAYED, restore};
use crate::broker::{Connection, Error};
use crate::event::subject::subject_matches;
use crate::failpoint;
use crate::failpoint::mistake::Mistake;
use crate::plan::Plan;
use crate::trouble::{self, Weight};

impl Relay {
    /// Takes in what a target has answered.
    pub fn answered(&mut self, answered: Answered) -> Result<(), Error> {
        let Answered { cargo, answer } = answered;
        // Stored upon nothing: something that is there is as good.
        let there = matches!(cargo.what, What::Letter | What::Undeliverable | What::Delayed);
        match answer {
            Ok(()) => {
                if matches!(cargo.what, What::Undeliverable) {
                    self.state.count_undeliverable();
                }
                self.taken(cargo);
            }
            Err(error) if there && error.code() == Some(Code::STREAM_WRONG_LAST_SEQUENCE) => self.taken(cargo),
            Err(_) if failpoint::planted().is(Mistake::BlockedIsPublished) => self.taken(cargo),
            Err(error) => return self.refused(cargo, error),
        }
        Ok(())
    }

    fn taken(&mut self, mut cargo: Cargo) {
        if let Some(span) = cargo.span.take() {
            span.record(cargo.target.as_deref(), None);
        }
        match &cargo.what {
            What::Event(id) => {
                tracing::trace!(subject = cargo.subject, id, "event emitted");
                failpoint::point("relay-confirmed");
            }
            What::Delayed => failpoint::point("event-scheduled"),
            What::Letter | What::Undeliverable => failpoint::point("letter-stored"),
            What::Settled => {}
        }
        if self.blocked.has_targets() {
            let now = Instant::now();
            if let Some(target) = &cargo.target {
                self.blocked.took(target, now);
            }
            self.blocked.took_on(&cargo.subject, now);
        }
        self.flight.confirm(cargo.carried);
    }

    fn refused(&mut self, mut cargo: Cargo, error: Error) -> Result<(), Error> {
        let now = Instant::now();
        let silence = matches!(error, Error::NoResponders { .. });
        let mut waiting = cargo.before.unwrap_or_else(|| Waiting::new(cargo.carried, now));
        let mortal = matches!(cargo.what, What::Event(_) | What::Delayed);
        let whole = match &cargo.target {
            Some(target) => target.to_string(),
            None => self.unknown(&cargo.subject),
        };
        let (target, manner, why) = match refusal(error) {
            Refusal::Broken(error) => return Err(error),
            Refusal::Never(why) if mortal => {
                trouble!(Weight::Aside, whole, why, { subject = cargo.subject, why },
                    "an emitted event can never be delivered");
                if let Some(span) = cargo.span.take() {
                    span.record(cargo.target.as_deref(), Some(&why));
                }
                self.blocked.never(cargo.place, waiting, &why);
                return Ok(());
            }
            Refusal::Never(why) | Refusal::This(why) => (cargo.subject.clone(), Manner::Refuses, why),
            // What has been found out about a silence stands until it is asked again.
            Refusal::Target(manner, why) => match self.blocked.manner(&whole) {
                Some((Manner::Refuses, known)) if silence => (whole.clone(), Manner::Refuses, known.to_owned()),
                _ => (whole.clone(), manner, why),
            },
        };
        if manner == Manner::Mute && matches!(cargo.what, What::Event(_)) {
            waiting.unsure = true;
            self.lookback.forget(&cargo.subject);
        }
        self.blocked
            .refused((&target, manner, &why), (cargo.place, waiting), mortal, now);
        let ledger = &self.stream;
        trouble!(Weight::Delay, target, why, { target, ledger, why },
            "a target takes nothing from the relay; what is for it waits");
        if silence {
            self.ask(target, cargo.subject, now);
        }
        Ok(())
    }

    /// What an event waits for whose subject no known stream captures: the same for all of a pattern, so that subjects that
    /// are all different do not each count alone.
    pub(super) fn unknown(&self, subject: &str) -> String {
        let mut patterns = self.plan.handlers.iter().flat_map(|handler| &handler.publish);
        let pattern = patterns.find(|pattern| subject_matches(pattern, subject));
        pattern.map_or(subject, String::as_str).to_owned()
    }

    /// Finds out why nothing listens, without waiting for it. What the mesh itself needs is made.
    fn ask(&mut self, target: String, subject: String, now: Instant) {
        if !self.may_ask(&target, now) {
            return;
        }
        let (connection, plan) = (self.connection.clone(), Arc::clone(&self.plan));
        self.asks.push(Box::pin(async move {
            let stream = find(&connection, &plan, &subject, &target).await;
            let answer = TargetAnswer::Stream(target, stream);
            Asked { subject, answer }
        }));
    }

    /// Not twice within a moment, and not too much at a time.
    pub(super) fn may_ask(&mut self, about: &str, now: Instant) -> bool {
        self.asked.retain(|_, at| now - *at < AGAIN);
        if self.asked.contains_key(about) || self.asks.len() >= ASKS_MAX {
            return false;
        }
        self.asked.insert(about.to_owned(), now);
        true
    }

    /// Takes in what was found out.
    pub fn found_out(&mut self, asked: Asked) {
        let subject = asked.subject;
        match asked.answer {
            TargetAnswer::Stream(target, Ok(None)) => {
                let why = format!("no stream captures {subject}");
                self.blocked.explain(&target, Manner::Refuses, why);
                self.targets.forget(&target);
            }
            TargetAnswer::Stream(target, Ok(Some(stream))) => {
                let why = format!("stream {stream} has no leader for the moment");
                self.blocked.explain(&target, Manner::Silent, why);
            }
            TargetAnswer::Seen(Ok(found)) => self.lookback.saw(subject, found),
            // It is asked again at the next try.
            TargetAnswer::Stream(_, Err(error)) | TargetAnswer::Seen(Err(error)) => {
                tracing::debug!(subject, %error, "why a target takes nothing cannot be found out");
            }
        }
    }

    /// What will not be answered any more counts as not taken.
    pub fn lost(&mut self) -> Result<(), Error> {
        for answered in self.flight.unanswered() {
            self.answered(answered)?;
        }
        Ok(())
    }

    /// Once a second.
    pub fn tick(&mut self) -> Result<(), Error> {
        self.lost()?;
        for freed in self.blocked.tick(Instant::now()) {
            let (target, why, letters) = (freed.target, freed.why, freed.letters);
            let blocked = freed.since.elapsed();
            let what = "a target takes nothing from the relay; what is for it waits";
            if let Some(times) = trouble::over(what, &target) {
                tracing::warn!(target, why, letters, ?blocked, times, "a target is no longer blocked");
            }
        }
        Ok(())
    }
}

/// How many targets are asked about at a time.
const ASKS_MAX: usize = 16;

async fn find(connection: &Connection, plan: &Plan, subject: &str, target: &str) -> Result<Option<String>, Error> {
    let found = connection.captured(subject).await?.map(|target| target.stream);
    if found.is_none() && matches!(target, DEAD | DELAYED) {
        restore(connection, plan, target).await?;
    }
    Ok(found)
}
