//! The output of a run: a line for each round, and all that is known when one has failed.

use std::fs;
use std::path::Path;

use crate::mistakes::Mistake;
use crate::round::Round;
use crate::stage::Played;

/// So much of the hosts' logs is printed with a failure; all of them are in a file.
const LINES: usize = 120;

/// How a round went; `None`: it could not be played to its end, and why is printed already.
pub fn round(number: usize, of: usize, round: &Round, played: Option<&Played>) {
    let Some(played) = played else {
        eprintln!("{number}/{of} {round}: FAILED before its end; {}", again(round));
        return;
    };
    let hit = match (played.hit, played.in_flight) {
        (true, true) => "",
        (true, false) => ", hit with nothing under way",
        (false, _) => ", not hit",
    };
    let verdict = if played.problems.is_empty() { "well" } else { "FAILED" };
    eprintln!(
        "{number}/{of} {round}: {verdict}{hit}, {:.1} s",
        played.took.as_secs_f64()
    );
    if played.problems.is_empty() {
        return;
    }
    for problem in played.problems.iter().take(40) {
        eprintln!("    {problem}");
    }
    if played.problems.len() > 40 {
        eprintln!("    and {} more", played.problems.len() - 40);
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}-{}.log", round.seed, round.cell));
    let problems = played.problems.join("\n");
    let written = fs::write(&file, format!("{round}\n{problems}\n{}", played.logs));
    let lines: Vec<&str> = played.logs.lines().collect();
    eprintln!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
    match written {
        Ok(()) => eprintln!("all logs: {}", file.display()),
        Err(error) => eprintln!("{}: {error}", file.display()),
    }
    eprintln!("{}", again(round));
}

fn again(round: &Round) -> String {
    format!(
        "again: cargo test --features failpoints -p jetmesh --test chaos -- --seed {} --round {}",
        round.seed, round.cell
    )
}

/// Whether a planted mistake was found: in which round, and by what.
pub fn mistake(mistake: &Mistake, found: Option<&(usize, String)>) {
    let (name, within) = (mistake.name, mistake.within);
    match found {
        Some((number, what)) => eprintln!("mistake {name}: found in round {number} of at most {within}: {what}"),
        None => eprintln!("mistake {name}: NOT FOUND within {within} rounds"),
    }
}
