use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::plan::{Dst, Timetable, When};

const START: u64 = 1_700_000_000_000;

fn every(seconds: u64, catch_up: CatchUp) -> Schedule {
    Schedule {
        name: "nightly".to_owned(),
        timetable: Timetable {
            when: When::Every(seconds),
            start_ms: None,
            end_ms: None,
        },
        jitter_ms: 0,
        subject: "s".to_owned(),
        payload: String::new(),
        headers: Vec::new(),
        overlap: Overlap::All,
        catch_up,
        catch_up_window_ms: 365 * 86_400_000,
        max_runs: None,
    }
}

fn by(at: u64) -> ActedBy {
    ActedBy { by: "h".to_owned(), at }
}

fn armed(spec: &Schedule, now: u64) -> ScheduleState {
    ScheduleState::arm(None, (spec, &[]), by(now), "k")
        .expect("it is new")
        .state
}

/// Fires whatever it waits for, if the server would have by now.
fn fire(state: &ScheduleState, now: u64) -> ScheduleStep {
    let timer = state.next.as_ref().expect("it waits").id.clone();
    state.fire(&timer, now, false).expect("it is the timer")
}

fn dues(taken: &ScheduleStep) -> Vec<u64> {
    taken.events.iter().map(|event| (event.due - START) / 1000).collect()
}

#[test]
fn a_timer_is_taken_in_once() {
    let state = armed(&every(10, CatchUp::Last), START);
    let timer = state.next.clone().expect("it waits");
    assert_eq!((timer.due, timer.at), (START + 10_000, START + 10_000));
    let taken = state.fire(&timer.id, START + 10_100, false).expect("it is due");
    assert_eq!((dues(&taken), taken.state.runs, taken.state.n), (vec![10], 1, 2));
    assert_eq!(taken.events[0].id, "schedule.nightly.20231114T221330Z.0");
    assert_eq!(taken.state.fire(&timer.id, START + 10_200, false), None);
    assert_eq!(taken.state.next.as_ref().map(|next| next.due), Some(START + 20_000));
}

#[test]
fn what_passed_unheeded_is_caught_up_as_the_schedule_says() {
    // It was due at 10, 20, … 90; the last is half a second ago.
    let now = START + 90_500;
    let rows = [
        (CatchUp::Last, vec![90], 8),
        (CatchUp::All, (1..=9).map(|n| n * 10).collect(), 0),
    ];
    for (catch_up, expected, missed) in rows {
        let taken = fire(&armed(&every(10, catch_up), START), now);
        assert_eq!((dues(&taken), taken.state.missed), (expected, missed), "{catch_up:?}");
        assert_eq!(taken.state.next.map(|next| next.due), Some(START + 100_000));
    }
    // Within a minute it is punctual; later than that nothing is caught up.
    let none = armed(&every(100, CatchUp::None), START);
    assert_eq!(dues(&fire(&none, START + 100_000 + 59_000)), [100]);
    let late = fire(&none, START + 100_000 + 61_000);
    assert_eq!((dues(&late), late.state.missed), (vec![], 1));
    let mut spec = every(10, CatchUp::All);
    spec.catch_up_window_ms = 25_000;
    let taken = fire(&armed(&spec, START), now);
    assert_eq!((dues(&taken), taken.state.missed), (vec![70, 80, 90], 6));
}

#[test]
fn many_due_times_are_caught_up_in_parts_in_their_order() {
    let mut state = armed(&every(1, CatchUp::All), START);
    let now = START + 250_000;
    let mut seen = Vec::new();
    while state.next.as_ref().is_some_and(|next| next.at <= now + 10) {
        let taken = fire(&state, now);
        assert!(taken.events.len() <= EVENTS_MAX);
        seen.extend(dues(&taken));
        state = taken.state;
    }
    assert_eq!(seen, (1..=250).collect::<Vec<_>>());
    // With so many that one transaction does not take them in, the last one alone has an event.
    let mut state = armed(&every(1, CatchUp::Last), START);
    let now = START + 1000 * (DUES_MAX as u64 + 7);
    let first = fire(&state, now);
    assert_eq!(dues(&first), Vec::<u64>::new());
    state = first.state;
    let second = fire(&state, now);
    assert_eq!(dues(&second), [DUES_MAX as u64 + 7]);
    assert_eq!(second.state.missed, DUES_MAX as u64 + 6);
}

#[test]
fn a_jitter_moves_when_it_fires_and_not_when_it_is_due() {
    let mut spec = every(100, CatchUp::Last);
    spec.jitter_ms = 50_000;
    let state = armed(&spec, START);
    let timer = state.next.clone().expect("it waits");
    let delay = timer.at - timer.due;
    assert!(0 < delay && delay < 50_000, "{delay}");
    let taken = state.fire(&timer.id, timer.at, false).expect("it is due");
    assert_eq!((dues(&taken), taken.state.missed), (vec![100], 0));
    let next = taken.state.next.expect("it waits again");
    assert_eq!(next.at, START + 200_000 + delay);
}

