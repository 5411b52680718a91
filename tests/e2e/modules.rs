//! Modules: replaced while they serve, refused when they cannot, and of any language.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::support::wait::SOON;
use crate::support::{Host, eventually, modules};

/// Bytes of the probe that say another version of itself.
pub fn second_version() -> Vec<u8> {
    const FIRST: &[u8] = b"probe-version=1";
    let mut bytes = fs::read(modules::handler("probe")).expect("the probe is readable");
    let places: Vec<usize> = (0..bytes.len() - FIRST.len())
        .filter(|&i| bytes[i..].starts_with(FIRST))
        .collect();
    assert_eq!(places.len(), 1, "the probe says its version once");
    bytes[places[0] + FIRST.len() - 1] = b'2';
    bytes
}

/// A mesh whose probe is a file that the test may change.
pub async fn with_own_module(lines: &str) -> (Mesh, Host, PathBuf) {
    let mut mesh = Mesh::new(Config::new()).await;
    let module = mesh.dir.path().join("modules/probe.wasm");
    fs::create_dir(mesh.dir.path().join("modules")).expect("the test's folder is writable");
    fs::copy(modules::handler("probe"), &module).expect("the test's folder is writable");
    let lines = format!("bucket = \"probe\"\npublish = [\"events.>\"]\n{lines}");
    mesh.config = Config::new().handler("probe", &module, &lines);
    let host = mesh.host(&[]).await;
    (mesh, host, module)
}

/// The version that answers the next event; `before` answered already.
pub async fn version(mesh: &Mesh, before: usize) -> Value {
    mesh.order(json!({ "op": "version", "subject": "events.version" }))
        .await;
    mesh.wait_emitted(before + 1).await.last().expect("there is one").json()
}

#[tokio::test]
async fn a_changed_module_serves_the_next_event() {
    let (mesh, host, module) = with_own_module("").await;
    assert_eq!(version(&mesh, 0).await, "1");
    fs::write(&module, second_version()).expect("the module can be changed");
    let swapped = host
        .wait_for_line(says(&["module swapped", "handler=probe"]), SOON)
        .await;
    assert_eq!(version(&mesh, 1).await, "2");
    // Whatever is decided says by which version.
    let decisions = mesh.decisions("probe").await;
    let digest = |n: usize| {
        decisions[n]["module"]
            .as_str()
            .expect("a decision names its module")
            .to_owned()
    };
    assert_ne!(digest(0), digest(1));
    for text in [format!("old={}", digest(0)), format!("new={}", digest(1))] {
        assert!(swapped.contains(&text), "{text} is not in {swapped}");
    }
    // A file that is replaced by another of its name is a change as well.
    let other = module.with_extension("new");
    fs::copy(modules::handler("probe"), &other).expect("the test's folder is writable");
    fs::rename(&other, &module).expect("the module can be replaced");
    host.wait_for_line(says(&["module swapped", &format!("new={}", digest(0))]), SOON)
        .await;
    assert_eq!(version(&mesh, 2).await, "1");
}

#[tokio::test]
async fn a_reused_instance_of_an_old_module_serves_no_event_after_the_swap() {
    let (mesh, host, module) = with_own_module("instance = \"reused\"\nconcurrency = 1").await;
    assert_eq!(version(&mesh, 0).await, "1");
    fs::write(&module, second_version()).expect("the module can be changed");
    host.wait_for_line(says(&["module swapped"]), SOON).await;
    assert_eq!(version(&mesh, 1).await, "2");
}

#[tokio::test]
async fn an_event_in_flight_ends_on_the_module_it_began_on() {
    let (mesh, host, module) = with_own_module("").await;
    mesh.order(json!([{ "op": "sleep", "ms": 8000 }, { "op": "version", "subject": "events.version" }]))
        .await;
    fs::write(&module, second_version()).expect("the module can be changed");
    host.wait_for_line(says(&["module swapped"]), SOON).await;
    assert_eq!(
        mesh.decisions("probe").await,
        Vec::<Value>::new(),
        "the first event still runs"
    );
    assert_eq!(version(&mesh, 0).await, "2");
    let events = mesh.wait_emitted(2).await;
    assert_eq!(events[1].json(), "1");
    assert!(
        !host.lines().iter().any(|line| line.contains("will be retried")),
        "nothing ran twice"
    );
}

