//! Tests of the index.

use super::super::entry::Decision;
use super::*;

fn event(sequence: u64) -> EventId {
    EventId::of_test(sequence)
}

fn entry(n: u64, sequence: u64, verdict: DecisionKind) -> Entry {
    let decision = Decision::of_test("h", &event(sequence).to_string(), verdict);
    let (append, host, at) = ("a".into(), "x".into(), "t".into());
    Entry {
        n,
        append,
        host,
        at,
        min_reader: 1,
        decisions: vec![decision],
        writes: vec![],
        floors: BTreeMap::new(),
        index_from: None,
        incarnations: BTreeMap::new(),
        reset: vec![],
        rollouts: BTreeMap::new(),
        trials: Vec::new(),
    }
}

#[test]
fn what_an_entry_decides_is_remembered_until_the_floor_covers_it() {
    let mut index = Index::default();
    index.apply(&entry(1, 5, DecisionKind::Done));
    index.apply(&entry(2, 7, DecisionKind::Dead));
    assert_eq!(index.decided("h", &event(5)), Some(Decided::Done { entry: 1 }));
    assert_eq!(index.decided("h", &event(6)), None);
    assert_eq!(index.decided("other", &event(5)), None);
    index.raise("h", "k", 6);
    assert_eq!(index.decided("h", &event(5)), Some(Decided::Below));
    assert_eq!(index.decided("h", &event(7)), Some(Decided::Dead { entry: 2 }));
    assert_eq!((index.remembered(), index.reads_from()), (1, 2));
    index.raise("h", "k", 7);
    assert_eq!((index.remembered(), index.reads_from()), (0, 3));
}

#[test]
fn a_floor_speaks_only_of_its_own_incarnation() {
    let mut index = Index::default();
    index.raise("h", "k", 100);
    assert_eq!(
        index.decided(
            "h",
            &EventId {
                incarnation: "new".into(),
                sequence: 3
            }
        ),
        None
    );
    index.raise("h", "new", 2);
    assert_eq!((index.floor("h", "new"), index.floor("h", "k")), (2, 100));
}

#[test]
fn another_hosts_head_takes_no_floor_back() {
    let mut index = Index::default();
    index.raise("h", "k", 500);
    index.raise("h", "new", 10);
    let mut theirs = Floor::default();
    theirs.raise("k", 400);
    let mut said = entry(1, 9, DecisionKind::Done);
    said.floors = BTreeMap::from([("h".to_owned(), theirs)]);
    index.apply(&said);
    assert_eq!((index.floor("h", "new"), index.floor("h", "k")), (10, 500));
}

#[test]
fn a_floor_does_not_decide_what_is_at_work() {
    let mut index = Index::default();
    index.open("h", &event(5));
    index.raise("h", "k", 9);
    assert_eq!(index.decided("h", &event(5)), None);
    assert_eq!(index.decided("h", &event(6)), Some(Decided::Below));
    index.apply(&entry(1, 5, DecisionKind::Dead));
    assert_eq!(index.decided("h", &event(5)), Some(Decided::Dead { entry: 1 }));
    index.close("h", &event(5));
    index.raise("h", "k", 10);
    assert_eq!(index.decided("h", &event(5)), Some(Decided::Below));
}

#[test]
fn a_replay_below_the_floor_is_decided_and_its_done_is_seen() {
    let mut index = Index::default();
    index.raise("h", "k", 9);
    index.open("h", &event(5));
    assert_eq!(index.decided("h", &event(5)), Some(Decided::Below));
    let mut reopened = Index::default();
    reopened.raise("h", "k", 9);
    reopened.keep_open(&index);
    assert_eq!(reopened.decided("h", &event(5)), Some(Decided::Below));
    reopened.apply(&entry(2, 5, DecisionKind::Done));
    assert_eq!(reopened.decided("h", &event(5)), Some(Decided::Done { entry: 2 }));
}

