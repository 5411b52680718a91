//! What a viewer does about a fault, from the broken order to its end, in a real browser.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{get, log_in, post};
use super::{PASSWORD, TAKES_MODULES, admin_address, with_users};
use crate::mesh::{Config, Mesh};
use crate::support::browser::{Browser, Page};
use crate::support::eventually;
use crate::support::wait::SOON;
use crate::support::{Host, modules};

/// A mesh whose handler `probe` has a wrong module, that of another handler.
async fn with_a_wrong_module(lines: &str) -> (Mesh, Host, SocketAddr) {
    let mut mesh = Mesh::new(Config::new()).await;
    let module = mesh.dir.path().join("probe.wasm");
    fs::copy(modules::handler("inventory"), &module).expect("the test's folder is writable");
    let lines = format!("bucket = \"probe\"\npublish = [\"events.>\"]\n{lines}");
    mesh.config = Config::new().handler("probe", &module, &lines);
    let host = mesh.host(&TAKES_MODULES).await;
    let address = admin_address(&host).await;
    (mesh, host, address)
}

async fn go(browser: &mut Browser, page: &Page, place: &str) {
    browser
        .value(page, &format!("void (location.hash = '#/{place}')"))
        .await;
}

#[tokio::test]
async fn a_broken_order_is_found_rehearsed_with_the_fix_replayed_and_gone() {
    let Some(mut browser) = Browser::start() else { return };
    let (mesh, _host, address) = with_a_wrong_module("").await;
    mesh.order(json!({ "op": "set", "key": "a", "value": "new" })).await;
    mesh.wait_letters(1).await;
    let page = browser.page(1280, 900).await;
    browser.open(&page, &format!("http://{address}/")).await;
    // It is found.
    browser
        .until(&page, "document.querySelector('td.c-dead')?.textContent === '1'")
        .await;
    go(&mut browser, &page, "letters").await;
    browser.click(&page, ".groups a", "").await;
    // With the module that serves it would fail as before.
    browser.click(&page, "button", "Rehearse the group").await;
    browser
        .until(
            &page,
            "document.querySelector('dialog code')?.textContent.startsWith('jetmesh dlq rehearse --group ')",
        )
        .await;
    browser.click(&page, "dialog button[type=submit]", "Rehearse").await;
    browser
        .until(
            &page,
            "document.querySelector('dialog [role=status]')?.textContent === 'It would be rejected with the same error as before. Nothing has happened.'",
        )
        .await;
    browser.click(&page, "dialog button", "Close").await;
    // With the fix it would succeed, and it is shown what it would write.
    browser.click(&page, "button", "Rehearse the group").await;
    browser.choose(&page, "#h-file", &modules::handler("probe")).await;
    browser
        .until(
            &page,
            "document.querySelector('dialog code')?.textContent.includes('--module probe.wasm')",
        )
        .await;
    browser.click(&page, "dialog button[type=submit]", "Rehearse").await;
    browser
        .until(
            &page,
            "document.querySelector('dialog [role=status]')?.textContent === 'It would succeed. Nothing has happened.'",
        )
        .await;
    // What the only letter would do is seen at once.
    let effects = browser
        .value(
            &page,
            "document.querySelector('.effects').checkVisibility() && document.querySelector('.effects').textContent",
        )
        .await;
    assert_eq!(effects, "write anow(no value)thennew");
    assert_eq!(mesh.value("probe", "a").await, None);
    // The fix is put in place; that it serves is seen.
    let fixed = fs::read(modules::handler("probe")).expect("the probe is readable");
    fs::write(mesh.dir.path().join("probe.wasm"), fixed).expect("the test's folder is writable");
    let told = browser
        .value(&page, "[...document.querySelectorAll('dialog .soft')].map((one) => one.textContent).find((one) => one.startsWith('Rehearsed: probe on module '))")
        .await;
    let digest = told.as_str().expect("the module is told")["Rehearsed: probe on module ".len()..][..12].to_owned();
    go(&mut browser, &page, "modules").await;
    let serves = format!(
        "[...document.querySelectorAll('[aria-label=\\'Modules by handler\\'] td')].some((one) => one.textContent === '{digest}')"
    );
    eventually("the fix to serve", SOON, async || {
        let asked = "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Ask again').click()";
        browser.value(&page, &format!("void {asked}")).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        (browser.value(&page, &serves).await == true).then_some(())
    })
    .await;
    // Replayed from the rehearsal, and gone.
    browser.click(&page, "dialog button", "Replay it").await;
    browser.click(&page, "dialog button[type=submit]", "Replay").await;
    browser
        .until(&page, "document.querySelector('.run .tag')?.textContent === 'done'")
        .await;
    go(&mut browser, &page, "letters").await;
    browser
        .until(
            &page,
            "document.querySelector('#main .empty')?.textContent.startsWith('No dead letters')",
        )
        .await;
    mesh.wait_letters(0).await;
    assert_eq!(mesh.value("probe", "a").await.as_deref(), Some("new"));
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// A rehearsal as the page asks for it; each line of the answer.
async fn rehearse(address: SocketAddr, headers: &[&str], body: &str) -> (u16, Vec<Value>) {
    let origin = format!("Origin: http://{address}");
    let answer = super::wire::send(
        address,
        "POST /api/rehearse",
        &[headers, &[origin.as_str(), "Connection: close"]].concat(),
        body,
    )
    .await;
    // The pieces of the answer are between their lengths.
    let lines = answer.body.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (answer.status, lines)
}

#[tokio::test]
async fn a_rehearsal_refuses_what_is_no_module_and_ends_when_its_viewer_goes() {
    let (mesh, host) = Mesh::start(Config::probe_with("timeout = \"60s\"\nmax_attempts = 1")).await;
    mesh.order(json!({ "op": "reject", "code": "a", "message": "b" })).await;
    mesh.order(json!([{ "op": "take", "key": "n" }, { "op": "spin" }]))
        .await;
    mesh.wait_letters(2).await;
    host.stop().await;
    let host = mesh.host(&TAKES_MODULES).await;
    let address = admin_address(&host).await;
    let (cookie, csrf) = log_in(address, &json!({ "way": "nothing" })).await;
    let headers = [cookie.as_str(), csrf.as_str()];
    let order = |module: Value| json!({ "selection": { "conditions": { "code": "a" } }, "module": module }).to_string();
    let (status, lines) = rehearse(address, &headers, &order(Value::Null)).await;
    assert_eq!((status, lines.len()), (200, 3), "{lines:?}");
    assert_eq!(lines[0]["begun"]["letters"], 1);
    assert_eq!(
        (&lines[1]["verdict"], &lines[1]["as_before"]),
        (&json!("would be rejected"), &json!(true))
    );
    assert_eq!(
        (&lines[2]["summary"]["rehearsed"], &lines[2]["whole"]),
        (&json!(1), &json!(true))
    );
    let (_, lines) = rehearse(address, &headers, &format!("{}\nhello", order(json!("x.wasm")))).await;
    let why = lines[1]["error"].as_str().unwrap_or_default();
    assert!(why.starts_with("x.wasm: not a WebAssembly file"), "{lines:?}");
    let (status, _) = rehearse(address, &headers, &order(json!("x.wasm"))).await;
    assert_eq!(status, 400, "no module follows");
    // What another site's page sends is refused before anything is read.
    assert_eq!(rehearse(address, &[&cookie], &order(Value::Null)).await.0, 403);
    // One at a time; and one whose viewer has gone makes room.
    mesh.put("probe", "n", "5").await;
    let long = json!({ "selection": { "conditions": { "code": "sold-out" } }, "module": null }).to_string();
    let mut viewer = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "POST /api/rehearse HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\n{cookie}\r\n{csrf}\r\nContent-Length: {}\r\n\r\n{long}",
        long.len()
    );
    viewer.write_all(request.as_bytes()).await.expect("it reads");
    let mut begun = [0; 512];
    assert!(viewer.read(&mut begun).await.expect("it answers") > 0);
    let (status, _) = rehearse(address, &headers, &order(Value::Null)).await;
    assert_eq!(status, 403, "one of this session runs");
    drop(viewer);
    eventually("the place to be free", SOON, async || {
        (rehearse(address, &headers, &order(Value::Null)).await.0 == 200).then_some(())
    })
    .await;
    // Another session is served meanwhile, and the host is well.
    assert_eq!(
        post(address, "login", &[], &json!({ "way": "nothing" })).await.status,
        200
    );
    mesh.wait_letters(2).await;
}

