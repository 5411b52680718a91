//! What viewers see and do, in a real browser: one browser, one server and one host for all of it.

use serde_json::{Value, json};

use super::{PASSWORD, with_users};
use crate::mesh::Mesh;
use crate::support::browser::{Browser, Page};

/// What would run if a page took it as anything but text.
const HOSTILE: &str = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>";

async fn log_in(browser: &mut Browser, page: &Page, url: &str, user: &str, password: &str) {
    browser.open(page, url).await;
    browser.fill(page, "#f-user", user).await;
    browser.fill(page, "#f-password", password).await;
    browser.click(page, "button", "Log in").await;
    browser
        .until(
            page,
            "document.querySelector('.handlers tbody tr')?.textContent.includes('probe')",
        )
        .await;
    browser
        .until(page, "document.querySelector('.pulse').textContent === 'live'")
        .await;
}

/// A letter that no replay helps, full of markup, and one that succeeds when the stock is there.
async fn letters(mesh: &Mesh) {
    let log = json!({ "op": "log", "level": "warn", "message": HOSTILE, "times": 1 });
    let reject: Value = json!({ "do": [log, { "op": "reject", "code": "no-such-sku", "message": HOSTILE }] });
    mesh.publish_with("orders.probe", &[("X-Note", HOSTILE)], reject.to_string())
        .await;
    let needs = json!({ "op": "need", "key": "stock" });
    mesh.order(needs).await;
    mesh.wait_letters(2).await;
    mesh.put("probe", "stock", "7").await;
}

