//! Each mistake that can be planted is found, within bounds that are just large enough.

use super::bounds::{Bounds, May};
use super::program::Program;
use super::search::{found, with};
use crate::failpoint::mistake::Mistake;

/// A replay is asked for twice, and between the two everything of the first is forgotten but the death's record.
pub fn forgotten(bounds: &mut Bounds) {
    (bounds.hosts, bounds.dead_letter, bounds.relay) = (1, false, true);
    bounds.start = [None, Some(1)];
    bounds.may = May {
        fail: 1,
        replay: 2,
        floor: 1,
        disconnect: 1,
        ..May::default()
    };
}

/// One host that makes a mistake, with an event for each program.
fn planted(mistake: Mistake, programs: &[Program], change: impl FnOnce(&mut Bounds)) -> Bounds {
    with("a planted mistake", |bounds| {
        (bounds.hosts, bounds.programs, bounds.mistake) = (1, programs.to_vec(), Some(mistake));
        change(bounds);
    })
}

#[test]
fn ack_before_commit_is_found() {
    found(planted(Mistake::AckBeforeCommit, &[Program::Add], |_| {}));
}

/// The entry's own expectation hides it until that entry is collected: then a late copy takes the head back.
#[test]
fn head_blind_is_found() {
    found(planted(Mistake::HeadBlind, &[Program::Need, Program::Need], |bounds| {
        bounds.start = [None, Some(1)];
        bounds.may = May {
            lose_answer: 1,
            floor: 1,
            collect: 1,
            ..May::default()
        };
    }));
}

#[test]
fn head_and_entry_blind_is_found() {
    found(planted(
        Mistake::HeadAndEntryBlind,
        &[Program::Add, Program::Take],
        |bounds| bounds.hosts = 2,
    ));
}

#[test]
fn key_blind_is_found() {
    found(planted(Mistake::KeyBlind, &[Program::Mix], |bounds| {
        bounds.puts = vec![("a", 3)]
    }));
}

/// What is remembered of the newest replays hides it: the host begins again when the floor has passed them.
#[test]
fn death_blind_is_found() {
    found(planted(Mistake::DeathBlind, &[Program::Need, Program::Need], forgotten));
}

#[test]
fn carrier_blind_is_found() {
    found(planted(Mistake::CarrierBlind, &[Program::Copy], |bounds| {
        bounds.puts = vec![("b", 3)]
    }));
}

#[test]
fn join_blind_is_found() {
    found(planted(Mistake::JoinBlind, &[Program::Take, Program::Take], |_| {}));
}

#[test]
fn reject_outside_is_found() {
    found(planted(
        Mistake::RejectOutside,
        &[Program::Take, Program::Take],
        |bounds| bounds.puts = vec![("a", 5)],
    ));
}

#[test]
fn refused_is_done_is_found() {
    found(planted(Mistake::RefusedIsDone, &[Program::Add], |bounds| {
        bounds.puts = vec![("a", 5)]
    }));
}

#[test]
fn refused_keeps_reads_is_found() {
    found(planted(Mistake::RefusedKeepsReads, &[Program::Add], |bounds| {
        bounds.puts = vec![("a", 5)]
    }));
}

/// While no sequence is ever used twice, the server's own expectations hide it; after a lost tail they do not.
#[test]
fn stale_reopen_is_found() {
    found(planted(Mistake::StaleReopen, &[Program::Add, Program::Mix], |bounds| {
        bounds.may = May {
            lose_tail: 1,
            ..May::default()
        };
    }));
}

#[test]
fn emit_without_id_is_found() {
    found(planted(Mistake::EmitWithoutId, &[Program::Add], |bounds| {
        (bounds.relay, bounds.may) = (
            true,
            May {
                crash: 1,
                ..May::default()
            },
        );
    }));
}

#[test]
fn relay_acks_early_is_found() {
    found(planted(Mistake::RelayAcksEarly, &[Program::Add], |bounds| {
        (bounds.relay, bounds.may) = (
            true,
            May {
                crash: 1,
                ..May::default()
            },
        );
    }));
}

#[test]
fn floor_from_overlay_is_found() {
    found(planted(
        Mistake::FloorFromOverlay,
        &[Program::Add, Program::Need],
        |bounds| {
            (bounds.puts, bounds.may) = (
                vec![("a", 5)],
                May {
                    floor: 1,
                    ..May::default()
                },
            );
        },
    ));
}

#[test]
fn collect_above_is_found() {
    found(planted(Mistake::CollectAbove, &[Program::Add], |bounds| {
        bounds.may = May {
            collect: 1,
            crash: 1,
            ..May::default()
        };
    }));
}

/// Not planted in the host: it was there. A committer that calls two batches by one name takes the second for stored
/// when it finds the first.
#[test]
fn one_name_for_two_batches_is_found() {
    found(with("one name for two batches", |bounds| {
        (bounds.hosts, bounds.programs) = (1, vec![Program::Add, Program::Need]);
        (bounds.start, bounds.one_name_a_round) = ([Some(1), Some(1)], true);
        bounds.may = May {
            lose_answer: 1,
            disconnect: 1,
            ..May::default()
        };
    }));
}
