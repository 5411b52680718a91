use bytes::Bytes;

use super::*;

fn letter(number: u64, cause: Cause) -> Letter {
    let headers = [
        (dead_letter::CAUSE, cause.name().to_owned()),
        (dead_letter::CODE, "sold-out".to_owned()),
        (dead_letter::ERROR, format!("nothing is left of sku-{number}")),
    ];
    Letter {
        subject: format!("$MESH.dead.ORDERS.inventory.k.{number}"),
        sequence: number,
        time_ms: 1,
        headers: headers.map(|(n, v)| (n.to_owned(), v)).to_vec(),
        payload: Bytes::new(),
    }
}

fn course(count: u64) -> Course {
    let mut course = Course::default();
    (1..=count).for_each(|n| course.add(&letter(n, Cause::Rejected)));
    course
}

fn failed(code: &str) -> Fate {
    Fate::Failed {
        code: code.to_owned(),
        error: format!("{code}!"),
    }
}

#[test]
fn each_letter_goes_out_once_and_is_decided_once() {
    let mut course = course(3);
    course.add(&letter(2, Cause::Rejected));
    course.add(&letter(9, Cause::Lost));
    assert_eq!((course.len(), course.lost), (3, 1));
    assert_eq!(course.lost_samples, ["inventory.k.9"]);
    let sent: Vec<usize> = std::iter::from_fn(|| course.send(Duration::ZERO)).collect();
    assert_eq!(sent, [0, 1, 2]);
    assert_eq!(course.learn(0, Fate::Succeeded, Whose::Own), Some(Fate::Succeeded));
    assert_eq!(course.learn(0, failed("late"), Whose::Own), None);
    assert_eq!(course.learn(1, failed("a"), Whose::Own), Some(failed("a")));
    assert_eq!(course.learn(2, failed("a"), Whose::Own), Some(failed("a")));
    let counts = course.counts();
    assert_eq!((counts.succeeded, counts.failed, counts.out, counts.sent), (1, 2, 0, 3));
    let failures: Vec<_> = course.failures().collect();
    assert_eq!(failures.len(), 1);
    let (kind, code, of) = &failures[0];
    assert_eq!((kind.count, *code, of.count), (3, "a", 2));
    assert_eq!((of.sample.as_str(), of.error.as_str()), ("inventory.k.3", "a!"));
}

#[test]
fn one_that_others_took_away_is_not_tried_and_one_that_failed_for_others_is() {
    let theirs = |fate| (fate, Whose::Another);
    let mut course = course(4);
    assert_eq!(course.learn(0, Fate::Succeeded, Whose::Another), None);
    let second = "$MESH.dead.ORDERS.inventory.k.2";
    assert_eq!(course.written(second, 7, theirs(failed("theirs"))), None);
    assert_eq!(course.send(Duration::ZERO), Some(1));
    let counts = course.counts();
    assert_eq!((counts.succeeded_for_others, counts.untried, counts.out), (1, 2, 1));
    assert_eq!(course.written(second, 7, theirs(failed("theirs"))), None, "as it stood");
    assert_eq!(course.written(second, 8, theirs(Fate::Gone)), Some(Fate::Gone));
    // What both have asked for is told to the one whose replay it was.
    assert_eq!(
        (course.send(Duration::ZERO), course.send(Duration::ZERO)),
        (Some(2), Some(3))
    );
    assert_eq!(course.learn(2, Fate::Succeeded, Whose::Another), Some(Fate::Succeeded));
    assert_eq!(course.learn(3, failed("x"), Whose::Another), Some(failed("x")));
    let counts = course.counts();
    assert_eq!((counts.succeeded_for_others, counts.failed_for_others), (2, 1));
    assert_eq!((counts.succeeded, counts.gone, counts.sent), (0, 1, 3));
    assert_eq!((counts.decided(), counts.over(), counts.failed_in_all()), (3, 3, 1));
}

#[test]
fn one_that_is_meant_as_it_was_read_is_left_to_the_run_that_wrote_it_again() {
    let mut course = Course::bound();
    (1..=2).for_each(|n| course.add(&letter(n, Cause::Exhausted)));
    let first = "$MESH.dead.ORDERS.inventory.k.1";
    assert_eq!(course.written(first, 7, (failed("theirs"), Whose::Another)), None);
    assert_eq!(
        (course.send(Duration::ZERO), course.send(Duration::ZERO)),
        (Some(1), None)
    );
    let counts = course.counts();
    assert_eq!(
        (counts.failed_for_others, counts.untried, counts.out, counts.sent),
        (1, 0, 1, 1)
    );
}

#[test]
fn one_without_a_word_is_asked_for_once_more_and_then_given_up() {
    let mut course = course(1);
    course.send(Duration::from_secs(1));
    assert_eq!(course.out_since(Duration::ZERO), Vec::<usize>::new());
    assert_eq!(course.out_since(Duration::from_secs(1)), [0]);
    let looks: Vec<Unheard> = (0..3).map(|_| course.unheard(0)).collect();
    assert_eq!(looks, [Unheard::AskAgain, Unheard::Wait, Unheard::GiveUp]);
    assert_eq!(course.learn(0, Fate::Silent, Whose::Own), Some(Fate::Silent));
    assert_eq!(course.counts().silent, 1);
}

#[test]
fn one_that_could_not_be_asked_for_is_not_sent_and_one_that_was_asked_for_before_is() {
    let mut course = course(2);
    course.send(Duration::ZERO);
    course.send(Duration::ZERO);
    course.unheard(1);
    course.not_sent(0);
    course.not_sent(1);
    let counts = course.counts();
    assert_eq!((counts.sent, counts.out, counts.untried), (1, 1, 1));
}