#[tokio::test]
async fn a_broken_order_is_found_and_replayed_in_a_browser_and_others_look_on() {
    let Some(mut browser) = Browser::start() else { return };
    let (mut mesh, _host, address) = with_users().await;
    letters(&mesh).await;
    let url = format!("http://{address}/");
    let (anna, reader) = (browser.page(1280, 900).await, browser.page(360, 740).await);
    log_in(&mut browser, &anna, &url, "anna", PASSWORD).await;
    log_in(&mut browser, &reader, &url, "reader", "pw").await;
    // Nothing of that is an error to a browser.
    assert_eq!(browser.refused, Vec::<String>::new());
    // Both see what failed, as faults.
    browser
        .until(&anna, "document.querySelector('td.c-dead').textContent === '2'")
        .await;
    for page in [&anna, &reader] {
        browser.value(page, "void (location.hash = '#/letters')").await;
        browser
            .until(page, "document.querySelectorAll('.groups tbody tr').length === 2")
            .await;
    }
    let told =
        "document.querySelector('.hours').getAttribute('aria-label') === '1 in the last 24 hours, 1 in the last hour'";
    browser.until(&anna, told).await;
    // On a telephone a row is a card. Browsers differ in whether it is still a row for a screen reader, so each part says what it is.
    let parts = "const all = [...document.querySelectorAll('table, thead, tbody, tr, th, td')]; all.length > 20 && all.every((one) => one.getAttribute('role'))";
    assert_eq!(browser.value(&reader, &format!("{{ {parts} }}")).await, true);
    // The reader takes all as a file, and is told that it is whole.
    browser.click(&reader, "button", "Export all…").await;
    browser
        .until(
            &reader,
            "document.querySelector('dialog code')?.textContent === 'jetmesh dlq export --all --output FILE'",
        )
        .await;
    browser.click(&reader, "dialog button[type=submit]", "Download").await;
    let whole = "document.querySelector('.run[aria-label=Export]')?.textContent";
    browser
        .until(
            &reader,
            &format!("{whole}?.startsWith('Exportwhole') && {whole}.includes('2 letters in the file')"),
        )
        .await;
    browser.click(&reader, ".run[aria-label=Export] button", "×").await;
    // Text of others is text, in the list and in the letter.
    browser
        .click(&anna, ".groups tbody tr:has(td[title*='script']) a", "")
        .await;
    browser.click(&anna, ".letters a", "probe.").await;
    let whole = format!("document.querySelector('.error-text')?.textContent === {HOSTILE:?}");
    browser.until(&anna, &whole).await;
    let header = format!("[...document.querySelectorAll('dd')].some((one) => one.textContent === {HOSTILE:?})");
    browser.until(&anna, &header).await;
    let payload = browser
        .value(&anna, "document.querySelector('[aria-label=Payload] pre').textContent")
        .await;
    let payload: Value = serde_json::from_str(payload.as_str().expect("text")).expect("JSON, laid out");
    assert_eq!(payload["do"][1]["message"], HOSTILE);
    let logged = format!(
        "document.querySelector('[aria-label=\\'Log of the last attempt\\'] pre')?.textContent.includes({HOSTILE:?})"
    );
    browser.until(&anna, &logged).await;
    // Each of its actions has its command, and the time goes on without a request.
    let commands = "['show', 'edit', 'rehearse', 'replay', 'export', 'discard'].every((one) => document.querySelector('[aria-label=Commands]').textContent.includes(`jetmesh dlq ${one} probe.`))";
    browser.until(&anna, commands).await;
    let lasts = "document.querySelector('.title .soft').textContent";
    let before = browser.value(&anna, lasts).await;
    assert!(
        before.as_str().is_some_and(|told| told.contains("dead for ")),
        "{before}"
    );
    browser.until(&anna, &format!("{lasts} !== {before}")).await;
    assert_eq!(
        browser
            .value(&anna, "String(window.hacked) + document.images.length")
            .await,
        "undefined1"
    );
    // The payload is corrected, and a note is left; both keep who it was.
    browser.click(&anna, "button", "Correct…").await;
    let corrected = format!("{{\"op\": \"reject\", \"code\": \"no-such-sku\", \"message\": \"{HOSTILE}\", \"n\": 1}}");
    browser.fill(&anna, "#e-payload", "not JSON").await;
    browser.click(&anna, "dialog button[type=submit]", "Store").await;
    browser
        .until(
            &anna,
            "document.querySelector('dialog .note.bad')?.textContent.includes('the new one is not')",
        )
        .await;
    browser.fill(&anna, "#e-payload", &corrected).await;
    browser.click(&anna, "dialog button[type=submit]", "Store").await;
    browser.until(&anna, "[...document.querySelectorAll('dd')].some((one) => one.textContent.startsWith('1 time, the last by anna'))").await;
    browser.click(&anna, "dd a.mono", "").await;
    browser.click(&anna, "button", "Note…").await;
    browser.fill(&anna, "#n-text", HOSTILE).await;
    browser.click(&anna, "dialog button[type=submit]", "Store").await;
    browser.value(&anna, "void (location.hash = '#/letters')").await;
    let noted = format!("document.querySelector('.noted')?.textContent.includes({HOSTILE:?})");
    browser.until(&anna, &noted).await;
    // Who may only read is told which permission is missing.
    let need = ".groups tbody tr:not(:has(td[title*='script'])) button";
    let disabled = "[...document.querySelectorAll('.groups button')].filter((one) => one.getAttribute('aria-disabled') === 'true' \
                    && one.title.includes('lacks the permission to publish to $MESH.replay.probe')).length === 2";
    browser.until(&reader, disabled).await;
    browser.click(&reader, need, "Replay").await;
    let told = "document.querySelector('#toast').textContent.includes('$MESH.replay.probe') && !document.querySelector('dialog')";
    browser.until(&reader, told).await;
    // Anna replays, and the reader looks on.
    browser.value(&anna, "void (location.hash = '#/letters')").await;
    browser.click(&anna, need, "Replay").await;
    browser
        .until(
            &anna,
            "document.querySelector('dialog code')?.textContent.startsWith('jetmesh dlq replay --group ')",
        )
        .await;
    browser.click(&anna, "dialog button[type=submit]", "Replay").await;
    for page in [&anna, &reader] {
        browser
            .until(page, "document.querySelector('.run .tag')?.textContent === 'done'")
            .await;
        let told = browser
            .value(page, "document.querySelector('.run').textContent")
            .await
            .to_string();
        assert!(told.contains("1 succeeded") && told.contains("by anna"), "{told}");
        browser
            .until(page, "document.querySelectorAll('.groups tbody tr').length === 1")
            .await;
    }
    mesh.wait_letters(1).await;
    // What a command replays is seen as well; it fails again.
    let all = mesh
        .jetmesh(&["dlq", "replay", "--all", "--yes", "--max-failures", "100"])
        .await;
    assert_eq!(all.0.code(), Some(1), "{all:?}");
    for page in [&anna, &reader] {
        let told = "[...document.querySelectorAll('.run')].some((one) => one.textContent.includes('1 failed again') && one.textContent.includes('all dead letters'))";
        browser.until(page, told).await;
    }
    // The other one is discarded.
    browser.click(&anna, ".groups a", "").await;
    browser.click(&anna, "button", "Discard the group").await;
    browser.fill(&anna, "#d-reason", "it's <b>old</b>").await;
    browser
        .until(
            &anna,
            r"document.querySelector('dialog code')?.textContent.includes(`--reason 'it'\\''s <b>old</b>'`)",
        )
        .await;
    browser.click(&anna, "dialog button[type=submit]", "Discard").await;
    browser
        .until(
            &anna,
            "document.querySelector('.empty')?.textContent.startsWith('No dead letters of this kind')",
        )
        .await;
    let settled = mesh.messages("MESH_DEAD", "$MESH.dead.*.*.*.*").await;
    let reasons: Vec<&str> = settled.iter().filter_map(|one| one.header("Mesh-Settled")).collect();
    assert!(reasons.contains(&"discarded: it's <b>old</b> (by anna)"), "{reasons:?}");
    // What the event wrote is a key, and its history names the event.
    browser
        .value(&anna, "void (location.hash = '#/state?bucket=probe&key=stock')")
        .await;
    browser
        .until(
            &anna,
            "document.querySelector('[aria-label=Value]')?.textContent.includes('revision')",
        )
        .await;
    browser
        .until(
            &anna,
            "document.querySelector('[aria-label=History]').textContent.includes('written by other means')",
        )
        .await;
    // Keys and values are text, and so are the headers of an event. A parser ends the tag of this key at the next `>`.
    let key = "<img/src=x/onerror=window.hacked=1/";
    mesh.publish(&format!("$KV.probe.{key}"), HOSTILE).await;
    browser
        .value(&anna, "void (location.hash = '#/state?bucket=probe')")
        .await;
    browser.click(&anna, "button.link", "<img/").await;
    let value = format!(
        "document.querySelector('[aria-label=Value] h2')?.textContent === {key:?} && document.querySelector('[aria-label=Value] pre').textContent === {HOSTILE:?}"
    );
    browser.until(&anna, &value).await;
    browser
        .value(&anna, "void (location.hash = '#/where?subject=orders.probe')")
        .await;
    let header = format!("[...document.querySelectorAll('.trace dd')].some((one) => one.textContent === {HOSTILE:?})");
    browser.until(&anna, &header).await;
    assert_eq!(
        browser
            .value(&anna, "String(window.hacked) + document.images.length")
            .await,
        "undefined1"
    );
    browser.value(&anna, "void (location.hash = '#/modules')").await;
    browser
        .until(
            &anna,
            "document.querySelector('[aria-label=\\'Modules by handler\\']')?.textContent.includes('1 host of 1')",
        )
        .await;
    // A pause is told with its author and its reason.
    browser.value(&anna, "void (location.hash = '#/waiting')").await;
    browser.click(&anna, "button", "Pause…").await;
    browser.fill(&anna, "#p-reason", HOSTILE).await;
    browser.click(&anna, "dialog button[type=submit]", "Pause").await;
    let paused = format!(
        "[...document.querySelectorAll('[aria-label=\\'Paused handlers\\'] .part')].some((one) => \
         one.textContent.includes('by anna, at the console') && one.textContent.includes({HOSTILE:?}))"
    );
    browser.until(&anna, &paused).await;
    browser.click(&anna, "button", "Resume").await;
    browser.click(&anna, "dialog button[type=submit]", "Resume").await;
    browser
        .until(
            &anna,
            "document.querySelector('[aria-label=\\'Paused handlers\\'] .empty')",
        )
        .await;
    // What she has done is recorded, with her reason; it is text.
    browser.value(&anna, "void (location.hash = '#/audit')").await;
    let recorded = format!(
        "[...document.querySelectorAll('.audit tbody tr')].some((one) => ['anna', 'at a console', 'pause', '1 paused', {HOSTILE:?}]\
         .every((part) => one.textContent.includes(part)))"
    );
    browser.until(&anna, &recorded).await;
    assert_eq!(browser.value(&anna, "String(window.hacked)").await, "undefined");
    // Of many handlers, the buttons that are seen are checked.
    for number in 10..50 {
        let handler = format!("h-{number}");
        let headers = [
            ("Mesh-Handler", handler.as_str()),
            ("Mesh-Cause", "rejected"),
            ("Mesh-Event", "k.1"),
            ("Mesh-Code", "no"),
        ];
        mesh.publish_with(&format!("$MESH.dead.ORDERS.{handler}.k.1"), &headers, "{}")
            .await;
    }
    browser
        .value(&reader, "void (location.hash = '#/letters?code=no')")
        .await;
    let last = "[...document.querySelectorAll('.groups tbody tr')].at(-1)";
    browser
        .until(&reader, "document.querySelectorAll('.groups tbody tr').length === 40")
        .await;
    let replay = format!("[...{last}.querySelectorAll('button')].find((one) => one.textContent === 'Replay')");
    assert_eq!(browser.value(&reader, &format!("{replay}.title")).await, "");
    browser.value(&reader, &format!("void {last}.scrollIntoView()")).await;
    browser
        .until(
            &reader,
            &format!("{replay}.title.includes('lacks the permission to publish to $MESH.replay.h-')"),
        )
        .await;
    // What cannot be asked is told as a failure, and is asked again when NATS is there again.
    mesh.server.stop().await;
    browser
        .until(&anna, "document.querySelector('.pulse').textContent === 'not live'")
        .await;
    browser.value(&anna, "void (location.hash = '#/letters')").await;
    browser.until(&anna, "document.querySelector('#main .note.bad')?.textContent.includes('could not be read: cannot connect to NATS')").await;
    browser
        .until(
            &anna,
            "document.querySelector('.pulse').title.includes('cannot connect to NATS')",
        )
        .await;
    assert_eq!(
        browser
            .value(&anna, "document.querySelector('.pulse').textContent")
            .await,
        "not live"
    );
    mesh.server.restart().await;
    browser
        .until(&anna, "document.querySelector('.pulse').textContent === 'live'")
        .await;
    browser.click(&anna, "button", "Read again").await;
    browser
        .until(&anna, "document.querySelectorAll('.groups tbody tr').length === 40")
        .await;
    assert_eq!(browser.complaints, Vec::<String>::new());
}
