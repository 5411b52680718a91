//! What the screen shows, at the widths that people have.

use std::collections::BTreeMap;

use unicode_width::UnicodeWidthStr as _;

use super::rates::MeshRates;
use super::terminal::Look;
use super::view::{Choice, Sort, TopView, page};
use crate::event::parse_rfc3339;
use crate::report::sample::{HandlerSample, Sample};
use crate::report::status::json::{DelayedStatus, HandlerState, HandlerStatus, MeshStatus, UnknownField};

const NOW: &str = "2026-05-01T08:00:00Z";

fn handler(name: &str, state: HandlerState, pending: u64, dead: u64) -> HandlerStatus {
    HandlerStatus {
        handler: name.to_owned(),
        stream: "ORDERS".to_owned(),
        consumer: name.to_owned(),
        state,
        since: None,
        paused: None,
        why: None,
        hindered: Vec::new(),
        circuits: Vec::new(),
        module: Some("64c5412009ee".to_owned()),
        modules: Vec::new(),
        modules_not_taken: Vec::new(),
        rollout: None,
        settings_differ: None,
        rate: None,
        pending: Some(pending),
        in_flight: Some(2),
        oldest: None,
        removed: Some(0),
        retrying: Some(1),
        decided: Some(Some(1234)),
        dead: Some(dead),
        note: (dead > 10).then(|| "its consumer delivers nothing".to_owned()),
    }
}

fn status() -> MeshStatus {
    MeshStatus {
        mesh: "shop".to_owned(),
        serves: true,
        handlers: vec![
            handler("inventory", HandlerState::Serving, 12, 0),
            handler("points", HandlerState::Degraded, 90_000, 17),
            handler("notify\u{202e}", HandlerState::Paused, 0, 3),
        ],
        ledgers: Vec::new(),
        outboxes: Vec::new(),
        delayed: Some(DelayedStatus {
            waiting: 0,
            due: 0,
            late_since: None,
        }),
        schedules: Some(Vec::new()),
        redrives: Some(Vec::new()),
        orphans: Some(Vec::new()),
        hosts: Some(vec![serde_json::json!({ "id": "h1" })]),
        unknown: Vec::new(),
        warnings: vec!["stream ORDERS is nearly full".to_owned()],
    }
}

fn rates() -> MeshRates {
    let mut rates = MeshRates::default();
    for second in 0..4u64 {
        let of = |done: u64| HandlerSample {
            done: done * second * second,
            runs: BTreeMap::from([(500, second * 99), (20_000, second)]),
            ..HandlerSample::default()
        };
        rates.take(&Sample {
            at: second * 1000,
            hosts: Vec::new(),
            handlers: BTreeMap::from([("inventory".to_owned(), of(100)), ("points".to_owned(), of(1))]),
            unknown: None,
        });
    }
    rates
}

