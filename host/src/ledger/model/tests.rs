//! The small bounds, in every test run: they hold. The property test takes one long way through far larger ones.

use proptest::prelude::*;

use super::bounds::{Bounds, May, bounds};
use super::program::Program;
use super::search::{holds, with};
use super::world::World;

/// Two hosts and two events, delivered once each; nothing goes wrong.
fn two(name: &'static str, programs: [Program; 2], start: [u8; 2], change: impl FnOnce(&mut Bounds)) -> Bounds {
    with(name, |bounds| {
        bounds.programs = programs.to_vec();
        bounds.start = start.map(Some);
        bounds.dead_letter = false;
        change(bounds);
    })
}

/// One host and one event of this program.
fn one(name: &'static str, program: Program, change: impl FnOnce(&mut Bounds)) -> Bounds {
    with(name, |bounds| {
        (bounds.programs, bounds.hosts) = (vec![program], 1);
        change(bounds);
    })
}

#[test]
fn two_hosts_that_take_the_last_one_take_it_once() {
    holds(two("two takers", [Program::Take, Program::Take], [1, 0], |_| {}));
}

#[test]
fn there_is_no_write_skew() {
    holds(two("skew", [Program::SkewFirst, Program::SkewSecond], [1, 1], |_| {}));
}

#[test]
fn a_dead_letter_and_a_slow_attempt_meet_at_the_head() {
    holds(with("a dead letter", |bounds| {
        bounds.programs = vec![Program::Take];
        bounds.deliveries = 2;
        bounds.may = May {
            fail: 1,
            lose_ack: 1,
            ..May::default()
        };
    }));
}

#[test]
fn a_crash_and_a_lost_answer_do_no_harm() {
    holds(with("crash", |bounds| {
        bounds.programs = vec![Program::Add];
        bounds.may = May {
            crash: 1,
            lose_answer: 1,
            ..May::default()
        };
    }));
}

#[test]
fn a_reconnect_does_no_harm() {
    holds(two("reconnect", [Program::Add, Program::Need], [1, 1], |bounds| {
        bounds.hosts = 1;
        bounds.may = May {
            lose_answer: 1,
            disconnect: 1,
            ..May::default()
        };
    }));
}

#[test]
fn what_a_person_puts_is_a_transaction_of_its_own() {
    holds(two("puts", [Program::Copy, Program::Take], [1, 1], |bounds| {
        bounds.hosts = 1;
        bounds.reads_apart = true;
        bounds.puts = vec![("b", 3), ("a", 4)];
    }));
}

#[test]
fn a_key_that_was_never_read_is_written_and_deleted() {
    holds(two("blind", [Program::Blind(7), Program::Clear], [1, 1], |bounds| {
        bounds.hosts = 1;
        bounds.puts = vec![("a", 3)];
    }));
}

#[test]
fn every_consequence_is_carried_out_once() {
    holds(one("relay", Program::Add, |bounds| {
        bounds.hosts = 2;
        bounds.dead_letter = false;
        bounds.relay = true;
        bounds.may = May {
            window: 1,
            ..May::default()
        };
    }));
    holds(one("relay that ends", Program::Add, |bounds| {
        bounds.relay = true;
        bounds.may = May {
            crash: 2,
            window: 1,
            ..May::default()
        };
    }));
}

#[test]
fn a_replay_is_done_after_its_own_death_only() {
    holds(one("replay", Program::Take, |bounds| {
        bounds.start = [None, None];
        bounds.puts = vec![("a", 1)];
        bounds.relay = true;
        bounds.may = May {
            replay: 2,
            floor: 1,
            ..May::default()
        };
    }));
}

#[test]
fn what_a_floor_covers_can_be_collected() {
    holds(two("collection", [Program::Need, Program::Need], [0, 1], |bounds| {
        bounds.hosts = 1;
        bounds.may = May {
            lose_answer: 1,
            floor: 1,
            collect: 1,
            ..May::default()
        };
    }));
}

#[test]
fn a_lost_tail_is_run_again() {
    holds(two("lost tail", [Program::Add, Program::Mix], [1, 1], |bounds| {
        bounds.hosts = 1;
        bounds.may = May {
            lose_tail: 1,
            ..May::default()
        };
    }));
}

#[test]
fn patience_that_ends_does_no_harm() {
    holds(one("patience", Program::Add, |bounds| {
        bounds.deliveries = 2;
        bounds.may = May {
            lose_answer: 1,
            refuse: 1,
            give_up: 1,
            disconnect: 1,
            ..May::default()
        };
    }));
}

/// Far beyond what can be searched: two hosts, six events, everything may go wrong.
fn wide() -> Bounds {
    let mut bounds = bounds("wide");
    bounds.programs = vec![
        Program::Take,
        Program::Mix,
        Program::SkewFirst,
        Program::SkewSecond,
        Program::Copy,
        Program::Clear,
    ];
    bounds.start = [Some(2), Some(1)];
    (bounds.deliveries, bounds.reads_apart, bounds.relay) = (3, true, true);
    bounds.puts = vec![("b", 2), ("a", 3), ("b", 0)];
    let (crash, disconnect, lose_answer, refuse, give_up) = (2, 2, 3, 2, 1);
    let (fail, lose_ack, replay, window, floor, collect, lose_tail) = (3, 2, 2, 2, 2, 2, 0);
    bounds.may = May {
        crash,
        disconnect,
        lose_answer,
        refuse,
        give_up,
        fail,
        lose_ack,
        replay,
        window,
        floor,
        collect,
        lose_tail,
    };
    bounds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_interleaving_equals_a_serial_order(choices in prop::collection::vec(any::<u16>(), 1..160), small in any::<bool>()) {
        let mut bounds = wide();
        if small {
            // Groups of few, and hardly a key at hand.
            (bounds.payload_max, bounds.cache_bytes) = (4096, 0);
        }
        let mut world = World::new(&bounds);
        let mut gone = Vec::new();
        for choice in choices {
            let mut steps = Vec::new();
            world.steps(&bounds, &mut steps);
            let Some(step) = steps.get(usize::from(choice) % steps.len().max(1)) else { break };
            world = world.after(&bounds, *step);
            gone.push(*step);
            prop_assert!(world.broken.is_none(), "{:?} after {gone:?}", world.broken);
        }
    }
}

/// Two hosts run one replay of a death that a floor covers on one of them; the slower one finds that it is done.
#[test]
fn a_replay_below_a_floor_is_done_once() {
    holds(one("replay below a floor", Program::Need, |bounds| {
        (bounds.hosts, bounds.dead_letter) = (2, false);
        (bounds.start, bounds.relay) = ([None, Some(1)], true);
        bounds.may = May {
            fail: 1,
            replay: 1,
            floor: 1,
            ..May::default()
        };
    }));
}
