//! Dead letters go back, at a pace, and it is waited for what becomes of each.
//!
//! The letters are sent in lists, and their fates are read from what hosts write to them. What is sent waits in `MESH_REPLAY`
//! and continues without this command. An interruption loses nothing, and the same command takes up the letters that are not
//! resolved.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, interval};

use super::course::{Course, Fate, Unheard, Whose};
use super::pace::{Pace, PaceLimits};
use super::watch::{Watch, fate};
use crate::broker::provision::DEAD;
use crate::broker::{By, Connection, Error};
use crate::event::{MESSAGE_ID, header_map};
use crate::failpoint;
use crate::mesh_streams::dead_letter::{self, Letter, REPLAYED};
use crate::mesh_streams::replay_queue::{self, LIST_MAX, LetterRef};

/// Answers that are awaited at a time.
const ASKS_MAX: usize = 256;
/// How often the pace is looked at, and the progress told.
const TICK: Duration = Duration::from_millis(20);
/// Between two ticks, a list is sent only if there is room for one letter to this number of undecided ones.
const WORTH_ASKING: usize = 8;
/// After this time without any fate, the command looks for the reason, and then again each time it has passed.
const QUIET: Duration = Duration::from_secs(5);
/// How many looks in a row must find that no host serves a handler: a host takes a while to restart.
const UNSERVED_LOOKS: u32 = 2;

/// Why a run of replays has come to its end.
#[derive(Debug)]
pub enum End {
    /// Everything is decided.
    Over,
    /// More have failed than may.
    TooManyFailures,
    Interrupted,
    /// No host serves this handler.
    Unserved(String),
    Broken(Error),
}

/// The progress, for the caller to show.
#[derive(Debug, Clone, Copy)]
pub struct ReplayStanding {
    pub since_start: Duration,
    /// Asked for and still waiting, for a host or between two attempts, as of the last look.
    pub waiting: usize,
}

/// Replays what a course has, from `watch` on, until everything that was asked for is decided, or `stop` completes.
/// `name`: the run's, which `watch` has as well. `served`: whether a host serves a handler. `seen` is called
/// several times a second.
pub async fn run(
    connection: &Connection,
    (name, watch): (&str, Watch),
    course: &mut Course,
    limits: PaceLimits,
    stop: impl Future<Output = ()>,
    served: impl AsyncFn(&str) -> Result<bool, Error>,
    mut seen: impl FnMut(&Course, ReplayStanding),
) -> End {
    let began = Instant::now();
    let mut run = ReplayRun {
        connection,
        name,
        began,
        course,
        pace: Pace::new(limits),
        asks: FuturesUnordered::new(),
        heard: began,
        waiting: 0,
        unserved: 0,
    };
    let written = stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) });
    let (mut written, mut stop) = (pin!(written), pin!(stop));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticked = true;
    loop {
        run.send(std::mem::take(&mut ticked));
        let counts = run.course.counts();
        if counts.out == 0 && (counts.untried == 0 || run.pace.must_stop()) {
            return match counts.untried {
                0 => End::Over,
                _ => End::TooManyFailures,
            };
        }
        let step = tokio::select! {
            biased;
            () = &mut stop => return End::Interrupted,
            () = connection.closed() => Err(Error::Gone { what: "replaying".to_owned() }),
            Some(written) = written.next() => written.map(|written| {
                let fate = run.course.written(&written.subject, written.sequence, written.fate);
                run.count(fate);
            }),
            Some(answer) = run.asks.next() => run.answered(answer),
            _ = ticks.tick() => {
                ticked = true;
                let since_start = began.elapsed();
                seen(run.course, ReplayStanding { since_start, waiting: run.waiting });
                match run.heard.elapsed() > QUIET {
                    false => Ok(()),
                    true => match run.look(&served).await {
                        Ok(None) => Ok(()),
                        Ok(Some(end)) => return end,
                        Err(error) => Err(error),
                    },
                }
            }
        };
        if let Err(error) = step {
            // What is on its way tells whether it has arrived; none of it waits for long.
            while let Some(answer) = run.asks.next().await {
                let _ = run.answered(answer);
            }
            return End::Broken(error);
        }
    }
}

