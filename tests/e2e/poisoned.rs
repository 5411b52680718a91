//! Poison events, their dead letters, and the judge of what becomes of them.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::mesh::{Config, Found, Mesh};
use crate::support::Host;

/// For the probe, it fails until the key `fix` has a value; then it writes a key of its own and emits. For others it is
/// nothing.
pub fn poison(number: usize) -> Value {
    json!([{ "op": "for", "handler": "probe", "do": [
        { "op": "need", "key": "fix" },
        { "op": "add", "key": format!("own.{number}"), "by": 1 },
        { "op": "emit", "subject": "events.worked", "payload": number },
    ] }])
}

/// The probe gives an event up at its first failure.
pub fn config() -> Config {
    Config::probe_with("max_attempts = 1")
}

/// Publishes the poison `from..to`, many at a time.
pub async fn publish(mesh: &Mesh, from: usize, to: usize) {
    let numbers: Vec<usize> = (from..to).collect();
    for chunk in numbers.chunks(500) {
        join_all(chunk.iter().map(|number| mesh.order(poison(*number)))).await;
    }
}

/// A mesh with a host and this number of dead letters.
pub async fn with_letters(count: usize) -> (Mesh, Host) {
    let (mesh, host) = Mesh::start(config()).await;
    publish(&mesh, 0, count).await;
    mesh.wait_letters(count).await;
    (mesh, host)
}

pub async fn fix(mesh: &Mesh) {
    mesh.put("probe", "fix", "yes").await;
}

/// Runs `jetmesh dlq replay` and returns its exit code and its account.
pub async fn replay(mesh: &Mesh, args: &[&str]) -> (Option<i32>, Value) {
    let args = [&["dlq", "replay", "--yes", "--json"], args].concat();
    let (status, stdout, stderr) = mesh.jetmesh(&args).await;
    let account = serde_json::from_str(&stdout);
    (
        status.code(),
        account.unwrap_or_else(|_| panic!("no account\n{stdout}{stderr}")),
    )
}

/// What writing a letter again may add.
pub const NEW: [&str; 3] = ["Mesh-History", "Mesh-Dead-Since", "Mesh-Parts"];

/// A letter's body, also of one in parts.
pub async fn whole(mesh: &Mesh, letter: &Found) -> Vec<u8> {
    let parts = mesh.messages("MESH_DEAD", &format!("{}.part.*", letter.subject)).await;
    let parts: Vec<u8> = parts.iter().flat_map(|part| part.payload.to_vec()).collect();
    if letter.header("Mesh-Parts").is_some() {
        return parts;
    }
    letter.payload.to_vec()
}

/// Waits for this number of letters, by their subjects.
pub async fn by_subject(mesh: &Mesh, count: usize) -> Vec<Found> {
    let mut letters = mesh.wait_letters(count).await;
    letters.sort_by(|a, b| a.subject.cmp(&b.subject));
    letters
}

/// The replays in a letter's history.
pub fn history(letter: &Found) -> Vec<Value> {
    let header = letter.header("Mesh-History").unwrap_or("[]");
    let mut attempts: Vec<Value> = serde_json::from_str(header).expect("the history is JSON");
    attempts.retain(|attempt| attempt["replay"] == true);
    attempts
}

/// Judges, event by event, that each of the poison is dead once and then done once upon that death, with its write and
/// its emitted event, and that no letter is left.
pub async fn judge(mesh: &Mesh, count: usize) {
    mesh.wait_letters(0).await;
    mesh.wait_settled("KV_probe", "mesh-relay").await;
    let entries = mesh.messages("KV_probe", "$MESH.state.probe.ledger.>").await;
    let mut fates: BTreeMap<String, Vec<(u64, String, Value)>> = BTreeMap::new();
    for entry in &entries {
        let entry = entry.json();
        let number = entry["n"].as_u64().expect("an entry has a number");
        for decision in entry["decisions"].as_array().expect("an entry has decisions") {
            let text = |name: &str| decision[name].as_str().expect("it is text").to_owned();
            let fate = (number, text("verdict"), decision["follows_death"].clone());
            fates.entry(text("event")).or_default().push(fate);
        }
    }
    assert_eq!(fates.len(), count, "events decided");
    for (event, fates) in &fates {
        let [(died, dead, _), (_, done, follows)] = fates.as_slice() else {
            panic!("{event} is decided otherwise than dead and done: {fates:?}");
        };
        assert_eq!((dead.as_str(), done.as_str()), ("dead", "done"), "{event}");
        assert_eq!(follows, &json!(died), "{event} is done upon another death than its own");
    }
    let emitted = mesh.emitted().await;
    let causes: BTreeSet<&str> = emitted
        .iter()
        .map(|event| event.header("Mesh-Cause-Event").expect("it names its cause"))
        .collect();
    assert_eq!((emitted.len(), causes.len()), (count, count), "each emitted once");
    let own = mesh.messages("KV_probe", "$KV.probe.own.*").await;
    assert_eq!(own.len(), count, "each has written");
    let twice: Vec<&str> = own
        .iter()
        .filter(|key| key.payload != "1")
        .map(|key| key.subject.as_str())
        .collect();
    assert!(twice.is_empty(), "written more than once: {twice:?}");
}
