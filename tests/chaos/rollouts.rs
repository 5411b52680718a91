//! A rollout of one handler's module, in the rounds whose point is in the code that runs it: the canary fails in half of them. The
//! auditor has its own hash of the shares, and its own idea of which version an event must end on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::mesh::{Mesh, PATIENT};
use crate::orders::{HANDLERS, Order, SHARED, Step};
use crate::points::Work;
use crate::round::Round;
use crate::support::{Host, modules};

/// The place among [`HANDLERS`] of the one whose module is rolled out.
const PLACE: usize = 1;
const FIRST: &[u8] = b"probe-version=1";
/// Steps, so that a canary that is no worse comes to its end within a round.
const HOW: [&str; 6] = ["--canary", "30%,60%", "--each", "8 events, 0s", "--margin", "45%"];

/// Where a handler's module comes from.
pub fn module(round: &Round, handler: &str) -> PathBuf {
    match round.point.work == Work::Rollout && handler == HANDLERS[PLACE].0 {
        true => PathBuf::from("registry"),
        false => modules::handler("probe"),
    }
}

/// Has the canary fail on some orders, in every second round.
pub fn spoil(orders: &mut [Order], seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    if rng.random_ratio(1, 2) {
        return;
    }
    for order in orders {
        let steps = &mut order.steps[PLACE];
        let at = rng.random_range(0..=steps.len());
        let failure = match rng.random_range(0..3) {
            0 => Step::Trap,
            1 => Step::Reject {
                code: "canary".to_owned(),
                message: "as ordered".to_owned(),
            },
            _ => continue,
        };
        steps.insert(
            at,
            Step::InVersion {
                version: "2".to_owned(),
                steps: vec![failure],
            },
        );
    }
}

/// Promotes the first version, and begins a rollout of the second.
pub async fn begin(mesh: &Mesh) {
    let handler = HANDLERS[PLACE].0;
    let first = std::fs::read(modules::handler("probe")).expect("the probe is readable");
    let mut second = first.clone();
    let at = first.windows(FIRST.len()).position(|window| window == FIRST);
    second[at.expect("it says its version") + FIRST.len() - 1] = b'2';
    for (version, bytes) in [("1", first), ("2", second)] {
        let path = mesh.dir.path().join(format!("version-{version}.wasm"));
        std::fs::write(&path, bytes).expect("the round's folder is writable");
        let path = path.to_str().expect("UTF-8");
        mesh.jetmesh_ok(&["modules", "push", path, "--as", handler, "--version", version])
            .await;
        let promote = ["modules", "promote", handler, version];
        let how = if version == "2" { &HOW[..] } else { &[] };
        mesh.jetmesh_ok(&[&promote, how].concat()).await;
    }
}

/// A host compiles the canary when it serves already.
pub async fn wait_taken(round: &Round, host: &Host) {
    if round.point.work != Work::Rollout {
        return;
    }
    let taken = |line: &str| line.contains("a canary takes over step by step");
    host.wait_for_line(taken, PATIENT).await;
}

/// What is wrong with what the ledger says of the rollout.
pub async fn judge(mesh: &Mesh) -> Vec<String> {
    let handler = HANDLERS[PLACE].0;
    let mut problems = Vec::new();
    let entries = mesh
        .messages(&format!("KV_{SHARED}"), &format!("$MESH.state.{SHARED}.ledger.>"))
        .await;
    let entries: Vec<Value> = entries.iter().map(|entry| entry.json()).collect();
    let list = |entry: &Value, name: &str| entry[name].as_array().cloned().unwrap_or_default();
    let Some(spec) = entries
        .iter()
        .map(|entry| &entry["rollouts"][handler])
        .find(|spec| spec.is_object())
    else {
        return vec!["no first attempt was counted".to_owned()];
    };
    let number = spec["number"].as_u64().expect("a number");
    let mut trials: BTreeMap<String, Value> = BTreeMap::new();
    for trial in entries.iter().flat_map(|entry| list(entry, "trials")) {
        let event = trial["event"].as_str().expect("an event").to_owned();
        let step = trial["step"]
            .as_u64()
            .and_then(|step| usize::try_from(step).ok())
            .expect("a step");
        let share = spec["steps"][step]["share"].as_u64().expect("a share");
        let canary = trial["on"] == "canary";
        if canary != (drawn(number, &event) < share) {
            problems.push(format!(
                "{event} ran on the canary: {canary}; that is not its share of {share} millionths"
            ));
        }
        if trials.insert(event.clone(), trial).is_some() {
            problems.push(format!("{event} was counted twice"));
        }
    }
    // What has failed on the canary ends on the serving version, unless the rollout has ended meanwhile.
    let serving = &spec["serving"].as_str().expect("a digest")[..12];
    let decisions = entries.iter().flat_map(|entry| list(entry, "decisions"));
    for decision in decisions.filter(|decision| decision["handler"] == handler && decision["verdict"] == "done") {
        let trial = decision["event"].as_str().and_then(|event| trials.get(event));
        let failed = trial.is_some_and(|trial| trial["canary"] == "failed" && trial["on"] == "canary");
        if failed && decision["attempt"] == 1 && decision["module"] != serving {
            problems.push(format!(
                "{} has failed on the canary, and was done by it",
                decision["event"]
            ));
        }
    }
    let (_, told, error) = mesh.jetmesh(&["modules", "why", handler, "--json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap_or_default();
    if told["handlers"][0]["rollout"]["derived"] != true {
        problems.push(format!(
            "the head of the ledger is not what its entries show: {told} {error}"
        ));
    }
    problems
}

/// Where an event lies, in millionths: FNV-1a of the rollout's number and the event, with MurmurHash3's finish.
fn drawn(number: u64, event: &str) -> u64 {
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in number.to_le_bytes().iter().chain(event.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)) % 1_000_000
}