/// Which letters were asked for. `Some`: the fate of one is known with the answer.
type AskedLetters = (Vec<usize>, Result<Option<(usize, Fate)>, Error>);
/// A letter as it is asked for: where it lies, and its sequence if it is meant only as it was read.
type LetterMeant = (String, Option<u64>);
type Ask = Pin<Box<dyn Future<Output = AskedLetters> + Send>>;

struct ReplayRun<'a> {
    connection: &'a Connection,
    name: &'a str,
    began: Instant,
    course: &'a mut Course,
    pace: Pace,
    asks: FuturesUnordered<Ask>,
    /// When a fate came last, or it was looked for one.
    heard: Instant,
    waiting: usize,
    /// How many looks in a row found that no host serves.
    unserved: u32,
}

impl ReplayRun<'_> {
    /// Asks for as many as may be now. `all`: also if they are few.
    fn send(&mut self, all: bool) {
        let now = self.began.elapsed();
        let out = self.course.counts().out;
        let mut room = self.pace.room(now, out);
        if !all && room * WORTH_ASKING < out {
            return;
        }
        while room > 0 && self.asks.len() < ASKS_MAX {
            let next = std::iter::from_fn(|| self.course.send(now));
            let ats: Vec<usize> = next.take(room.min(LIST_MAX)).collect();
            if ats.is_empty() {
                break;
            }
            room -= ats.len();
            self.pace.asked(ats.len());
            self.ask(&ats);
        }
    }

    fn ask(&mut self, ats: &[usize]) {
        // By handler. Where no ledger knows what is done, each letter is asked for by itself: twice does nothing then.
        let mut lists: BTreeMap<&str, (Vec<usize>, Vec<LetterMeant>)> = BTreeMap::new();
        let bound = self.course.is_bound();
        let mut asks = Vec::new();
        for &at in ats {
            let connection = self.connection.clone();
            let letter = self.course.letter(at);
            let (subject, run) = (letter.subject.clone(), self.name.to_owned());
            let kind = self.course.kind(at);
            if kind.is_undeliverable() {
                let again = async move { publish_again(&connection, &subject, &run).await };
                asks.push(
                    again
                        .map(move |fate| (vec![at], fate.map(|fate| Some((at, fate)))))
                        .boxed(),
                );
            } else if letter.in_ledger {
                let (ats, letters) = lists.entry(&kind.key.handler).or_default();
                ats.push(at);
                letters.push((subject, bound.then_some(letter.sequence)));
            } else {
                let handler = kind.key.handler.clone();
                let letter = (subject, bound.then_some(letter.sequence));
                asks.push(ask_for(connection, handler, (vec![at], vec![letter]), run).boxed());
            }
        }
        for (handler, letters) in lists {
            let (connection, run) = (self.connection.clone(), self.name.to_owned());
            asks.push(ask_for(connection, handler.to_owned(), letters, run).boxed());
        }
        self.asks.extend(asks);
    }

    fn answered(&mut self, (ats, answer): AskedLetters) -> Result<(), Error> {
        let known = answer.inspect_err(|error| {
            if is_refusal(error) {
                ats.iter().for_each(|&at| self.course.not_sent(at));
            }
        })?;
        let fate = known.and_then(|(at, fate)| self.course.learn(at, fate, Whose::Own));
        self.count(fate);
        Ok(())
    }

    fn count(&mut self, fate: Option<Fate>) {
        let Some(fate) = fate else { return };
        self.heard = Instant::now();
        self.unserved = 0;
        let now = self.began.elapsed();
        match fate {
            Fate::Succeeded => self.pace.decided(true, now),
            Fate::Failed { .. } | Fate::Silent => self.pace.decided(false, now),
            Fate::Gone => {}
        }
    }

    /// Nothing was heard for a while: why?
    async fn look(&mut self, served: &impl AsyncFn(&str) -> Result<bool, Error>) -> Result<Option<End>, Error> {
        self.heard = Instant::now();
        let Some(long_ago) = self.began.elapsed().checked_sub(QUIET) else {
            return Ok(None);
        };
        let out = self.course.out_since(long_ago);
        let handlers: BTreeSet<String> = out.iter().map(|at| self.course.kind(*at).key.handler.clone()).collect();
        let mut waits = HashSet::new();
        let mut unserved = None;
        for handler in handlers {
            waits.extend(replay_queue::waiting(self.connection, &handler).await?);
            if unserved.is_none() && !served(&handler).await? {
                unserved = Some(handler);
            }
        }
        self.waiting = 0;
        for at in out {
            let letter = self.course.letter(at);
            if waits.contains(letter.id()) {
                self.waiting += 1;
                continue;
            }
            let subject = letter.subject.clone();
            let Some(stored) = self.connection.stored(DEAD, By::Last(&subject)).await? else {
                let fate = self.course.learn(at, Fate::Gone, Whose::Another);
                self.count(fate);
                continue;
            };
            let found = match stored.headers() {
                Ok(headers) => fate(&headers, self.name),
                Err(_) => Some((Fate::Silent, Whose::Own)),
            };
            let found = found.and_then(|found| self.course.written(&subject, stored.sequence, found));
            if found.is_some() {
                self.count(found);
                continue;
            }
            match self.course.unheard(at) {
                Unheard::AskAgain => self.ask(&[at]),
                Unheard::Wait => {}
                Unheard::GiveUp => {
                    let fate = self.course.learn(at, Fate::Silent, Whose::Own);
                    self.count(fate);
                }
            }
        }
        let Some(handler) = unserved else {
            self.unserved = 0;
            return Ok(None);
        };
        self.unserved += 1;
        Ok((self.unserved >= UNSERVED_LOOKS).then_some(End::Unserved(handler)))
    }
}