#[test]
fn after_the_last_run_it_waits_for_nothing() {
    let mut spec = every(10, CatchUp::All);
    spec.max_runs = Some(3);
    let taken = fire(&armed(&spec, START), START + 90_000);
    assert_eq!((dues(&taken), taken.state.next.clone()), (vec![10, 20, 30], None));
    let once = Schedule {
        timetable: Timetable {
            when: When::At(START + 5_000),
            start_ms: None,
            end_ms: None,
        },
        ..every(1, CatchUp::Last)
    };
    let taken = fire(&armed(&once, START), START + 6_000);
    assert_eq!((dues(&taken), taken.state.next.clone()), (vec![5], None));
    assert_eq!(
        armed(&once, START + 6_000).next,
        None,
        "it is past when it is armed first"
    );
}

#[test]
fn one_that_is_edited_fires_what_was_due_and_goes_on_from_now() {
    let spec = every(100, CatchUp::Last);
    let state = armed(&spec, START);
    assert_eq!(
        ScheduleState::arm(Some(&state), (&spec, &[]), by(START + 5), "x"),
        None,
        "it is armed so"
    );
    let edited = every(10, CatchUp::Last);
    let taken = ScheduleState::arm(Some(&state), (&edited, &[]), by(START + 105_000), "x").expect("it is edited");
    assert_eq!((dues(&taken), taken.state.token.as_str()), (vec![100], "k"));
    assert_eq!(taken.state.next.as_ref().map(|next| next.due), Some(START + 110_000));
    assert_eq!((taken.state.missed, taken.state.runs), (0, 1));
    // The timer that was armed before means nothing any more.
    let former = state.next.expect("it waited").id;
    assert_eq!(taken.state.fire(&former, START + 106_000, false), None);
}

#[test]
fn a_host_with_more_handlers_adds_their_consumers() {
    let spec = every(10, CatchUp::Last);
    let consumer = |name: &str| ConsumerName {
        stream: "S".to_owned(),
        name: name.to_owned(),
    };
    let arm = |found: Option<&ScheduleState>, names: &[&str]| {
        let consumers: Vec<ConsumerName> = names.iter().map(|name| consumer(name)).collect();
        ScheduleState::arm(found, (&spec, &consumers), by(START), "k").map(|step| step.state)
    };
    let first = arm(None, &["a"]).expect("it is new");
    let second = arm(Some(&first), &["b"]).expect("there is one more");
    assert_eq!(second.consumers, [consumer("a"), consumer("b")]);
    assert_eq!(second.next, first.next, "the same timer");
    assert_eq!(arm(Some(&second), &["a"]), None);
}

#[test]
fn a_disarmed_one_is_armed_again_as_a_new_one_that_keeps_its_count() {
    let spec = every(10, CatchUp::All);
    let fired = fire(&armed(&spec, START), START + 10_000).state;
    let gone = fired.disarm(by(START + 15_000)).expect("it was armed").state;
    assert_eq!((gone.next.clone(), gone.disarm(by(START + 16_000))), (None, None));
    let back = ScheduleState::arm(Some(&gone), (&spec, &[]), by(START + 55_000), "x").expect("it was disarmed");
    assert_eq!((dues(&back), back.state.missed, back.state.runs), (vec![], 0, 1));
    assert_eq!(back.state.next.map(|next| next.due), Some(START + 60_000));
}

fn overlapping(overlap: Overlap, catch_up: CatchUp) -> ScheduleState {
    let spec = Schedule {
        overlap,
        ..every(10, catch_up)
    };
    fire(&armed(&spec, START), START + 10_000).state
}

/// The same as [`fire`], while the last event is not decided.
fn fire_while_open(state: &ScheduleState, now: u64) -> ScheduleStep {
    let timer = state.next.as_ref().expect("it waits").id.clone();
    state.fire(&timer, now, true).expect("it is the timer")
}

#[test]
fn what_is_due_while_the_event_before_is_open_has_none_if_it_is_to_be_skipped() {
    for catch_up in [CatchUp::Last, CatchUp::All] {
        let state = overlapping(Overlap::Skip, catch_up);
        let taken = fire_while_open(&state, START + 20_000);
        assert_eq!((dues(&taken), taken.state.skipped, taken.state.missed), (vec![], 1, 0));
        assert_eq!(dues(&fire(&taken.state, START + 30_000)), [30], "{catch_up:?}");
    }
    let all = fire_while_open(&overlapping(Overlap::All, CatchUp::Last), START + 20_000);
    assert_eq!(dues(&all), [20]);
}