#[tokio::test]
async fn a_module_of_a_viewer_needs_the_right_to_replay_is_recorded_with_its_digest_and_can_be_switched_off() {
    let (mesh, _host, address) = with_users().await;
    mesh.order(json!({ "op": "reject", "code": "a", "message": "b" })).await;
    let letters = mesh.wait_letters(1).await;
    let module = "no module";
    let selection = json!({ "ids": [letters[0].letter_id()] });
    let own = json!({ "selection": selection, "module": "fix.wasm" });
    let order = format!("{own}\n{module}");
    let session = async |user: &str, password: &str| {
        let (cookie, csrf) = log_in(address, &json!({ "way": "user", "user": user, "password": password })).await;
        [cookie, csrf]
    };
    // One who may only read rehearses on the module that serves, and on no other.
    let reader = session("reader", "pw").await;
    let headers = [reader[0].as_str(), reader[1].as_str()];
    let (_, lines) = rehearse(
        address,
        &headers,
        &json!({ "selection": selection, "module": null }).to_string(),
    )
    .await;
    assert_eq!(lines.last().expect("a line")["summary"]["rehearsed"], 1, "{lines:?}");
    let (_, lines) = rehearse(address, &headers, &order).await;
    let why = lines.last().expect("a line")["error"].to_string();
    assert!(
        why.contains("needs the right to replay letters of probe") && why.contains("$MESH.replay.probe.list.check"),
        "{lines:?}"
    );
    assert_eq!(mesh.messages_left("MESH_AUDIT").await, 0);
    // What one who may replay gives is recorded, also if it is no handler.
    let anna = session("anna", PASSWORD).await;
    let headers = [anna[0].as_str(), anna[1].as_str()];
    let (_, lines) = rehearse(address, &headers, &order).await;
    let audit = get(address, "audit?action=dlq-rehearse", &anna[0]).await.json();
    let record = &audit["records"][0];
    let digest: String = Sha256::digest(module)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let what = format!(
        "1 dead letter(s): {}; on fix.wasm, sha256:{digest}",
        letters[0].letter_id()
    );
    assert_eq!(
        (&record["by"], &record["on"], &record["what"]),
        (&json!("anna"), &json!(["probe"]), &json!(what))
    );
    let command = format!("jetmesh dlq rehearse {} --module fix.wasm", letters[0].letter_id());
    assert_eq!(record["command"], command);
    assert_eq!(
        record["end"]["error"],
        lines.last().expect("a line")["error"],
        "{audit}"
    );
    // What no letter needs is not compiled, and so it is no error that it is no module.
    let none = json!({ "selection": { "ids": ["probe.k.77"] }, "module": "fix.wasm" });
    let (_, lines) = rehearse(address, &headers, &format!("{none}\n{module}")).await;
    assert_eq!(lines.last().expect("a line")["summary"]["rehearsed"], 0, "{lines:?}");
    // A host takes none if its configuration does not say that it does.
    let careful = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = admin_address(&careful).await;
    let form = json!({ "way": "user", "user": "anna", "password": PASSWORD });
    assert_eq!(post(address, "login", &[], &form).await.json()["uploads"], false);
    let (cookie, csrf) = log_in(address, &form).await;
    let origin = format!("Origin: http://{address}");
    let headers = [cookie.as_str(), csrf.as_str(), origin.as_str(), "Connection: close"];
    // On the modules of its configuration it rehearses; a page ends the order with a new line in any case.
    let configured = format!("{}\n", json!({ "selection": selection, "module": null }));
    assert_eq!(
        super::wire::send(address, "POST /api/rehearse", &headers, &configured)
            .await
            .status,
        200
    );
    let answer = super::wire::send(address, "POST /api/rehearse", &headers, &order).await;
    assert!(
        answer.status == 403 && answer.body.contains("`uploads = true` under [admin]"),
        "{answer:?}"
    );
}
