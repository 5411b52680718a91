//! What a viewer does about what waits, and about a replay that runs, in a real browser.

use async_nats::jetstream::stream::{self, DiscardPolicy};
use serde_json::json;

use super::admin_address;
use crate::mesh::{Config, Mesh};
use crate::support::browser::{Browser, Page};
use crate::support::modules;

/// The rows of a table.
async fn rows(browser: &mut Browser, page: &Page, table: &str, wanted: &str) {
    let all = format!("[...document.querySelectorAll('{table} tbody tr')].map((one) => one.textContent)");
    browser.until(page, &format!("({wanted})({all})")).await;
}

async fn confirm(browser: &mut Browser, page: &Page, command: &str, verb: &str) {
    let told = format!("document.querySelector('dialog code')?.textContent.startsWith({command:?})");
    browser.until(page, &told).await;
    browser.click(page, "dialog button[type=submit]", verb).await;
    browser.until(page, "!document.querySelector('dialog')").await;
}

#[tokio::test]
async fn what_waits_is_run_or_given_up_a_schedule_is_paused_and_a_replay_is_stopped() {
    let Some(mut browser) = Browser::start() else { return };
    let lines = "bucket = \"probe\"\npublish = [\"events.>\", \"full.>\"]\nbackoff = \"5m\"\nmax_attempts = 5";
    let config = Config::new()
        .handler("probe", &modules::handler("probe"), lines)
        .table("[schedules.nightly]\nevery = \"24h\"\nsubject = \"orders.night\"");
    let mesh = Mesh::new(config).await;
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = admin_address(&host).await;
    for number in 0..2 {
        mesh.order(json!({ "op": "retry", "code": "later", "message": format!("not now {number}") }))
            .await;
    }
    let page = browser.page(1280, 900).await;
    browser.open(&page, &format!("http://{address}/#/waiting")).await;
    browser
        .until(&page, "document.querySelector('.pulse')?.textContent === 'live'")
        .await;
    // Both wait for their second attempt; one is run now, and waits for its third.
    let attempts = |first: &str, second: &str| {
        format!(
            "(all) => all.length === 2 && all.some((one) => one.includes('{first} of 5')) && all.some((one) => one.includes('{second} of 5'))"
        )
    };
    let both = "(all) => all.length === 2 && all.every((one) => one.includes('1 of 5'))";
    let asked =
        "[...document.querySelectorAll('#main button')].find((one) => one.textContent === 'Read again')?.click()";
    crate::support::eventually("both to be recorded", crate::support::wait::SOON, async || {
        browser.value(&page, &format!("void {asked}")).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let all = "[...document.querySelectorAll('.retrying tbody tr')].map((one) => one.textContent)";
        (browser.value(&page, &format!("({both})({all})")).await == true).then_some(())
    })
    .await;
    browser
        .value(&page, "void document.querySelector('.retrying tbody input').click()")
        .await;
    browser.click(&page, ".card:has(.retrying) button", "Run now").await;
    confirm(&mut browser, &page, "jetmesh retrying now probe.", "Run now").await;
    rows(&mut browser, &page, ".retrying", &attempts("1", "2")).await;
    // The other one is given up, and is a dead letter with the reason.
    let first =
        "[...document.querySelectorAll('.retrying tbody tr')].find((one) => one.textContent.includes('1 of 5'))";
    browser
        .value(&page, &format!("void {first}.querySelector('input').click()"))
        .await;
    browser.click(&page, ".card:has(.retrying) button", "Give up").await;
    browser.fill(&page, "#g-reason", "it's over").await;
    confirm(&mut browser, &page, "jetmesh retrying give-up probe.", "Give up").await;
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].header("Mesh-Cause"), Some("gave-up"));
    // A schedule stands still until it is resumed.
    let schedule = "(all) => all.some((one) => one.startsWith('nightly') && one.includes('paused') === ";
    for (verb, paused) in [("Pause", true), ("Resume", false)] {
        browser.click(&page, "[aria-label=Schedules] button", verb).await;
        let command = format!("jetmesh schedule {} nightly", verb.to_lowercase());
        confirm(&mut browser, &page, &command, verb).await;
        rows(
            &mut browser,
            &page,
            "[aria-label=Schedules]",
            &format!("{schedule}{paused})"),
        )
        .await;
    }
    // A replay that goes slowly is stopped: what was not sent stays a dead letter.
    for _ in 0..8 {
        mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
            .await;
    }
    mesh.wait_letters(9).await;
    browser
        .value(&page, "void (location.hash = '#/letters?code=no&list=all')")
        .await;
    browser.click(&page, "button", "Replay all of these").await;
    browser.fill(&page, "#r-rate", "0.5").await;
    browser.fill(&page, "#r-failures", "100").await;
    browser
        .until(
            &page,
            "document.querySelector('dialog code')?.textContent.includes('--rate 0.5/s')",
        )
        .await;
    browser.click(&page, "dialog button[type=submit]", "Replay").await;
    browser
        .until(
            &page,
            "document.querySelector('.run .figures')?.textContent.includes('failed again')",
        )
        .await;
    browser.click(&page, ".run button", "Stop").await;
    browser
        .until(&page, "document.querySelector('.run .tag')?.textContent === 'stopped'")
        .await;
    let told = browser
        .value(&page, "document.querySelector('.run .figures').textContent")
        .await;
    let told = told.as_str().expect("text");
    assert!(told.contains(" not sent"), "{told}");
    mesh.wait_letters(9).await;
    // A target that takes nothing is named, with how many events wait for it, and what to do.
    let full = stream::Config {
        name: "FULL".to_owned(),
        subjects: vec!["full.>".to_owned()],
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..stream::Config::default()
    };
    mesh.js.create_stream(full).await.expect("the stream is made");
    let emit = json!({ "op": "emit", "subject": "full.a", "payload": 1 });
    mesh.order(json!([emit, emit])).await;
    browser.value(&page, "void (location.hash = '#/now')").await;
    let blocked = "[...document.querySelectorAll('.notes .note')].some((one) => one.textContent.startsWith('FULL has taken nothing from the relay of probe for ') && \
                   (one.textContent.includes('1 event waits for it') || one.textContent.includes('1 event became a dead letter')) && one.textContent.includes('nats stream edit FULL'))";
    browser.until(&page, blocked).await;
    assert_eq!(browser.complaints, Vec::<String>::new());
}
