//! A trace in words.

use super::tree::Node;
use crate::cli::pause::since;
use crate::cli::retrying::{degraded, next, state};
use crate::cli::text::value;
use crate::event::clock::now_ms;
use crate::event::rfc3339;
use crate::ledger::core::entry::{DecisionKind, Text};
use crate::mesh_streams::attempts::AttemptRecord;
use crate::mesh_streams::dead_letter::LetterEdit;
use crate::trace::follow::{Follow, Whereabouts};
use crate::trace::ledger::{BeforeReset, TracedDecision, WrittenKey};
use crate::trace::stand::{Stand, TracedLetter};
use crate::trace::{Part, Traced};

/// Why something is not told.
const LIMIT: &str = "the limit of what is read was reached";

/// An event, and everything below it.
pub fn event(traced: &Traced) -> Node {
    let Traced { stream, sequence, .. } = traced;
    let mut text = format!("{stream}:{sequence}");
    if let Some(message) = &traced.message {
        text += &format!("  {}  at {}", message.subject, rfc3339(message.time_ms));
    }
    if let Some(event) = &traced.event {
        text += &format!("  event {event}");
    }
    let mut below = Vec::new();
    match &traced.message {
        Some(message) => below.push(Node::leaf(value(&message.payload))),
        None if traced.former => below.push(Node::leaf("its stream was deleted and created again since")),
        None => below.push(Node::leaf("not in its stream any more")),
    }
    below.extend(traced.note.map(Node::leaf));
    below.extend(traced.handlers.iter().map(part));
    if traced.handlers.is_empty() && traced.note.is_none() {
        below.push(Node::leaf("no handler of the configuration reads it"));
    }
    Node { text, below }
}

fn part(part: &Part) -> Node {
    let (text, mut below) = stand(&part.stand);
    below.extend(part.before_resets.iter().map(before_reset));
    below.extend(part.edits.iter().map(edited));
    below.extend(part.follows.iter().map(follow));
    below.extend(part.note.map(Node::leaf));
    let pause = part.paused.as_ref();
    below.extend(pause.map(|pause| Node::leaf(format!("{} is paused {}", part.handler, since(pause)))));
    below.extend(part.hindered.iter().map(|one| Node::leaf(degraded(&part.handler, one))));
    Node {
        text: format!("{}: {text}", part.handler),
        below,
    }
}

/// What a handler has made of it, and what belongs to that.
fn stand(stand: &Stand) -> (String, Vec<Node>) {
    match stand {
        Stand::Done { decided } => (done(decided), writes(decided)),
        Stand::Dead {
            decided,
            letter,
            replay,
        } => dead(decided.as_deref(), letter.as_ref(), *replay),
        Stand::Replayed { at } => plain(&format!(
            "done at {at}, by a replay of its dead letter; no ledger keeps more of it"
        )),
        Stand::Retrying { record, max_attempts } => (retrying(record, *max_attempts), Vec::new()),
        Stand::Delivered { ledger: true } => plain("delivered to a host, which has not decided it yet"),
        Stand::Delivered { ledger: false } => {
            plain("delivered to a host; without a ledger it is not known whether it is done")
        }
        Stand::Waiting { delivered, held_up } => (
            format!("waiting: its consumer has delivered up to {delivered}"),
            held_up.iter().map(|why| Node::leaf(why.clone())).collect(),
        ),
        Stand::BeforeStart { start } => plain(&format!("not for it: its consumer began at {start}")),
        Stand::NoConsumer => plain("waiting: its consumer does not exist; a running host creates it"),
        Stand::Forgotten { done: true, .. } => plain("done by a replay; the ledger does not keep the details any more"),
        Stand::Forgotten { was_its: true, .. } => plain("decided; the ledger does not keep the details any more"),
        Stand::Forgotten { .. } => plain(
            "decided, if it was delivered to this handler; the ledger does not keep the \
                                          details any more",
        ),
        Stand::Answered => plain("acknowledged; without a ledger it is not known when. It is not a dead letter"),
        Stand::Lost => plain("acknowledged and not decided: the next sweep of a host runs it again"),
        Stand::Unknown => plain("nothing is known: there is no decision, attempt or dead letter"),
        Stand::NotFound { decided: true } => plain(&format!("decided; when and how was not found: {LIMIT}")),
        Stand::NotFound { decided: false } => plain(&format!("not found whether it is decided: {LIMIT}")),
    }
}

fn plain(text: &str) -> (String, Vec<Node>) {
    (text.to_owned(), Vec::new())
}

fn done(decided: &TracedDecision) -> String {
    let TracedDecision { decision, entry, .. } = decided;
    let at = rfc3339(decided.at_ms);
    if let Some(first) = &decision.same_as {
        return format!("done at {at}, entry {entry}: a duplicate of event {first}, so it did not run");
    }
    let after = decision
        .follows_death
        .map_or_else(String::new, |n| format!(", by a replay after its death in entry {n}"));
    let (attempt, module) = (decision.attempt, &decision.module);
    format!("done at {at}{after}, entry {entry}, attempt {attempt}, module {module}")
}

/// What does not count any more.
fn before_reset(before: &BeforeReset) -> Node {
    let BeforeReset { decided, reset_ms } = before;
    let text = match decided.decision.verdict {
        DecisionKind::Done => done(decided),
        DecisionKind::Dead => {
            let (why, when) = died(decided);
            format!("{why}, {when}")
        }
    };
    Node::leaf(format!("before it was reset at {}: {text}", rfc3339(*reset_ms)))
}

