//! The registry of modules in a real browser: a version is rehearsed, promoted, and rolled back.

use serde_json::{Value, json};

use super::wire::{get, log_in, post};
use super::{TAKES_MODULES, admin_address};
use crate::mesh::says;
use crate::modules::version;
use crate::registry::serving_with;
use crate::support::browser::Browser;
use crate::support::wait::SOON;
use crate::support::{eventually, http};

#[tokio::test]
async fn a_version_is_promoted_and_rolled_back_in_a_browser_with_its_history_and_a_record() {
    let Some(mut browser) = Browser::start() else { return };
    let (mesh, host, [first, second]) = serving_with(&TAKES_MODULES, "").await;
    let address = admin_address(&host).await;
    let page = browser.page(1280, 900).await;
    browser.open(&page, &format!("http://{address}/")).await;
    browser.value(&page, "void (location.hash = '#/modules')").await;
    let card = "document.querySelector('[aria-label=\"Registry: probe\"]')";
    browser
        .until(&page, &format!("{card}?.textContent.includes('followed by probe')"))
        .await;
    browser
        .until(&page, &format!("{card}.querySelectorAll('tbody tr').length === 2"))
        .await;
    assert_eq!(version(&mesh, 0).await, "1");
    browser
        .click(&page, "[aria-label=\"Registry: probe\"] tbody button", "Promote")
        .await;
    browser.fill(&page, "#m-note", "it's <b>new</b>").await;
    let command = "jetmesh modules promote probe 2.0.0 --note 'it'\\\\''s <b>new</b>'";
    browser
        .until(
            &page,
            &format!("document.querySelector('dialog code')?.textContent === \"{command}\""),
        )
        .await;
    browser.click(&page, "dialog button[type=submit]", "Promote").await;
    browser
        .until(
            &page,
            &format!("{card}?.textContent.includes('promoted to {} (2.0.0)')", &second[..12]),
        )
        .await;
    assert_eq!(version(&mesh, 1).await, "2");
    browser
        .click(&page, "[aria-label=\"Registry: probe\"] .head button", "Roll back")
        .await;
    browser.click(&page, "dialog button[type=submit]", "Roll back").await;
    browser
        .until(
            &page,
            &format!("{card}?.textContent.includes('rolled back to {}')", &first[..12]),
        )
        .await;
    assert_eq!(version(&mesh, 2).await, "1");
    browser
        .click(&page, "[aria-label=\"Registry: probe\"] summary", "What it has served")
        .await;
    browser
        .until(&page, &format!("{card}.querySelectorAll('.timeline li').length === 3"))
        .await;
    browser
        .until(
            &page,
            &format!("{card}.querySelector('.timeline').textContent.includes('it\\'s <b>new</b>')"),
        )
        .await;
    let records = mesh
        .jetmesh_ok(&["audit", "--json", "--on", "probe", "--action", "modules-rollback"])
        .await;
    let record: Value = serde_json::from_str(records.lines().next().expect("a record")).expect("JSON");
    assert_eq!(
        (&record["from"], &record["command"]),
        (&json!("console"), &json!("jetmesh modules rollback probe"))
    );
    assert_eq!(browser.refused, Vec::<String>::new());
}

