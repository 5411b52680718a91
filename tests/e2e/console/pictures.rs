//! The pictures of `docs/console.md`.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::admin_address;
use crate::effects::shop;
use crate::mesh::Mesh;
use crate::support::browser::{Browser, Page};

fn order(number: usize) -> String {
    let sku = ["sku-1", "sku-1", "sku-2", "sku-9"][number % 4];
    let lines = json!([{ "sku": sku, "qty": 1 + number % 2 }]);
    json!({ "order_id": format!("o-{number}"), "user_id": format!("u-{}", number % 97), "lines": lines, "total_cents": 100 * number })
        .to_string()
}

async fn take(browser: &mut Browser, page: &Page, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/console");
    browser.screenshot(page, &folder.join(format!("{name}.png"))).await;
}

async fn go(browser: &mut Browser, page: &Page, place: &str, there: &str) {
    browser
        .value(page, &format!("void (location.hash = '#/{place}')"))
        .await;
    browser.until(page, &format!("document.querySelector({there:?})")).await;
}

#[tokio::test]
#[ignore = "it writes the pictures of docs/console.md: make screenshots"]
async fn the_pictures_of_the_documentation_are_taken() {
    let mut browser = Browser::start().expect("pictures need a browser");
    let mesh = Mesh::new(shop()).await;
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = admin_address(&host).await;
    for sku in ["stock.sku-1", "stock.sku-2"] {
        mesh.put("inventory", sku, "100000").await;
    }
    let page = browser.page(1180, 760).await;
    browser.open(&page, &format!("http://{address}/")).await;
    // A minute of orders, so that the charts have something to show.
    for second in 0..60 {
        let count = 6 + (second * 7) % 11 + usize::from(second > 30) * 8;
        for number in 0..count {
            mesh.publish("orders.created", order(second * 40 + number)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    take(&mut browser, &page, "now").await;
    browser.dark(&page, true).await;
    take(&mut browser, &page, "now-dark").await;
    go(&mut browser, &page, "letters", ".groups tbody tr").await;
    browser.click(&page, ".groups a", "").await;
    browser.click(&page, ".letters a", "inventory.").await;
    browser.until(&page, "document.querySelector('.error-text')").await;
    take(&mut browser, &page, "letter-dark").await;
    browser.dark(&page, false).await;
    // There is stock again: what would a replay do?
    mesh.put("inventory", "stock.sku-9", "100000").await;
    go(&mut browser, &page, "letters?handler=inventory", ".groups tbody tr").await;
    browser.click(&page, ".groups a", "").await;
    browser.click(&page, "button", "Rehearse the group").await;
    browser.click(&page, "dialog button[type=submit]", "Rehearse").await;
    browser
        .until(
            &page,
            "document.querySelector('dialog [role=status]')?.textContent.includes('Nothing has happened')",
        )
        .await;
    browser
        .value(&page, "void (document.querySelector('dialog details').open = true)")
        .await;
    take(&mut browser, &page, "rehearse").await;
    browser.click(&page, "dialog button", "Close").await;
    go(&mut browser, &page, "where?key=order_id%3Do-2281", ".trace").await;
    browser
        .value(
            &page,
            "[...document.querySelectorAll('.trace details')].forEach((one) => { one.open = one.textContent.startsWith('Wrote'); })",
        )
        .await;
    take(&mut browser, &page, "where").await;
    browser.resize(&page, 360, 720).await;
    go(&mut browser, &page, "letters", ".groups tbody tr").await;
    take(&mut browser, &page, "phone").await;
    assert_eq!(browser.complaints, Vec::<String>::new());
}