fn writes(decided: &TracedDecision) -> Vec<Node> {
    decided.writes.iter().map(written).collect()
}

fn written(written: &WrittenKey) -> Node {
    let WrittenKey { write, writers } = written;
    let text = match (&write.value, write.bytes) {
        (Some(text), _) => format!("wrote {} = {}", write.key, text_of(text)),
        (None, Some(bytes)) => format!("wrote {} ({bytes} bytes, too many for the ledger)", write.key),
        (None, None) => format!("deleted {}", write.key),
    };
    Node::leaf(match writers {
        0 | 1 => text,
        _ => format!("{text}, the last of {writers} writes of it that were committed together"),
    })
}

/// What it died of comes first: a terminal may cut the rest.
fn dead(decided: Option<&TracedDecision>, letter: Option<&TracedLetter>, replay: bool) -> (String, Vec<Node>) {
    let (text, when) = match (decided, letter) {
        (Some(decided), _) => died(decided),
        (None, Some(letter)) if letter.settled.is_none() => (
            format!("dead: {}: {}: {}", letter.cause, letter.code, letter.error),
            format!("at {}", letter.since),
        ),
        (None, _) => ("dead".to_owned(), "of what is not known any more".to_owned()),
    };
    let about = match letter {
        None => "its dead letter is not there: not stored yet, or removed".to_owned(),
        Some(letter) => match &letter.settled {
            Some(why) => format!("its dead letter was resolved at {}: {why}", letter.since),
            None => format!("dead letter {}", letter.id),
        },
    };
    let asked = replay.then(|| "a replay was requested".to_owned());
    (text, [when, about].into_iter().chain(asked).map(Node::leaf).collect())
}

/// Of what, and when.
fn died(decided: &TracedDecision) -> (String, String) {
    let TracedDecision { decision, entry, .. } = decided;
    let cause = decision.cause.map_or("?", |cause| cause.name());
    let (code, error) = (decision.code.as_deref(), decision.message.as_deref());
    let (attempt, module) = (decision.attempt, &decision.module);
    (
        format!("dead: {cause}: {}: {}", code.unwrap_or("?"), error.unwrap_or("?")),
        format!(
            "at {}, entry {entry}, attempt {attempt}, module {module}",
            rfc3339(decided.at_ms)
        ),
    )
}

fn retrying(record: &AttemptRecord, max: u32) -> String {
    let (failed, running) = state(record);
    let error = failed.map_or_else(String::new, |f| format!(": {}: {}", f.code, f.message));
    let (attempts, next) = (record.attempts, next(record, now_ms()));
    match running {
        Some(_) => format!("{next}, attempt {attempts} of {max}; the one before failed{error}"),
        None => format!("attempt {attempts} of {max} failed, the next is {}{error}", due(&next)),
    }
}

fn due(next: &str) -> String {
    match next.strip_prefix("in ") {
        Some(_) => format!("due {next}"),
        None => next.to_owned(),
    }
}

fn edited(edit: &LetterEdit) -> Node {
    Node::leaf(format!("its payload was edited {}", edit.told()))
}

fn follow(follow: &Follow) -> Node {
    let mut node = emitted(follow);
    // Before what came of it.
    node.below.splice(0..0, follow.edits.iter().map(edited));
    node
}

fn emitted(follow: &Follow) -> Node {
    let subject = &follow.subject;
    let leaf = |text: &str| Node::leaf(format!("emitted {subject}: {text}"));
    match &follow.whereabouts {
        Whereabouts::Published { traced } => {
            let Node { text, below } = event(traced);
            Node {
                text: format!("emitted {text}"),
                below,
            }
        }
        Whereabouts::Delayed { due } => leaf(&format!("delayed until {due}")),
        Whereabouts::Due { due } => leaf(&format!("due since {due}, and not published yet")),
        Whereabouts::CalledOff { due } => leaf(&format!(
            "a timer for {due} that was cancelled or set again, or whose event was removed"
        )),
        Whereabouts::Cancelled { due, why } => leaf(&format!("delayed until {due}, and cancelled {why}")),
        Whereabouts::Undeliverable { letter } => leaf(&match &letter.settled {
            None => format!("not delivered: {}; dead letter {}", letter.error, letter.id),
            Some(why) => format!("not delivered; its dead letter was resolved at {}: {why}", letter.since),
        }),
        Whereabouts::Absent { stream, published } => leaf(&absent(stream.as_deref(), *published)),
        Whereabouts::NotFound => leaf(&format!("not found: {LIMIT}")),
    }
}

/// An event that its stream does not hold.
fn absent(stream: Option<&str>, published: bool) -> String {
    match (published, stream) {
        (false, _) => "not published yet, as far as the relay of its ledger has recorded".to_owned(),
        (true, Some(stream)) => format!("published; stream {stream} does not hold it any more"),
        (true, None) => {
            "published; where it is stored is not known, because no stream captures this subject now: its stream was removed"
                .to_owned()
        }
    }
}

fn text_of(text: &Text<'_>) -> String {
    text.bytes().map_or_else(|_| "?".to_owned(), |bytes| value(&bytes))
}