#[test]
fn what_is_due_while_the_event_before_is_open_waits_for_it_if_there_may_be_one() {
    let state = overlapping(Overlap::One, CatchUp::Last);
    let held = fire_while_open(&state, START + 20_000);
    let timer = held.state.next.clone().expect("it looks again");
    assert_eq!(
        (dues(&held), timer.due, timer.at),
        (vec![], START + 20_000, START + 25_000)
    );
    assert_eq!(held.state.held, Some(START + 20_000));
    let held = fire_while_open(&held.state, START + 41_000).state;
    assert_eq!(held.held, Some(START + 20_000));
    let taken = fire(&held, START + 46_000);
    assert_eq!((dues(&taken), taken.state.held), (vec![40], None));
    assert_eq!((taken.state.skipped, taken.state.missed), (2, 0));
    // With each due time caught up, they come one after another.
    let held = fire_while_open(&overlapping(Overlap::One, CatchUp::All), START + 41_000).state;
    let first = fire(&held, START + 46_000);
    assert_eq!(dues(&first), [20]);
    let second = fire(&fire_while_open(&first.state, START + 46_100).state, START + 52_000);
    assert_eq!((dues(&second), second.state.skipped), (vec![30], 0));
}

#[test]
fn a_lost_timer_is_armed_again_for_the_same_due_time() {
    let state = armed(&every(10, CatchUp::Last), START);
    let lost = state.next.clone().expect("it waits");
    let taken = state.again(&lost.id, START + 70_000).expect("it is lost");
    let next = taken.state.next.clone().expect("it waits again");
    assert_eq!((next.due, taken.events.len()), (lost.due, 0));
    assert!(next.id != lost.id && next.at > START + 70_000, "{next:?}");
    assert_eq!(taken.state.fire(&lost.id, START + 80_000, false), None);
    assert_eq!(dues(&fire(&taken.state, START + 70_500)), [70]);
    assert_eq!(
        taken.state.again(&lost.id, START + 80_000),
        None,
        "another host has done it"
    );
}

#[test]
fn a_state_reads_back_and_a_person_can_read_it() {
    let mut spec = every(1, CatchUp::Last);
    spec.timetable.when = When::Cron {
        expression: "0 2 * * *".to_owned(),
        zone: "Asia/Shanghai".to_owned(),
        dst: Dst::Once,
    };
    let state = fire(&armed(&spec, START), START + 86_400_000).state;
    let text = serde_json::to_string(&state).expect("it serialises");
    assert!(text.contains("\"due\":\"2023-11-15T18:00:00.000Z\""), "{text}");
    let back: ScheduleState = serde_json::from_str(&text).expect("it reads back");
    assert_eq!(back, state);
}

/// What happens to a schedule.
#[derive(Debug, Clone)]
enum Happens {
    /// Time passes, in tenths of a second.
    Passes(u64),
    /// A timer that was armed once comes, again perhaps: this many before the newest.
    Comes(usize),
    Lost,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0u64..400).prop_map(Happens::Passes),
        (0usize..3).prop_map(Happens::Comes),
        (0usize..1).prop_map(Happens::Comes),
        Just(Happens::Lost),
    ]
}

proptest! {
    #[test]
    fn each_due_time_has_one_event_or_is_missed_whichever_timers_come(
        seconds in 1u64..20, all in any::<bool>(), jitter in 0u64..3, course in proptest::collection::vec(happens(), 1..80),
    ) {
        let mut spec = every(seconds, if all { CatchUp::All } else { CatchUp::Last });
        spec.jitter_ms = jitter * 300;
        let mut state = armed(&spec, START);
        let (mut now, mut timers, mut seen) = (START, vec![state.next.clone().expect("it waits")], Vec::new());
        for one in course {
            let taken = match one {
                Happens::Passes(tenths) => { now += tenths * 100; continue }
                Happens::Comes(back) => {
                    let timer = &timers[timers.len().saturating_sub(1 + back)];
                    // The server fires none before its time.
                    now = now.max(timer.at);
                    state.fire(&timer.id, now, false)
                }
                Happens::Lost => {
                    let id = state.next.as_ref().expect("it waits").id.clone();
                    state.again(&id, now)
                }
            };
            if let Some(taken) = taken {
                prop_assert_eq!(taken.state.n, state.n + 1);
                seen.extend(taken.events.iter().map(|event| event.due));
                state = taken.state;
                timers.push(state.next.clone().expect("it waits"));
            }
        }
        let once: BTreeSet<u64> = seen.iter().copied().collect();
        prop_assert_eq!(once.len(), seen.len(), "no due time twice");
        prop_assert!(seen.is_sorted());
        let passed: Vec<u64> = state.calendar().expect("it is right").between(START, state.through).collect();
        prop_assert_eq!(passed.len() as u64, seen.len() as u64 + state.missed);
        prop_assert_eq!(state.runs, seen.len() as u64);
        if all {
            prop_assert_eq!(seen, passed);
        }
    }
}