#[tokio::test]
async fn a_bad_file_leaves_the_old_module_serving_and_says_so() {
    const KEPT: &str = "the changed module cannot serve; the old one continues to serve";
    let (mesh, host, module) = with_own_module("").await;
    let good = fs::read(&module).expect("the module is readable");
    let core = b"\0asm\x01\0\0\0".to_vec();
    let bad = [
        (b"no module at all".to_vec(), "not a WebAssembly file"),
        (vec![], "it is empty"),
        (core, "a core module, not a component"),
        (good[..good.len() / 2].to_vec(), "not a valid component"),
        (
            b"\0asm\x0d\0\x01\0".to_vec(),
            "it does not export jetmesh:handler/handler@0.1.0; it exports nothing",
        ),
    ];
    for (bytes, reason) in &bad {
        fs::write(&module, bytes).expect("the module can be changed");
        let line = host.wait_for_line(says(&[KEPT, reason]), SOON).await;
        assert!(line.contains("probe.wasm"), "it does not name the file: {line}");
    }
    let told = eventually("the status to tell of the last one", SOON, async || {
        let text = mesh.jetmesh_ok(&["status"]).await;
        text.contains(bad[bad.len() - 1].1).then_some(text)
    })
    .await;
    let kept = "probe is served with the module it had (for ";
    assert!(
        told.contains(kept) && told.contains("a newer module is not taken up: ") && told.contains("probe.wasm"),
        "{told}"
    );
    fs::remove_file(&module).expect("the module can be removed");
    host.wait_for_line(says(&["the module file does not exist"]), SOON)
        .await;
    assert_eq!(version(&mesh, 0).await, "1");
    let refusals = host.lines().iter().filter(|line| line.contains(KEPT)).count();
    assert_eq!(refusals, bad.len(), "each is said once");
    fs::write(&module, second_version()).expect("the module can be changed");
    host.wait_for_line(says(&["module swapped"]), SOON).await;
    assert_eq!(version(&mesh, 1).await, "2");
    let text = mesh.jetmesh_ok(&["status"]).await;
    assert!(!text.contains(kept), "{text}");
}

#[tokio::test]
async fn a_handler_in_javascript_does_the_same_as_the_one_in_rust() {
    let Some(javascript) = modules::js_handler() else {
        return;
    };
    let lines = |name: &str| {
        format!(
            "bucket = \"{name}\"\npublish = [\"points.*\"]\nin_flight = 1\nconcurrency = 1\ntimeout = \"30s\"\n\
             [handlers.{name}.settings]\nper_100_cents = 3"
        )
    };
    let config = Config::new()
        .handler("rust", &modules::handler("points"), &lines("rust"))
        .handler("javascript", &javascript, &lines("javascript"));
    let (mesh, _host) = Mesh::start(config).await;
    for bucket in ["rust", "javascript"] {
        mesh.put(bucket, "balance.u-corrupt", "many").await;
        mesh.put(bucket, "balance.u-2", "40").await;
    }
    let order =
        |user: &str, total: Value| json!({ "order_id": "o-ü", "user_id": user, "total_cents": total }).to_string();
    let orders = [
        order("u-1", json!(250)),
        order("u-1", json!(99)),
        order("u-1", json!(100_000)),
        order("u-2", json!(100)),
        order("u-corrupt", json!(100)),
        order("u 3", json!(100)),
        order("", json!(100)),
        order("u..4", json!(100)),
        order("u-5", json!(null)),
        order("u-6", json!(-1)),
        order("u-7", json!("100")),
        json!({ "order_id": "o", "total_cents": 1 }).to_string(),
        json!([]).to_string(),
        "{".to_owned(),
        String::new(),
    ];
    for order in &orders {
        mesh.publish("orders.created", order.clone()).await;
    }
    let (good, bad) = (4, orders.len() - 4);
    let events = mesh.wait_emitted(2 * good).await;
    let letters = mesh.wait_letters(2 * bad).await;
    let of = async |handler: &str| {
        let events = events
            .iter()
            .filter(|event| event.header("Mesh-Cause-Handler") == Some(handler));
        let events: Vec<(String, Value)> = events.map(|event| (event.subject.clone(), event.json())).collect();
        let letters = letters
            .iter()
            .filter(|letter| letter.header("Mesh-Handler") == Some(handler));
        let header = |name| move |letter: &crate::mesh::Found| letter.header(name).unwrap_or_default().to_owned();
        let codes: Vec<(u64, String)> = letters
            .map(|letter| {
                (
                    header("Mesh-Sequence")(letter).parse().expect("a number"),
                    header("Mesh-Code")(letter),
                )
            })
            .collect();
        let mut balances = Vec::new();
        for user in ["u-1", "u-2", "u-corrupt", "u-5", "u-6", "u-7"] {
            balances.push(mesh.value(handler, &format!("balance.{user}")).await);
        }
        (events, codes, balances)
    };
    let rust = of("rust").await;
    assert_eq!(rust, of("javascript").await);
    let codes: Vec<&str> = rust.1.iter().map(|(_, code)| code.as_str()).collect();
    let malformed = ["malformed-json"; 6];
    let expected = [
        &[
            "corrupt-balance",
            "invalid-user",
            "invalid-user",
            "invalid-user",
            "missing-total",
        ][..],
        &malformed,
    ];
    assert_eq!(codes, expected.concat());
    let balances: Vec<Option<&str>> = rust.2.iter().map(|balance| balance.as_deref()).collect();
    assert_eq!(balances, [Some("3006"), Some("43"), Some("many"), None, None, None]);
}
