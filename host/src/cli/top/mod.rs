//! `jetmesh top`: what `jetmesh status` tells, and how fast it goes, live on a terminal.

mod alone;
mod rates;
mod terminal;
mod view;
#[cfg(test)]
mod view_tests;

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use self::rates::MeshRates;
use self::terminal::{Terminal, TypedKey};
use self::view::{Choice, TopView, page};
use super::stop::{INTERRUPTED, Stop};
use super::{Args, Error, OK};
use crate::broker::{self, Connection};
use crate::event::clock::now_ms;
use crate::micro;
use crate::plan::Plan;
use crate::report::sample::Sample;
use crate::report::status::json::MeshStatus;
use crate::report::status::look_over;
use crate::text::secret;

/// How often the keys are looked at.
const KEYS_EVERY: Duration = Duration::from_millis(50);
/// How often the hosts are asked for their counters.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How often NATS is asked for all else: that reads more.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// What is older is told as such: a host may take a while to answer.
const STALE_AFTER: Duration = Duration::from_secs(6);
/// Handlers that a page goes up or down.
const PAGE: isize = 10;

/// Show the handlers live on a terminal: rates, times, what waits, and what is wrong
///
/// Keys: up and down choose a handler, Enter shows all of it, s sorts by another column, q quits. Where there is no terminal,
/// `jetmesh status --watch` tells how the mesh stands.
#[derive(Debug, clap::Args)]
pub struct Top {}

pub async fn run(args: &Args, stop: &Stop) -> Result<u8, Error> {
    let plan = args.look()?.plan;
    let connection = broker::open_guarded(&plan.nats, "jetmesh top").await?;
    let mut status = look_over(&connection, &plan).await;
    let (mut rates, mut trouble) = (MeshRates::default(), None);
    let failed = |error: std::io::Error| Error::Failed(format!("the terminal: {error}"));
    let Some(terminal) = Terminal::take().map_err(failed)? else {
        return Err(Error::Usage(
            "top needs a terminal as its input and output; `jetmesh status --watch` needs none".to_owned(),
        ));
    };
    stop.heed();
    let (mut choice, mut shown) = (Choice::default(), Vec::new());
    let mut ticks = interval(KEYS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked, mut heard, mut cut_off) = (Instant::now(), Instant::now(), false);
    let mut asking = Box::pin(ask(&plan, Some(connection), Duration::ZERO, false));
    loop {
        tokio::select! {
            () = stop.asked() => return Ok(stop.code().unwrap_or(OK)),
            (connection, news) = &mut asking => {
                match news {
                    Ok(news) => {
                        rates.take(&news.sample);
                        let tells = |status: &MeshStatus| status.handlers.iter().any(|one| one.pending.is_some());
                        if news.sample.unknown.is_none() || news.status.as_ref().is_some_and(tells) {
                            (heard, cut_off) = (Instant::now(), false);
                        }
                        if let Some(whole) = news.status {
                            (status, looked) = (whole, Instant::now());
                        }
                        trouble = news.sample.unknown;
                    }
                    Err(error) => {
                        trouble = Some(secret::hide(&error.to_string()));
                        cut_off = true;
                    }
                }
                let whole = looked.elapsed() + SAMPLE_EVERY >= LOOK_EVERY;
                asking = Box::pin(ask(&plan, connection, SAMPLE_EVERY, whole));
            }
            _ = ticks.tick() => {}
        }
        let age = heard.elapsed();
        let seen = TopView {
            status: &status,
            rates: &rates,
            stale_ms: (cut_off || age > STALE_AFTER).then_some(age.as_millis() as u64),
            trouble: trouble.as_deref(),
            now_ms: now_ms(),
        };
        let lines = page(&seen, &choice, terminal.size());
        if lines != shown {
            terminal.show(&lines).map_err(failed)?;
            shown = lines;
        }
        for key in terminal
            .keys()
            .map_err(failed)?
            .unwrap_or_else(|| vec![TypedKey::Character('q')])
        {
            if let Some(code) = obey(key, &mut choice, &seen) {
                return Ok(code);
            }
        }
    }
}

/// Does what a person has typed. Returns the exit code if that is to end.
fn obey(key: TypedKey, choice: &mut Choice, seen: &TopView<'_>) -> Option<u8> {
    match key {
        TypedKey::Character('q') => return Some(OK),
        TypedKey::Interrupt => return Some(INTERRUPTED),
        TypedKey::Character('s') => choice.sort = choice.sort.next(),
        TypedKey::Up | TypedKey::Character('k') => choice.step(seen, -1),
        TypedKey::Down | TypedKey::Character('j') => choice.step(seen, 1),
        TypedKey::PageUp => choice.step(seen, -PAGE),
        TypedKey::PageDown => choice.step(seen, PAGE),
        TypedKey::Enter => {
            choice.step(seen, 0);
            choice.alone = true;
        }
        TypedKey::Escape => choice.alone = false,
        TypedKey::Character(_) => {}
    }
    None
}

/// What has come from the hosts and from NATS.
struct News {
    sample: Sample,
    /// `None`: it was not asked for.
    status: Option<MeshStatus>,
}

/// Asks once, after a pause. Returns the connection for the next time; one that is closed is replaced.
async fn ask(
    plan: &Plan,
    connection: Option<Connection>,
    pause: Duration,
    whole: bool,
) -> (Option<Connection>, Result<News, broker::Error>) {
    tokio::time::sleep(pause).await;
    let connection = match connection.filter(|connection| !connection.is_closed()) {
        Some(connection) => connection,
        None => match broker::open_guarded(&plan.nats, "jetmesh top").await {
            Ok(connection) => connection,
            Err(error) => return (None, Err(error)),
        },
    };
    let sample = Sample::of(micro::hosts(&connection, &plan.mesh).await);
    let status = match whole {
        true => Some(look_over(&connection, plan).await),
        false => None,
    };
    (Some(connection), Ok(News { sample, status }))
}
