//! The redrive, in the rounds whose point is in it: orders that fail until a person has written a key. The mesh replays their dead
//! letters by itself, as often as it may.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::mesh::{Found, Mesh};
use crate::orders::{self, Order, Step};

/// What `max_times` can be in a round.
pub const TIMES_MAX: RangeInclusive<usize> = 1..=2;
/// How the keys of its schedules in the mesh's own bucket begin.
pub const KEYS: &str = "redrive.";
/// Orders need this key.
pub const FIX: &str = "fix";
/// One order of so many needs the key.
const NEEDED_BY: usize = 3;
/// Only these orders never succeed. They come first, and so do their letters in a round of redrive, in which few may fail: a host that
/// has begun a round and goes on late begins with them.
const HOPELESS: [usize; 3] = [0, 1, 2];

pub fn table(times_max: usize) -> String {
    format!("[redrive]\nevery = \"1s\"\nafter = \"0s\"\nbackoff = \"1s\"\nmax_times = {times_max}")
}

/// Has orders fail until the key is there, and a few for ever.
pub fn spoil(orders: &mut [Order]) {
    let need = || Step::Need { key: FIX.to_owned() };
    for order in orders {
        for steps in &mut order.steps {
            steps.retain(|step| !matches!(step, Step::Retry { .. } | Step::Trap));
            if HOPELESS.contains(&order.number) {
                steps.insert(0, orders::never());
            }
        }
        if order.number.is_multiple_of(NEEDED_BY) && !HOPELESS.contains(&order.number) {
            // The third handler reads no keys.
            order.steps[order.number % 2].insert(0, need());
        }
    }
}

/// Whether each letter is resolved or was replayed as often as it may be.
pub async fn are_over(mesh: &Mesh, times_max: usize) -> bool {
    let letters = mesh.messages("MESH_DEAD", "$MESH.dead.*.*.*.*").await;
    let mut waiting = letters
        .iter()
        .filter(|letter| letter.header("Mesh-Cause") == Some("exhausted"));
    waiting.all(|letter| counted(letter) >= times_max)
}

/// How often a letter was replayed by the mesh, as it says itself.
fn counted(letter: &Found) -> usize {
    let count = letter.header("Mesh-Redriven").unwrap_or("0");
    count.parse().expect("it is a number")
}

/// What is wrong with the replays of the letter of an event that is dead.
pub fn judge(letter: &Found, times_max: usize) -> Option<String> {
    let history = letter.header("Mesh-History").unwrap_or("[]");
    let history: Vec<Value> = serde_json::from_str(history).expect("a history is JSON");
    let is_redrive = |one: &&Value| {
        let run = one["asked_by"].as_str().unwrap_or_default();
        one["replay"] == true && run.starts_with("redrive")
    };
    let told = history.iter().filter(is_redrive).count();
    let expected = match letter.header("Mesh-Cause") {
        Some("exhausted") => times_max,
        _ => 0,
    };
    let counted = counted(letter);
    ((counted, told) != (expected, expected)).then(|| {
        format!(
            "{} was replayed {counted} times by its count and {told} times by its history, and ought to be {expected} times",
            letter.subject
        )
    })
}
