use super::*;

const FULL: (&str, Manner, &str) = ("FULL", Manner::Refuses, "full");

fn place(sequence: u64) -> ConsequencePlace {
    ConsequencePlace { sequence, at: 0 }
}

fn due(blocked: &mut Blocked) -> Vec<(u64, Option<String>)> {
    let mut all = Vec::new();
    while let Some((sequence, due)) = blocked.take_due() {
        all.extend(due.into_iter().map(|(_, waiting)| (sequence, waiting.letter)));
    }
    all
}

/// Three events that a target has refused at this time.
fn three(now: Instant) -> Blocked {
    let mut blocked = Blocked::default();
    for sequence in 1..=3 {
        blocked.refused(FULL, (place(sequence), Waiting::new(sequence, now)), true, now);
    }
    blocked
}

#[test]
fn of_a_blocked_target_the_oldest_is_tried_and_all_once_it_takes_something() {
    let now = Instant::now();
    let mut blocked = three(now);
    assert_eq!((blocked.waiting(), blocked.has_due()), (3, false));
    blocked.tick(now + AGAIN);
    assert_eq!(due(&mut blocked), [(1, None)]);
    blocked.took("FULL", now + AGAIN);
    assert_eq!(due(&mut blocked), [(2, None), (3, None)]);
    assert_eq!(blocked.waiting(), 0);
    let freed = blocked.tick(now + AGAIN);
    assert_eq!((freed.len(), blocked.is_empty()), (1, true));
    assert_eq!(freed[0].since, now, "it was blocked for all of the time");
}

#[test]
fn a_target_is_blocked_until_it_has_taken_something_however_long_nothing_comes_for_it() {
    let (now, hour) = (Instant::now(), Duration::from_secs(3600));
    let mut blocked = Blocked::default();
    blocked.refused(FULL, (place(1), Waiting::new(1, now)), true, now + REFUSED);
    assert_eq!(due(&mut blocked), [(1, Some("full".to_owned()))]);
    assert_eq!(blocked.tick(now + hour), [], "it is what it was");
    let told = blocked.snapshot();
    assert_eq!((told[0].waiting, told[0].letters), (0, 1));
    // What comes after a pause waits as what came first.
    blocked.refused(FULL, (place(2), Waiting::new(2, now + hour)), true, now + hour);
    assert_eq!(
        (blocked.has_due(), blocked.snapshot()[0].since_ms),
        (false, told[0].since_ms)
    );
    blocked.took("FULL", now + hour + AGAIN);
    assert_eq!(due(&mut blocked), [(2, None)]);
    let freed = blocked.tick(now + hour + AGAIN);
    assert_eq!((freed.len(), freed[0].letters, blocked.snapshot().len()), (1, 1, 0));
}

#[test]
fn of_targets_that_nothing_waits_for_so_many_are_kept_and_no_more() {
    let now = Instant::now();
    let mut blocked = Blocked::default();
    for sequence in 0..2 * IDLE_MAX as u64 {
        let target = (&*format!("t.{sequence}"), Manner::Refuses, "full");
        let at = now + REFUSED + Duration::from_millis(sequence);
        blocked.refused(target, (place(sequence), Waiting::new(sequence, now)), true, at);
    }
    assert_eq!(due(&mut blocked).len(), 2 * IDLE_MAX);
    blocked.tick(now + REFUSED * 3);
    assert_eq!(blocked.targets.len(), IDLE_MAX);
    assert!(blocked.targets.contains_key("t.199") && !blocked.targets.contains_key("t.0"));
}

#[test]
fn an_event_becomes_a_letter_only_by_a_refusal_of_its_own_after_ten_seconds() {
    let now = Instant::now();
    let mut blocked = three(now);
    let late = now + REFUSED;
    blocked.tick(late - AGAIN);
    assert_eq!(due(&mut blocked), [(1, None)]);
    blocked.refused(FULL, (place(1), Waiting::new(1, now)), true, late - AGAIN);
    blocked.tick(late);
    assert_eq!(
        due(&mut blocked),
        [(1, None), (2, None), (3, None)],
        "a last try of each"
    );
    let again = Waiting::new(1, now);
    blocked.refused(FULL, (place(1), again), true, late);
    assert_eq!(due(&mut blocked), [(1, Some("full".to_owned()))]);
    // Its target has refused everything for as long, so one that comes now does not wait as well.
    blocked.refused(FULL, (place(4), Waiting::new(4, late)), true, late);
    assert_eq!(due(&mut blocked), [(4, Some("full".to_owned()))]);
    // A letter has no letter.
    blocked.refused(FULL, (place(5), Waiting::new(5, now)), false, late);
    assert!(!blocked.has_due());
}

#[test]
fn what_may_be_in_its_target_does_not_become_a_letter() {
    let now = Instant::now();
    let mut blocked = Blocked::default();
    let mute = ("FULL", Manner::Mute, "no answer");
    let mut waiting = Waiting::new(1, now);
    waiting.unsure = true;
    blocked.refused(mute, (place(1), waiting), true, now + SILENT * 2);
    assert!(!blocked.has_due());
    assert!(blocked.is_mute("FULL", now + SILENT * 2));
    blocked.took("FULL", now + SILENT * 2);
    assert!(!blocked.is_mute("FULL", now + SILENT * 2));
}

#[test]
fn so_much_waits_and_no_more() {
    let now = Instant::now();
    let mut blocked = Blocked::default();
    for sequence in 1..=WAITING_MAX as u64 {
        assert!(blocked.has_room());
        blocked.refused(FULL, (place(sequence), Waiting::new(sequence, now)), true, now);
    }
    assert!(!blocked.has_room());
}
