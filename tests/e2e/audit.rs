//! The judge of the fault tests: it knows only what was published, and looks event by event at what is there afterwards.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::mesh::{Mesh, PATIENT};
use crate::support::eventually;

/// What each event of the fault tests does: adds one to one of a few keys, marks a key of its own, emits.
pub fn work(number: usize, keys: usize) -> Value {
    json!([
        { "op": "add", "key": format!("sum.{}", number % keys), "by": 1 },
        { "op": "add", "key": format!("own.{number}"), "by": 1 },
        { "op": "emit", "subject": "events.worked", "payload": number },
    ])
}

/// Publishes the work `0..count`.
pub async fn publish_work(mesh: &Mesh, count: usize, keys: usize) {
    publish_work_from(mesh, 0, count, keys).await;
}

/// The orders of numbers from `from` to before `to`.
pub async fn publish_work_from(mesh: &Mesh, from: usize, to: usize, keys: usize) {
    for number in from..to {
        mesh.order(work(number, keys)).await;
    }
}

/// Waits until everything is decided, answered and published, and judges it: each event done once, its two writes made once,
/// its event emitted once, and no dead letter.
pub async fn judge(mesh: &Mesh, count: usize, keys: usize) {
    judge_with_letters(mesh, count, keys, 0).await;
}

/// The same, with this number of other events that are dead.
pub async fn judge_with_letters(mesh: &Mesh, count: usize, keys: usize, dead: usize) {
    mesh.wait_settled("ORDERS", "probe").await;
    eventually("every event to be decided", PATIENT, async || {
        (mesh.decisions("probe").await.len() >= count + dead).then_some(())
    })
    .await;
    eventually("every event to be emitted", PATIENT, async || {
        (mesh.emitted().await.len() >= count).then_some(())
    })
    .await;
    // A late duplicate would come before this.
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    let mut decided: BTreeMap<String, u32> = BTreeMap::new();
    let mut dead_lettered = 0;
    for decision in mesh.decisions("probe").await {
        if decision["verdict"] == "dead" {
            dead_lettered += 1;
            continue;
        }
        *decided
            .entry(decision["event"].as_str().expect("an event").to_owned())
            .or_default() += 1;
    }
    assert_eq!((decided.len(), dead_lettered), (count, dead), "events done and dead");
    let twice: Vec<_> = decided.iter().filter(|(_, n)| **n != 1).collect();
    assert!(twice.is_empty(), "decided more than once: {twice:?}");
    for number in 0..count {
        mesh.wait_value("probe", &format!("own.{number}"), "1").await;
    }
    for key in 0..keys.min(count) {
        let share = (0..count).filter(|n| n % keys == key).count();
        mesh.wait_value("probe", &format!("sum.{key}"), &share.to_string())
            .await;
    }
    let mut emitted: BTreeMap<String, u32> = BTreeMap::new();
    for event in mesh.emitted().await {
        let cause = event.header("Mesh-Cause-Event").expect("it names its cause").to_owned();
        *emitted.entry(cause).or_default() += 1;
    }
    assert_eq!(
        emitted.keys().collect::<Vec<_>>(),
        decided.keys().collect::<Vec<_>>(),
        "one emitted event for each cause"
    );
    let twice: Vec<_> = emitted.iter().filter(|(_, n)| **n != 1).collect();
    assert!(twice.is_empty(), "emitted more than once: {twice:?}");
    assert_eq!(
        mesh.wait_letters(dead).await.len(),
        dead,
        "one letter for each dead event"
    );
}