/// The page as text, with a mark before the line that is chosen.
fn shown(choice: &Choice, size: (usize, usize)) -> String {
    let (status, rates) = (status(), rates());
    let seen = TopView {
        status: &status,
        rates: &rates,
        stale_ms: None,
        trouble: None,
        now_ms: parse_rfc3339(NOW).expect("a time"),
    };
    let page = page(&seen, choice, size);
    assert_eq!(page.len(), size.1, "the screen is full");
    assert!(
        page.iter().all(|line| line.text.width() <= size.0),
        "no line is too long: {page:#?}"
    );
    let marked = page.iter().map(|line| match line.look {
        Look::Reverse => format!("> {}", line.text),
        Look::Plain | Look::Bold => format!("| {}", line.text),
    });
    marked.map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn a_wide_screen_shows_all_columns() {
    insta::assert_snapshot!(shown(&Choice::default(), (140, 12)), @r#"
    | 08:00:00Z  mesh shop  1 host(s)  505+ done/s  90012 pending  20 dead
    | HANDLER       STATE     DONE/S  P50    P99    FAILED/S  IN FLIGHT  PENDING  RETRYING  DEAD  MODULE        DONE, LAST MINUTE
    > inventory     serving   500     500µs  500µs  0         2          12       1         0     64c5412009ee   ▂▅█
    | points        degraded  5.0     500µs  500µs  0         2          90000    1         17    64c5412009ee   ▂▅█
    | notify\u202e  paused    ?       ?      ?      ?         2          0        1         3     64c5412009ee
    |
    | points: its consumer delivers nothing
    | warning: stream ORDERS is nearly full
    |
    |
    |
    | ↑↓ choose   Enter details   s sort (by configuration)   q quit
    "#);
}

#[test]
fn a_screen_of_80_columns_does_without_some_and_a_small_one_shows_the_handler_that_is_chosen() {
    let choice = Choice {
        sort: Sort::Pending,
        ..Choice::default()
    };
    insta::assert_snapshot!(shown(&choice, (80, 12)), @r#"
    | 08:00:00Z  mesh shop  1 host(s)  505+ done/s  90012 pending  20 dead
    | HANDLER      STATE     DONE/S  P99    PENDING  RETRYING  DEAD  DONE, LAST MINUTE
    > points       degraded  5.0     500µs  90000    1         17     ▂▅█
    | inventory    serving   500     500µs  12       1         0      ▂▅█
    | notify\u20…  paused    ?       ?      0        1         3
    |
    | points: its consumer delivers nothing
    | warning: stream ORDERS is nearly full
    |
    |
    |
    | ↑↓ choose   Enter details   s sort (by pending)   q quit
    "#);
    let mut last = Choice::default();
    let (status, rates) = (status(), rates());
    let seen = TopView {
        status: &status,
        rates: &rates,
        stale_ms: None,
        trouble: Some("the server does not answer"),
        now_ms: 0,
    };
    last.step(&seen, 9);
    let small = page(&seen, &last, (40, 6));
    let chosen = small
        .iter()
        .find(|line| line.look == Look::Reverse)
        .expect("one is chosen");
    assert!(chosen.text.starts_with("notify\\"), "{small:#?}");
    assert!(small[1].text.contains("does not answer"), "{small:#?}");
}

#[test]
fn a_handler_alone_is_shown_with_the_commands_that_follow() {
    let choice = Choice {
        sort: Sort::Configuration,
        handler: Some("points".to_owned()),
        alone: true,
    };
    insta::assert_snapshot!(shown(&choice, (80, 26)), @r#"
    | 08:00:00Z  mesh shop  1 host(s)  505+ done/s  90012 pending  20 dead
    |
    | points: degraded
    |   done/s     5.0
    |   failed/s   0
    |   pending    90000
    |   in flight  2
    |   retrying   1
    |   dead       17
    |   runs       half 500µs, 99 % 500µs
    |   decided    1234
    |   stream     ORDERS, consumer points
    |   module     64c5412009ee
    |
    |    ▂▅█  done in the last minute
    |
    | points: its consumer delivers nothing
    |
    |   $ jetmesh dlq ls --group --handler points
    |   $ jetmesh retrying --handler points
    |   $ jetmesh pause points --reason WHY
    |
    |
    |
    |
    | Esc back   ↑↓ another handler   q quit
    "#);
}

#[test]
fn what_is_not_news_is_told_to_be_old_whether_or_not_it_is_known_why() {
    let (mut status, rates) = (status(), rates());
    status.handlers[0].oldest = Some("2026-05-01T07:57:00Z".to_owned());
    status.handlers[0].pending = Some(0);
    let first_lines = |stale_ms: Option<u64>, trouble: Option<&str>| {
        let seen = TopView {
            status: &status,
            rates: &rates,
            stale_ms,
            trouble,
            now_ms: parse_rfc3339(NOW).expect("a time"),
        };
        let alone = Choice {
            alone: true,
            ..Choice::default()
        };
        let lines = page(&seen, &alone, (90, 30));
        lines.into_iter().map(|line| line.text).collect::<Vec<_>>()
    };
    let refused = Some("cannot connect to NATS");
    assert_eq!(
        first_lines(Some(8000), refused)[1],
        "what is shown is 8s old: cannot connect to NATS"
    );
    assert_eq!(
        first_lines(Some(8000), None)[1],
        "what is shown is 8s old: NATS or the hosts have not answered since"
    );
    assert_eq!(first_lines(None, refused)[1], "error: cannot connect to NATS");
    let news = first_lines(None, None);
    assert_eq!(news[1], "");
    let told = |line: &str| news.iter().any(|one| one == line);
    assert!(told("  pending    0"), "{news:#?}");
    assert!(told("  oldest     stored 3m ago"), "{news:#?}");
}

#[test]
fn what_is_not_known_is_told_as_such_and_is_not_zero() {
    let mut status = status();
    status.hosts = None;
    for one in &mut status.handlers {
        (one.pending, one.in_flight, one.retrying, one.dead) = (None, None, None, None);
        (one.decided, one.state) = (Some(None), HandlerState::Unknown);
    }
    status.unknown = vec![UnknownField::Dead.because("no answer within the time limit".to_owned())];
    let rates = MeshRates::default();
    let lines = |status: &MeshStatus, alone: bool| {
        let seen = TopView {
            status,
            rates: &rates,
            stale_ms: None,
            trouble: None,
            now_ms: parse_rfc3339(NOW).expect("a time"),
        };
        let choice = Choice {
            alone,
            ..Choice::default()
        };
        let page = page(&seen, &choice, (140, 24));
        page.into_iter().map(|line| line.text).collect::<Vec<_>>()
    };
    let all = lines(&status, false);
    assert_eq!(all[0], "08:00:00Z  mesh shop  ? host(s)  ? done/s  ? pending  ? dead");
    let row: Vec<&str> = all[2].split_whitespace().collect();
    assert_eq!(
        row[..10],
        ["inventory", "unknown", "?", "?", "?", "?", "?", "?", "?", "?"],
        "{all:#?}"
    );
    let why = "how many dead letters there are is not known: no answer within the time limit";
    assert!(all.iter().any(|line| line == why), "{all:#?}");
    let one = lines(&status, true);
    for name in [
        "done/s",
        "failed/s",
        "runs",
        "in flight",
        "pending",
        "retrying",
        "dead",
        "decided",
    ] {
        let line = format!("  {name:9}  ?");
        assert!(one.contains(&line), "{name}: {one:#?}");
    }
    // Some are known: it is as many at least.
    (status.handlers[0].pending, status.handlers[0].dead) = (Some(12), Some(0));
    assert_eq!(
        lines(&status, false)[0],
        "08:00:00Z  mesh shop  ? host(s)  ? done/s  12+ pending  0+ dead"
    );
}

#[test]
fn on_a_low_screen_a_handler_alone_still_has_its_reasons_and_its_commands() {
    let mut status = status();
    status.handlers[1].why =
        Some("its circuit is open; ".to_owned() + &"17 events wait: stream BILLS takes nothing, ".repeat(3));
    let rates = rates();
    let lines = |size: (usize, usize)| {
        let seen = TopView {
            status: &status,
            rates: &rates,
            stale_ms: None,
            trouble: None,
            now_ms: parse_rfc3339(NOW).expect("a time"),
        };
        let choice = Choice {
            handler: Some("points".to_owned()),
            alone: true,
            ..Choice::default()
        };
        let page = page(&seen, &choice, size);
        assert!(page.iter().all(|line| line.text.width() <= size.0), "{page:#?}");
        assert_eq!(page.len(), size.1);
        page.into_iter().map(|line| line.text).collect::<Vec<_>>()
    };
    for size in [(80, 24), (80, 12), (50, 10), (160, 50)] {
        let lines = lines(size);
        let commands = [
            "dlq ls --group --handler points",
            "retrying --handler points",
            "pause points",
        ];
        for command in commands {
            let command = format!("  $ jetmesh {command}");
            assert!(
                lines.iter().any(|line| line.starts_with(&command)),
                "{size:?} {command}: {lines:#?}"
            );
        }
        let text = lines.join(" ");
        assert!(text.contains("its circuit is open"), "{size:?}: {lines:#?}");
        assert!(
            lines.iter().any(|line| line.contains("done/s     5.0")),
            "{size:?}: {lines:#?}"
        );
    }
    insta::assert_snapshot!(lines((80, 12)).join("\n"), @r#"
    08:00:00Z  mesh shop  1 host(s)  505+ done/s  90012 pending  20 dead
    points: degraded
      done/s     5.0                          failed/s   0
      pending    90000                        in flight  2
      retrying   1                            dead       17
    points is degraded: its circuit is open; 17 events wait: stream BILLS takes
    nothing, 17 events wait: stream BILLS takes nothing, 17 events wait: stream
    and 2 more lines: `jetmesh status` has all
      $ jetmesh dlq ls --group --handler points
      $ jetmesh retrying --handler points
      $ jetmesh pause points --reason WHY
    Esc back   ↑↓ another handler   q quit
    "#);
}
