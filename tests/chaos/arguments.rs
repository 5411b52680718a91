//! What the run is asked for.

use std::env;

pub const USAGE: &str = "\
The kill matrix, and the soak. Without arguments: a slice of the matrix, and a slice of the planted mistakes.
  --rounds N      play N rounds, a seed's rounds one after another, then the next seed's
  --seed S        begin with this seed (1)
  --round R       play only this round of the seed
  --point TEXT    play only rounds whose point has this in its name: redrive, outbox-stored, or \"log of PostgreSQL\"
  --mistake NAME  plant this mistake; the auditor must find it within the rounds that are stated for it
  --mistakes      plant every mistake, one after another
  --jobs J        rounds at a time (6)
  --soak MINUTES  play no rounds, but let one mesh work for so long with all troubles at once: three handlers with ledgers
                  and one without, 30 orders a second, malformed messages among them, a target that is full, one that is
                  removed and made again, streams of the mesh that are removed, a module that is replaced each minute, a
                  host that is killed every two minutes beside one that goes on. Then all is audited by event and handler.
                  From ten minutes on the memory of the host that goes on, and that of the server, must not grow";

#[derive(Debug, Clone)]
pub struct Arguments {
    pub rounds: usize,
    pub seed: u64,
    pub round: Option<usize>,
    /// The name of the point has this.
    pub point: String,
    pub mistake: Option<String>,
    pub mistakes: bool,
    pub jobs: usize,
    /// Minutes.
    pub soak: Option<u64>,
}

/// `Ok(None)`: a test runner asks for tests of other names.
pub fn read() -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        rounds: 0,
        seed: 1,
        round: None,
        point: String::new(),
        mistake: None,
        mistakes: false,
        jobs: 6,
        soak: None,
    };
    let mut given = env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{name} needs a value\n{USAGE}"));
        let number = |text: String| {
            text.parse::<u64>()
                .map_err(|_| format!("{text} is not a number\n{USAGE}"))
        };
        match name.as_str() {
            "--rounds" => arguments.rounds = usize::try_from(number(value()?)?).unwrap_or(usize::MAX),
            "--seed" => arguments.seed = number(value()?)?,
            "--round" => arguments.round = Some(usize::try_from(number(value()?)?).unwrap_or(usize::MAX)),
            "--point" => arguments.point = value()?,
            "--mistake" => arguments.mistake = Some(value()?),
            "--mistakes" => arguments.mistakes = true,
            "--jobs" => arguments.jobs = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--soak" => arguments.soak = Some(number(value()?)?.max(1)),
            // A listing of the tests by name has none of this one.
            "--list" => return Ok(None),
            "--help" => return Err(USAGE.to_owned()),
            // What `cargo test` hands to every test program.
            "--nocapture" | "--no-capture" | "--quiet" | "-q" | "--include-ignored" | "--exact" => {}
            "--test-threads" | "--format" | "--skip" => drop(value()?),
            name if name.starts_with("--test-threads=") || name.starts_with("--format=") => {}
            name if name.starts_with('-') => return Err(format!("{name} is not known\n{USAGE}")),
            filter if "chaos".contains(filter) => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(arguments))
}
