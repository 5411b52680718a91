//! Many rounds, some at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::arguments::Arguments;
use crate::mistakes::{MISTAKES, Mistake};
use crate::points::{POINTS, Point};
use crate::report;
use crate::round::{CELLS, Round, WAYS};
use crate::stage::{Played, play};
use crate::support::skipped;

/// How many rounds `make test` plays: about a minute of them.
const SLICE: usize = 12;

/// `false`: something is wrong, and it has been said.
pub async fn run(arguments: &Arguments) -> bool {
    if let Some(name) = &arguments.mistake {
        let known = MISTAKES.iter().find(|mistake| mistake.name == name);
        let Some(mistake) = known else {
            eprintln!("there is no mistake {name}");
            return false;
        };
        return find(mistake, arguments).await;
    }
    let named = |point: &Point| point.to_string().contains(&arguments.point);
    if !POINTS.iter().any(named) {
        eprintln!("no point has {} in its name", arguments.point);
        return false;
    }
    let slice = arguments.rounds == 0 && arguments.round.is_none() && !arguments.mistakes;
    let rounds: Vec<(u64, usize)> = match (arguments.round, slice) {
        (Some(round), _) => vec![(arguments.seed, round)],
        (None, true) => chosen(arguments.seed, SLICE, |_| true),
        (None, false) => chosen(arguments.seed, arguments.rounds, |round| named(&round.point)),
    };
    let (rounds, left_out): (Vec<_>, Vec<_>) =
        (rounds.into_iter()).partition(|(seed, cell)| Round::new(*seed, *cell).point.work.is_possible());
    if !left_out.is_empty() {
        let count = left_out.len();
        skipped(&format!(
            "{count} rounds: there is no PostgreSQL (initdb, postgres); tools/install.sh postgres brings it"
        ));
    }
    let mut good = clean(&rounds, arguments.jobs).await;
    for mistake in &MISTAKES {
        if arguments.mistakes || (slice && mistake.quick) {
            good &= find(mistake, arguments).await;
        }
    }
    good
}

/// The first rounds from a seed on that are wanted.
fn chosen(seed: u64, count: usize, wanted: impl Fn(&Round) -> bool) -> Vec<(u64, usize)> {
    let all = (0..).map(|i: usize| (seed + (i / CELLS) as u64, i % CELLS));
    let all = all.filter(|(seed, cell)| wanted(&Round::new(*seed, *cell)));
    all.take(count).collect()
}

/// Rounds without a mistake: none may have a problem, and each point that a seed has tried in all ways must be hit while events are
/// under way.
async fn clean(rounds: &[(u64, usize)], jobs: usize) -> bool {
    let (mut good, mut last) = (true, 0);
    // By seed and point: how often it was tried, and hit while events were under way.
    let mut hits: BTreeMap<(u64, usize), (usize, usize)> = BTreeMap::new();
    several(rounds, None, jobs, |number, round, played| {
        last = number;
        report::round(number, rounds.len(), round, played.as_ref());
        let (tried, hit) = hits.entry((round.seed, round.cell % POINTS.len())).or_default();
        *tried += 1;
        match played {
            Some(played) => {
                good &= played.problems.is_empty();
                *hit += usize::from(played.hit && played.in_flight);
            }
            None => good = false,
        }
        true
    })
    .await;
    for ((seed, point), (tried, hits)) in hits {
        if hits == 0 && tried == WAYS {
            let point = POINTS[point];
            eprintln!("seed {seed}: {point} was never hit while events were under way");
            good = false;
        }
    }
    eprintln!("{last} rounds played{}", if good { ", and all is well" } else { "" });
    good
}

/// A planted mistake must be found.
async fn find(mistake: &Mistake, arguments: &Arguments) -> bool {
    let rounds = match arguments.round {
        Some(round) => vec![(arguments.seed, round)],
        None => chosen(arguments.seed, mistake.within, |round| {
            mistake.shows_in(round) && round.point.work.is_possible()
        }),
    };
    let mut found = None;
    let mut unplayed = None;
    several(&rounds, Some(mistake.name), arguments.jobs, |number, round, played| {
        let problem = match &played {
            Some(played) => played.problems.first().cloned(),
            None => Some("the round could not be played to its end".to_owned()),
        };
        if arguments.mistake.is_some() {
            report::round(number, rounds.len(), round, played.as_ref());
        }
        if let (Some(problem), None) = (problem, &found) {
            found = Some((number, format!("{round}: {problem}")));
            unplayed = played.is_none().then_some((round.seed, round.cell));
        }
        found.is_none()
    })
    .await;
    if let Some(round) = unplayed {
        // It says something of the mistake only if the same round can be played without it.
        several(&[round], None, 1, |_, _, played| {
            if played.is_none() {
                found = None;
            }
            false
        })
        .await;
    }
    report::mistake(mistake, found.as_ref());
    found.is_some_and(|(number, _)| number <= mistake.within)
}

/// Plays rounds, `jobs` at a time, and tells of each as it ends: how many have ended, and how it went; `None`: it could
/// not be played to its end. `told` says whether more are wanted.
async fn several(
    rounds: &[(u64, usize)],
    mistake: Option<&'static str>,
    jobs: usize,
    mut told: impl FnMut(usize, &Round, Option<Played>) -> bool,
) {
    let mut playing = JoinSet::new();
    let mut names = BTreeMap::new();
    let mut left = rounds.iter();
    let mut ended = 0;
    loop {
        while playing.len() < jobs
            && let Some((seed, cell)) = left.next()
        {
            let round = Arc::new(Round::new(*seed, *cell));
            let played = Arc::clone(&round);
            let task = playing.spawn_local(async move { play(&played, mistake).await });
            names.insert(task.id(), round);
        }
        let Some(played) = playing.join_next_with_id().await else {
            return;
        };
        let (id, played) = match played {
            Ok((id, played)) => (id, Some(played)),
            // What it panicked with is printed already.
            Err(error) => (error.id(), None),
        };
        ended += 1;
        if !told(ended, &names[&id], played) {
            return;
        }
    }
}
