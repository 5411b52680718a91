//! What the README shows works as it is shown.

use serde_json::json;

use crate::mesh::{Config, Mesh, says};
use crate::support::modules;
use crate::support::wait::SOON;

const README: &str = include_str!("../../README.md");
const SAMPLE: &str = include_str!("../../config/default.toml");
const INSTALLER: &str = include_str!("../../tools/install.sh");

/// The blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("\n```{language}\n");
    let mut blocks = README.split(begin.as_str());
    blocks.next();
    blocks
        .map(|rest| rest.split("\n```").next().expect("it ends"))
        .collect()
}

#[tokio::test]
async fn the_lines_that_add_a_handler_to_the_sample_make_one_that_serves_and_emits() {
    let lines = blocks("toml")
        .into_iter()
        .find(|block| block.contains("[handlers.refunds]"));
    let lines = lines.expect("the README shows them");
    let mesh = Mesh::new(Config::new()).await;
    let file = |text: &str| text.replace("nats://127.0.0.1:4222", &mesh.server.url());
    let module = |name: &str, text: String| {
        let path = modules::handler(name);
        let shown = format!("\"../handlers/target/wasm32-unknown-unknown/release/{name}.wasm\"");
        text.replace(&shown, &format!("{path:?}"))
    };
    let sample = ["inventory", "points", "notify"]
        .into_iter()
        .fold(file(SAMPLE), |text, name| module(name, text));
    // The tests' own handler does what the README's does, when it is told to.
    let refunds = lines.replace("\"refunds.wasm\"", &format!("{:?}", modules::handler("probe")));
    // As by somebody who adds them to a mesh that has run.
    let before = crate::support::Host::start(&sample, mesh.dir.path(), &[]);
    before.wait_for_line(says(&["serving", "handler=points "]), SOON).await;
    mesh.publish("orders.shipped", "{}").await;
    drop(before);
    let host = crate::support::Host::start(&format!("{sample}\n{refunds}\n"), mesh.dir.path(), &[]);
    host.wait_for_line(says(&["serving", "handler=refunds "]), SOON).await;
    let steps = json!({ "do": [
        { "op": "set", "key": "refunded.u-7", "value": "250" },
        { "op": "emit", "subject": "refunds.booked", "payload": { "total": 250 } },
    ] });
    mesh.publish("orders.refunded", steps.to_string()).await;
    mesh.wait_value("refunds", "refunded.u-7", "250").await;
    let booked = crate::support::eventually("the event", SOON, async || {
        mesh.messages("REFUNDS", "refunds.booked").await.into_iter().next()
    })
    .await;
    assert_eq!(booked.json(), json!({ "total": 250 }));
    assert!(mesh.letters().await.is_empty());
}

#[test]
fn the_readme_the_installer_and_the_host_name_the_same_versions() {
    let value = |name: &str| {
        let line = INSTALLER
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("the installer has no {name}"))
    };
    let (major, minor, patch) = jetmesh::broker::error::SERVER_MIN;
    assert_eq!(value("SERVER_OLDEST"), format!("{major}.{minor}.{patch}"));
    let said = format!(
        "It needs nats-server {} or newer (the tests run {})",
        value("SERVER_OLDEST"),
        value("SERVER_VERSION")
    );
    assert!(README.contains(&said), "the README does not say: {said}");
}