#[test]
fn a_decision_of_what_is_at_work_outlives_a_reconnect() {
    let mut index = Index::default();
    index.open("h", &event(5));
    index.apply(&entry(1, 5, DecisionKind::Dead));
    let mut floor = Floor::default();
    floor.raise("k", 9);
    let head = Head {
        n: 2,
        index_from: 2,
        floors: BTreeMap::from([("h".to_owned(), floor)]),
        ..Head::default()
    };
    let mut reopened = Index::new(&head);
    reopened.keep_open(&index);
    assert_eq!(reopened.decided("h", &event(5)), Some(Decided::Dead { entry: 1 }));
}

#[test]
fn an_id_keeps_its_entry_until_the_floor_is_past_its_window() {
    let id = |hash, time_ms| Id::of_test(hash, time_ms);
    let with = |n, sequence, hash, time_ms| {
        let mut entry = entry(n, sequence, DecisionKind::Done);
        entry.decisions[0].id = Some(id(hash, time_ms));
        entry
    };
    let mut entries = [with(1, 1, 7, 100), with(2, 2, 7, 105), with(3, 3, 8, 111)];
    entries[1].decisions[0].same_as = Some(event(1).to_string());
    let mut index = Index::default();
    entries.iter().for_each(|entry| index.apply(entry));
    assert_eq!(index.first_of("h", &id(7, 110), &event(9)), Some((event(1), 1)));
    assert_eq!(index.first_of("other", &id(7, 110), &event(9)), None);
    index.raise("h", "k", 2);
    assert_eq!(index.reads_from(), 1, "a host that starts must learn the id");
    index.raise("h", "k", 3);
    assert_eq!(index.reads_from(), 3);
    assert_eq!(index.first_of("h", &id(7, 110), &event(9)), None);
}

#[test]
fn a_reset_forgets_one_handler_and_what_comes_after_it_is_remembered() {
    let mut index = Index::default();
    index.raise("h", "k", 6);
    index.raise("other", "k", 6);
    index.apply(&entry(1, 9, DecisionKind::Dead));
    let mut reset = entry(2, 3, DecisionKind::Done);
    reset.reset = vec!["h".into()];
    index.apply(&reset);
    assert_eq!(index.decided("h", &event(9)), None);
    assert_eq!(index.decided("h", &event(6)), None);
    assert_eq!(index.decided("h", &event(3)), Some(Decided::Done { entry: 2 }));
    assert_eq!(index.decided("other", &event(6)), Some(Decided::Below));
}

#[test]
fn a_head_follows_from_the_one_before_and_a_reset() {
    let head = Head::default().after(&entry(1, 5, DecisionKind::Done));
    let mut reset = entry(2, 5, DecisionKind::Done);
    (reset.reset, reset.decisions) = (vec!["h".into()], vec![]);
    let head = head.after(&reset);
    assert_eq!((head.n, head.floors.contains_key("h")), (2, false));
}

#[test]
fn a_done_after_a_death_overwrites_it() {
    let mut index = Index::default();
    index.apply(&entry(1, 5, DecisionKind::Dead));
    index.apply(&entry(2, 5, DecisionKind::Done));
    assert_eq!(index.decided("h", &event(5)), Some(Decided::Done { entry: 2 }));
}

#[test]
fn the_done_of_a_replay_is_known_below_the_floor_until_its_handler_is_reset() {
    let mut index = Index::default();
    index.raise("h", "k", 9);
    let mut done = entry(2, 5, DecisionKind::Done);
    done.decisions[0].follows_death = Some(1);
    index.apply(&done);
    assert_eq!(index.decided("h", &event(5)), Some(Decided::Done { entry: 2 }));
    assert_eq!(index.decided("h", &event(6)), Some(Decided::Below));
    let mut reset = entry(3, 3, DecisionKind::Done);
    (reset.reset, reset.decisions) = (vec!["h".into()], vec![]);
    index.apply(&reset);
    assert_eq!(index.decided("h", &event(5)), None);
}
