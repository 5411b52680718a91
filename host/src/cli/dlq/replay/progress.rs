//! One line on a terminal that says how far it is; nothing anywhere else.

use std::io::{Write as _, stderr};
use std::time::{Duration, Instant};

use rustix::termios::{isatty, tcgetwinsize};

use crate::cli::table::cut;
use crate::dlq::course::Counts;
use crate::dlq::replay::ReplayStanding;

const EVERY: Duration = Duration::from_millis(100);
const BAR: usize = 24;

#[derive(Default)]
pub struct Progress {
    shown: Option<Instant>,
}

impl Progress {
    pub fn show(&mut self, all: usize, counts: Counts, standing: ReplayStanding) {
        if self.shown.is_some_and(|at| at.elapsed() < EVERY) || !isatty(stderr()) {
            return;
        }
        self.shown = Some(Instant::now());
        let columns = tcgetwinsize(stderr()).map_or(80, |size| usize::from(size.ws_col).max(20));
        let line = cut(&line(all, counts, standing), columns - 1);
        // A terminal that was closed is no reason to stop.
        let _ = write!(stderr(), "\r{line}\x1b[K").and_then(|()| stderr().flush());
    }

    /// Leaves an empty line.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(stderr(), "\r\x1b[K").and_then(|()| stderr().flush());
        }
    }
}

fn line(all: usize, counts: Counts, standing: ReplayStanding) -> String {
    let decided = all - counts.untried - counts.out;
    let full = decided * BAR / all.max(1);
    let mut text = format!("[{:-<BAR$}] {decided} of {all}", "#".repeat(full));
    let failed = counts.failed_in_all();
    if failed > 0 {
        text += &format!(", {failed} failed again");
    }
    let seconds = standing.since_start.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts of letters are far below 2^52")]
    let (done, left) = (decided as f64, (all - decided) as f64);
    if seconds >= 1.0 && decided > 0 {
        let rate = done / seconds;
        text += &format!(
            ", {rate:.0}/s, {} left",
            humantime::format_duration(Duration::from_secs((left / rate).ceil() as u64))
        );
    }
    if standing.waiting > 0 {
        text += &format!(", {} waiting", standing.waiting);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is_and_how_long_it_takes() {
        let counts = Counts {
            succeeded: 4_990,
            failed: 10,
            out: 1_000,
            untried: 4_000,
            ..Counts::default()
        };
        let standing = |seconds, waiting| ReplayStanding {
            since_start: Duration::from_secs(seconds),
            waiting,
        };
        let lines = [
            line(
                10_000,
                Counts {
                    untried: 10_000,
                    ..Counts::default()
                },
                standing(0, 0),
            ),
            line(10_000, counts, standing(2, 0)),
            line(10_000, counts, standing(60, 7)),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        [------------------------] 0 of 10000
        [############------------] 5000 of 10000, 10 failed again, 2500/s, 2s left
        [############------------] 5000 of 10000, 10 failed again, 83/s, 1m left, 7 waiting
        ");
    }
}
