//! The large bounds: `make chaos` searches them, some minutes long, and prints how many states each has.

use super::bounds::May;
use super::mistakes::forgotten;
use super::program::Program;
use super::search::{holds, with};

// Long: one line for each search, and what it must find.
#[test]
#[ignore = "minutes long: make chaos"]
fn large_bounds_hold() {
    holds(with("two events, a dead letter", |_| {}));
    holds(with("a dead letter, a crash", |bounds| bounds.may.crash = 1));
    holds(with("skew, a crash", |bounds| {
        bounds.programs = vec![Program::SkewFirst, Program::SkewSecond];
        (bounds.start, bounds.dead_letter) = ([Some(1), Some(1)], true);
        bounds.may.crash = 1;
    }));
    holds(with("order, lost answers", |bounds| {
        bounds.programs = vec![Program::Mix, Program::Add];
        bounds.may = May {
            lose_answer: 1,
            refuse: 1,
            ..May::default()
        };
    }));
    holds(with("a person puts", |bounds| {
        bounds.programs = vec![Program::Copy, Program::Take];
        (bounds.start, bounds.reads_apart, bounds.dead_letter) = ([Some(1), Some(1)], true, false);
        bounds.puts = vec![("b", 3), ("a", 4)];
    }));
    holds(with("a key that is forgotten", |bounds| {
        (bounds.hosts, bounds.deliveries, bounds.dead_letter) = (1, 2, false);
        bounds.programs = vec![Program::Copy, Program::Need, Program::Need];
        (bounds.start, bounds.puts) = ([Some(1), Some(1)], vec![("b", 2)]);
        bounds.may.fail = 2;
    }));
    holds(with("three events", |bounds| {
        bounds.programs = vec![Program::Take, Program::Add, Program::Mix];
        bounds.dead_letter = false;
    }));
    holds(with("reconnects, lost answers", |bounds| {
        bounds.programs = vec![Program::Add, Program::Need];
        (bounds.start, bounds.dead_letter) = ([Some(1), Some(1)], false);
        bounds.may = May {
            lose_answer: 1,
            disconnect: 1,
            ..May::default()
        };
    }));
    holds(with("a replay, a relay, a floor", |bounds| {
        bounds.programs = vec![Program::Take];
        (bounds.start, bounds.puts, bounds.relay) = ([None, None], vec![("a", 1)], true);
        bounds.may = May {
            replay: 2,
            floor: 2,
            collect: 1,
            ..May::default()
        };
    }));
    holds(with("a forgotten replay", |bounds| {
        bounds.programs = vec![Program::Need, Program::Add];
        forgotten(bounds);
    }));
    holds(with("a reconnect below a floor", |bounds| {
        bounds.programs = vec![Program::Need, Program::Need];
        bounds.start = [None, Some(1)];
        bounds.may = May {
            disconnect: 1,
            floor: 1,
            collect: 1,
            ..May::default()
        };
    }));
    holds(with("a relay, crashes, windows", |bounds| {
        (bounds.programs, bounds.relay) = (vec![Program::Add], true);
        bounds.may = May {
            crash: 2,
            window: 1,
            lose_answer: 1,
            ..May::default()
        };
    }));
    holds(with("a lost tail", |bounds| {
        bounds.programs = vec![Program::Mix, Program::Add];
        bounds.dead_letter = false;
        bounds.may.lose_tail = 1;
    }));
}