async fn ask_for(
    connection: Connection,
    handler: String,
    (ats, letters): (Vec<usize>, Vec<LetterMeant>),
    run: String,
) -> AskedLetters {
    let refs = letters.iter().map(|(subject, sequence)| LetterRef {
        subject,
        sequence: *sequence,
    });
    let letters: Vec<LetterRef<'_>> = refs.collect();
    let asked = replay_queue::ask_for(&connection, &handler, &letters, &run).await;
    failpoint::point("replays-asked");
    (ats, asked.map(|()| None))
}

/// Whether nothing of what was published is stored, for certain.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Api { .. } | Error::Refused(_) | Error::Denied { .. } | Error::NoResponders { .. } | Error::NoApi { .. }
    )
}

/// An emitted event that no stream took: it goes where it was meant to go, under its own id.
async fn publish_again(connection: &Connection, letter: &str, run: &str) -> Result<Fate, Error> {
    let Some(letter) = dead_letter::read(connection, letter).await? else {
        return Ok(Fate::Gone);
    };
    let failed = |error: String| Fate::Failed {
        code: letter.header(dead_letter::CODE).to_owned(),
        error,
    };
    match publish(connection, &letter).await {
        Ok(()) => {}
        // It is refused, now as before.
        Err(error) if is_refusal(&error) || matches!(error, Error::Answer { .. }) => {
            return Ok(failed(error.to_string()));
        }
        Err(error) => return Err(error),
    }
    let settled = dead_letter::settle(connection, &letter.subject, REPLAYED, Some(run), letter.is_in_parts()).await;
    match settled {
        Ok(()) => Ok(Fate::Succeeded),
        Err(error) if is_refusal(&error) => Ok(failed(format!(
            "it is published, and its letter cannot be settled: {error}"
        ))),
        Err(error) => Err(error),
    }
}

async fn publish(connection: &Connection, letter: &Letter) -> Result<(), Error> {
    let subject = letter.header(dead_letter::SUBJECT);
    let mut map = header_map(&dead_letter::originals(&letter.headers)).map_err(|why| Error::Answer {
        what: subject.to_owned(),
        why,
    })?;
    map.insert(MESSAGE_ID, letter.header(dead_letter::EVENT));
    let payload = letter.payload.clone();
    connection.publish(subject, map, payload).await.map(|_| ())
}
