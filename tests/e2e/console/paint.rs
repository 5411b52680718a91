//! How soon a page shows something, with a hundred thousand dead letters and a thousand handlers, and what it takes of memory.

use std::fmt::Write as _;
use std::net::SocketAddr;

use async_nats::HeaderMap;

use super::admin_address;
use crate::mesh::{Config, Mesh};
use crate::support::Host;
use crate::support::browser::{Browser, Page};
use crate::support::modules;

const LETTERS: usize = 100_000;
const HANDLERS: usize = 1_000;
/// Letters that are on their way to the stream.
const AHEAD: usize = 1_000;
/// What the issue of the console promises, in milliseconds.
const PAINT_MAX: f64 = 1_000.0;

/// Letters of twenty faults, as a relay writes them.
async fn letters(mesh: &Mesh) {
    let mut acks = std::collections::VecDeque::new();
    for number in 0..LETTERS {
        let mut headers = HeaderMap::new();
        let (event, error) = (
            format!("k.{number}"),
            format!("order o-{number}: fault {}", ["a", "b", "c", "d"][number % 4]),
        );
        let code = format!("code-{}", number % 5);
        for (name, value) in [
            ("Mesh-Handler", "h-1"),
            ("Mesh-Event", &event),
            ("Mesh-Cause", "rejected"),
            ("Mesh-Code", &code),
            ("Mesh-Error", &error),
            ("Mesh-Module", "0123456789ab"),
            ("Mesh-Subject", "orders.probe"),
            ("Mesh-Attempts", "1"),
        ] {
            headers.insert(name, value);
        }
        let subject = format!("$MESH.dead.ORDERS.h-1.k.{number}");
        let ack = mesh
            .js
            .publish_with_headers(subject, headers, "{\"order\":1}".into())
            .await;
        acks.push_back(ack.expect("the server takes it"));
        if acks.len() == AHEAD {
            acks.pop_front().expect("there are some").await.expect("it is stored");
        }
    }
    for ack in acks {
        ack.await.expect("it is stored");
    }
}

fn thousand() -> Config {
    let each = |config: Config, number: usize| {
        let lines = format!("subjects = [\"orders.{number}\"]\npublish = [\"events.>\"]\nconcurrency = 1");
        config.handler(&format!("h-{number}"), &modules::handler("probe"), &lines)
    };
    (0..HANDLERS).fold(Config::new(), each)
}

/// Opens a place in a page that knows nothing yet; the milliseconds until it shows what is waited for.
async fn painted(browser: &mut Browser, page: &Page, address: SocketAddr, place: &str, there: &str) -> f64 {
    browser.open(page, "about:blank").await;
    browser.open(page, &format!("http://{address}/#/{place}")).await;
    browser.until(page, there).await;
    let now = browser.value(page, "performance.now()").await;
    now.as_f64().expect("a number")
}

/// Memory of a process that is its own, in MiB.
fn memory(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("it runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .expect("it has memory");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("KiB")
        / 1024
}

async fn heap(browser: &mut Browser, page: &Page) -> f64 {
    let bytes = browser.value(page, "performance.memory.usedJSHeapSize / 1048576").await;
    bytes.as_f64().unwrap_or_default()
}

#[tokio::test]
#[ignore = "it measures, for docs/console.md: make paint"]
async fn the_first_paint_takes_a_second_at_most() {
    let mut browser = Browser::start().expect("it is measured in a browser");
    let mesh = Mesh::new(thousand()).await;
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = admin_address(&host).await;
    letters(&mesh).await;
    let page = browser.page(1280, 900).await;
    browser.open(&page, &format!("http://{address}/")).await;
    browser
        .until(&page, "document.querySelector('.handlers tbody tr')")
        .await;
    let before = memory(&host);
    let mut told = format!("memory of the host before: {before} MiB\n");
    let rows = "document.querySelectorAll('.handlers tbody tr').length >= 100";
    let status = "document.querySelector('.handlers .c-waiting')?.textContent === '0'";
    let groups = "document.querySelector('.groups tbody tr')";
    let list = "document.querySelector('.letters tbody tr')";
    let mut slowest = 0.0_f64;
    for _ in 0..3 {
        let now = painted(&mut browser, &page, address, "now", rows).await;
        let waits = painted(&mut browser, &page, address, "now", status).await;
        let first = painted(&mut browser, &page, address, "letters", groups).await;
        let read = browser
            .value(&page, "document.querySelector('.foot').textContent")
            .await;
        let lists = painted(&mut browser, &page, address, "letters?list=all", list).await;
        let rare = painted(&mut browser, &page, address, "letters?code=code-1&list=all", list).await;
        slowest = [slowest, now, first, lists, rare].into_iter().fold(0.0, f64::max);
        let _ = writeln!(
            told,
            "now {now:.0} ms, with what waits {waits:.0} ms; groups {first:.0} ms ({read}); letters {lists:.0} ms, of a code {rare:.0} ms"
        );
    }
    let all = painted(
        &mut browser,
        &page,
        address,
        "letters",
        "document.querySelector('.foot')?.textContent.startsWith('All 100,000 letters were read')",
    )
    .await;
    let used = heap(&mut browser, &page).await;
    let _ = writeln!(
        told,
        "all letters were counted after {all:.0} ms; heap of the page {used:.0} MiB"
    );
    let _ = writeln!(told, "memory of the host after: {} MiB", memory(&host));
    println!("{told}");
    assert!(
        slowest <= PAINT_MAX,
        "the slowest first paint took {slowest:.0} ms\n{told}"
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
}
