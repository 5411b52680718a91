use super::*;

const POLICY: CircuitPolicy = CircuitPolicy {
    failures: 10,
    percent: 90,
    window: Duration::from_secs(60),
    probe: Duration::from_secs(1),
    probe_max: Duration::from_secs(5),
};

fn failure() -> Failure {
    Failure {
        code: "busy".to_owned(),
        message: "no answer".to_owned(),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Attempts at different events, one a second from `from` on; `others` have ended otherwise meanwhile.
fn fail(state: &mut CircuitState, from: u64, count: u64, others: u64) -> Vec<CircuitChange> {
    let attempt = |n: u64| state.failed(seconds(from + n), others * n / count, n, &failure());
    (0..count).map(attempt).collect()
}

fn opened() -> CircuitState {
    let mut state = CircuitState::new(POLICY);
    assert_eq!(fail(&mut state, 0, 10, 0).last(), Some(&CircuitChange::Opened));
    state
}

#[test]
fn it_opens_at_the_last_of_the_failures_and_not_before() {
    let mut state = CircuitState::new(POLICY);
    let changes = fail(&mut state, 0, 10, 0);
    assert_eq!(changes[..9], vec![CircuitChange::None; 9]);
    let open = state.open().expect("it is open");
    assert_eq!((open.failed, open.of, open.next), (10, 10, seconds(10)));
}

#[test]
fn it_stays_closed_while_enough_attempts_end_otherwise() {
    let mut state = CircuitState::new(POLICY);
    // Ten of eleven are more than nine tenths, ten of thirteen are not.
    assert!(!fail(&mut state, 0, 30, 9).contains(&CircuitChange::Opened));
    let mut state = CircuitState::new(POLICY);
    assert!(fail(&mut state, 0, 30, 3).contains(&CircuitChange::Opened));
}

#[test]
fn it_stays_closed_while_failures_lie_further_apart_than_the_window() {
    let mut state = CircuitState::new(POLICY);
    let apart = (0..50u64).map(|n| state.failed(seconds(n * 7), 0, n, &failure()));
    assert!(
        apart
            .collect::<Vec<_>>()
            .iter()
            .all(|change| *change == CircuitChange::None)
    );
}

#[test]
fn a_few_events_that_fail_again_and_again_do_not_open_it() {
    let mut state = CircuitState::new(POLICY);
    let four = (0..100u64).map(|n| state.failed(Duration::ZERO, 0, n % 4, &failure()));
    assert!(
        four.collect::<Vec<_>>()
            .iter()
            .all(|change| *change == CircuitChange::None)
    );
    let mut state = CircuitState::new(POLICY);
    let five = (0..10u64).map(|n| state.failed(Duration::ZERO, 0, n % 5, &failure()));
    assert_eq!(five.last(), Some(CircuitChange::Opened));
}

#[test]
fn one_event_at_a_time_probes_at_intervals_that_double_up_to_the_limit() {
    let mut state = opened();
    let (mut now, mut pauses) = (seconds(9), Vec::new());
    for _ in 0..5 {
        let Entrance::WaitsUntil(next) = state.enter(now) else {
            panic!("no probe is due at {now:?}");
        };
        pauses.push((next - now).as_secs());
        now = next;
        assert_eq!(state.enter(now), Entrance::Probes);
        assert_eq!(state.enter(now), Entrance::WaitsForProbe);
        assert_eq!(state.probed(now, Sign::Failed(failure())), CircuitChange::None);
    }
    assert_eq!(pauses, [1, 2, 4, 5, 5]);
    assert_eq!(state.open().map(|open| open.probes), Some(5));
}

#[test]
fn a_probe_that_ends_otherwise_closes_it_and_one_that_the_host_breaks_off_is_made_again() {
    let mut state = opened();
    assert_eq!(state.enter(seconds(10)), Entrance::Probes);
    assert_eq!(state.probed(seconds(10), Sign::Nothing), CircuitChange::None);
    assert_eq!(
        state.enter(seconds(10)),
        Entrance::WaitsUntil(seconds(11)),
        "the interval is the same"
    );
    assert_eq!(state.enter(seconds(11)), Entrance::Probes);
    assert_eq!(
        state.probed(seconds(12), Sign::Ended),
        CircuitChange::Closed(seconds(3), 1)
    );
    assert_eq!(state.enter(seconds(12)), Entrance::Runs);
    assert!(
        fail(&mut state, 13, 9, 0)
            .iter()
            .all(|change| *change == CircuitChange::None),
        "what failed before counts no more"
    );
}

#[test]
fn it_closes_when_no_event_comes_for_a_window_after_a_probe_was_due() {
    let mut state = opened();
    assert_eq!(state.idle_at(), Some(seconds(70)));
    assert_eq!(state.idle(seconds(69)), CircuitChange::None);
    assert_eq!(state.enter(seconds(69)), Entrance::Probes);
    assert_eq!(state.idle(seconds(200)), CircuitChange::None, "a probe is at work");
    assert_eq!(state.probed(seconds(200), Sign::Failed(failure())), CircuitChange::None);
    assert_eq!(state.idle(seconds(261)), CircuitChange::None);
    assert_eq!(state.idle(seconds(262)), CircuitChange::Idle(seconds(253), 1));
    assert_eq!((state.idle_at(), state.idle(seconds(900))), (None, CircuitChange::None));
}

#[test]
fn a_replay_that_ends_closes_it_and_one_that_fails_changes_nothing() {
    let mut state = opened();
    let before = state.open().cloned();
    for sign in [Sign::Failed(failure()), Sign::Nothing] {
        assert_eq!(state.replayed(seconds(10), &sign), CircuitChange::None);
    }
    assert_eq!(state.open().cloned(), before);
    assert_eq!(
        state.replayed(seconds(12), &Sign::Ended),
        CircuitChange::Closed(seconds(3), 0)
    );
    assert_eq!(state.replayed(seconds(12), &Sign::Ended), CircuitChange::None);
    // A probe that was at work then ends.
    assert_eq!(state.probed(seconds(13), Sign::Failed(failure())), CircuitChange::None);
}

#[test]
fn attempts_that_began_before_it_was_opened_change_nothing() {
    let mut state = opened();
    let before = state.open().cloned();
    assert!(
        fail(&mut state, 20, 30, 0)
            .iter()
            .all(|change| *change == CircuitChange::None)
    );
    assert_eq!(state.open().cloned(), before);
}

#[test]
fn only_a_handler_that_asks_for_another_attempt_is_a_failure() {
    let retry = Outcome::Retry {
        code: "busy".to_owned(),
        message: "no answer".to_owned(),
        after: None,
    };
    let reject = Outcome::Reject {
        code: "c".to_owned(),
        message: "m".to_owned(),
    };
    let trap = Outcome::Trap {
        message: "m".to_owned(),
        backtrace: Vec::new(),
    };
    let fault = Outcome::HostFault {
        message: "m".to_owned(),
    };
    assert_eq!(Sign::of(&retry), Sign::Failed(failure()));
    for ended in [Outcome::Done, reject, trap, Outcome::Timeout { limit: seconds(1) }] {
        assert_eq!(Sign::of(&ended), Sign::Ended, "{ended:?}");
    }
    for nothing in [Outcome::Conflict, fault] {
        assert_eq!(Sign::of(&nothing), Sign::Nothing, "{nothing:?}");
    }
}
