//! A list of dead letters to be replayed: read together, run each for itself, answered together. If one of them is to be
//! tried again the list comes again, and those that are settled are left out.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};

use super::{LetterAsked, of_letter, run};
use crate::event::EventId;
use crate::handler_task::lane::Lane;
use crate::handler_task::links::Link;
use crate::handler_task::settle::{Acker, Answers, Settlement};
use crate::mesh_streams::dead_letter;
use crate::mesh_streams::replay_queue::{self, LIST_MAX, LetterRef};
use crate::trouble::Weight;

/// Letters of one list that are read one by one at a time, when they could not be read together: they may be large.
const READ_ALONE_MAX: usize = 8;

/// Handles a list; `name`: its own.
pub async fn take(
    lane: &Lane,
    link: &Link,
    (name, list): (&str, &[u8]),
    asked_by: Option<String>,
    acker: Acker,
    delivered: u64,
) {
    let _lease = lane.in_flight.hold(&acker.reply);
    let mut known = lane.lists.settled().get(name).cloned().unwrap_or_default();
    let letters: Vec<(EventId, LetterRef<'_>)> = replay_queue::letters(list)
        .filter_map(|letter| Some((event_of(&lane.plan.name, letter.subject)?, letter)))
        .filter(|(event, _)| known.insert(event.clone()))
        .collect();
    let answers = Arc::new(Answers::default());
    for some in letters.chunks(LIST_MAX) {
        let one_of = |event: &EventId| acker.one_of(event, &answers);
        work_on(lane, link, some, one_of, asked_by.as_ref(), delivered).await;
    }
    let told = answers.take();
    let settlement = told.settlement(letters.len(), lane.drain.has_begun());
    if settlement == Settlement::Ack {
        lane.lists.settled().remove(name);
    } else {
        lane.lists.remember(name, told.settled);
    }
    acker.settle(&lane.links, &settlement).await;
}

async fn work_on(
    lane: &Lane,
    link: &Link,
    letters: &[(EventId, LetterRef<'_>)],
    one_of: impl Fn(&EventId) -> Acker,
    asked_by: Option<&String>,
    delivered: u64,
) {
    let places = u32::try_from(letters.len()).unwrap_or(u32::MAX);
    let places = tokio::select! {
        biased;
        () = lane.drain.begun() => return,
        places = lane.lists.room.acquire_many(places) => places,
    };
    let Ok(mut places) = places else { return };
    // What a replica has, at first: if that is wrong, the commit is refused and the replay delivered again.
    let glances = delivered == 1 && letters.iter().all(|(_, letter)| letter.sequence.is_none());
    let mut glanced = match glances {
        true => {
            let subjects: Vec<(EventId, &str)> = letters.iter().map(|(event, l)| (event.clone(), l.subject)).collect();
            dead_letter::glance_all(&link.connection, &subjects).await
        }
        false => HashMap::new(),
    };
    let (together, mut alone) = (FuturesUnordered::new(), Vec::new());
    for (event, letter) in letters {
        let (acker, glanced, place) = (one_of(event), glanced.remove(event), places.split(1));
        let read = glanced.is_some();
        let work = async move {
            let asked = LetterAsked {
                handler: &lane.plan.name,
                event,
                letter: *letter,
                by: asked_by.cloned(),
                delivered,
            };
            let found = of_letter(lane.bucket.as_ref(), link, asked, glanced).await;
            run(lane, event, found, acker, delivered).await;
            drop(place);
        };
        match read {
            true => together.push(work),
            false => alone.push(work),
        }
    }
    let alone = stream::iter(alone).buffer_unordered(READ_ALONE_MAX);
    let ((), ()) = tokio::join!(together.collect(), alone.collect());
}

/// The event of a letter of this handler.
fn event_of(handler: &str, letter: &str) -> Option<EventId> {
    let id = dead_letter::id_of(letter).strip_prefix(handler);
    let event = id.and_then(|id| EventId::parse(id.strip_prefix('.')?));
    if event.is_none() {
        trouble!(Weight::Aside, handler, "", { %handler, letter },
            "what is no letter of this handler is left out of a replay");
    }
    event
}