#[tokio::test]
async fn a_page_that_is_out_of_date_changes_nothing_and_letters_are_rehearsed_on_a_version() {
    let (mesh, host, [_, second]) = serving_with(&TAKES_MODULES, "max_attempts = 1").await;
    let address = admin_address(&host).await;
    let (cookie, csrf) = log_in(address, &json!({ "way": "nothing" })).await;
    let headers = [cookie.as_str(), csrf.as_str()];
    let names = get(address, "registry", &cookie).await.json();
    let revision = names["names"][0]["revision"].as_u64().expect("a revision");
    let order = |upon: u64| json!({ "name": "probe", "version": "2.0.0", "note": null, "upon": upon });
    let answer = post(address, "modules-promote", &headers, &order(revision - 1)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("was changed meanwhile"), "{}", answer.body);
    let answer = post(address, "modules-hold", &headers, &order(revision)).await;
    assert!(
        answer.status == 400 && answer.body.contains("a hold is of none"),
        "{}",
        answer.body
    );
    mesh.order(json!({ "op": "reject", "code": "a", "message": "b" })).await;
    mesh.wait_letters(1).await;
    let rehearsed = async |version: &str| {
        let order = json!({ "selection": { "conditions": { "code": "a" } }, "module": null, "version": version });
        let answer = post(address, "rehearse", &headers, &order).await;
        let last = answer
            .body
            .lines()
            .rfind(|line| line.starts_with('{'))
            .expect("a line")
            .to_owned();
        serde_json::from_str::<Value>(&last).expect("JSON")
    };
    let summary = rehearsed("2.0.0").await;
    assert_eq!(summary["summary"]["modules"]["probe"], second[..12], "{summary}");
    let refused = rehearsed("3.0.0").await;
    assert!(
        refused["error"]
            .as_str()
            .is_some_and(|why| why.contains("has no version `3.0.0`")),
        "{refused}"
    );
    // The same by command, and nothing of it serves.
    let args = ["dlq", "rehearse", "--all", "--version", &second[..8], "--json"];
    let told = eventually("a rehearsal", SOON, async || Some(mesh.jetmesh(&args).await.1)).await;
    assert!(told.contains(&second[..12]), "{told}");
    assert_eq!(version(&mesh, 0).await, "1");
}

#[tokio::test]
async fn a_rollout_is_seen_by_status_metrics_and_browser_and_ended_there() {
    let Some(mut browser) = Browser::start() else { return };
    let (mesh, host, [first, second]) = serving_with(&TAKES_MODULES, "").await;
    let address = admin_address(&host).await;
    let promote = ["modules", "promote", "probe", &second, "--canary", "50%"];
    mesh.jetmesh_ok(&promote).await;
    host.wait_for_line(says(&["a canary takes over step by step"]), SOON)
        .await;
    for _ in 0..20 {
        mesh.order(json!({ "op": "ok" })).await;
    }
    mesh.wait_settled("ORDERS", "probe").await;
    let status = mesh.jetmesh_ok(&["status"]).await;
    let line = format!(
        "probe: version {} takes over step by step: it has 50 % of the events",
        &second[..12]
    );
    assert!(status.contains(&line), "{status}");
    let metrics = http::get(address, "/metrics").await.body;
    assert!(
        metrics.contains("jetmesh_rollout_share{handler=\"probe\"} 0.5\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("jetmesh_rollout_evidence{handler=\"probe\"} 1\n"),
        "{metrics}"
    );
    let page = browser.page(1280, 900).await;
    browser.open(&page, &format!("http://{address}/")).await;
    browser.value(&page, "void (location.hash = '#/modules')").await;
    let card = "document.querySelector('[aria-label=\"Registry: probe\"]')";
    browser
        .until(
            &page,
            &format!("{card}?.textContent.includes('takes over step by step')"),
        )
        .await;
    let handlers = "document.querySelector('[aria-label=\"Modules by handler\"]').textContent";
    browser
        .until(
            &page,
            &format!("{handlers}.includes('canary 50 %') && {handlers}.includes('evidence 1.0 of 100')"),
        )
        .await;
    browser
        .click(&page, "[aria-label=\"Registry: probe\"] .head button", "Roll back")
        .await;
    browser.click(&page, "dialog button[type=submit]", "Roll back").await;
    host.wait_for_line(says(&["the rollout is over"]), SOON).await;
    let record = mesh.messages("KV_mesh_modules", "$KV.mesh_modules.serving.probe").await;
    let record = record.last().expect("something is promoted").json();
    assert_eq!(
        (&record["digest"], &record["act"]),
        (&json!(first), &json!("rolled-back"))
    );
    assert!(
        !http::get(address, "/metrics")
            .await
            .body
            .contains("jetmesh_rollout_share{")
    );
}
