//! An outbox carries what services write into the log of a PostgreSQL into a stream.

use serde_json::{Value, json};

use crate::mesh::{PATIENT, says};
use crate::pg_shop::{PgShop, Source, audited};
use crate::schemas::assert_fits;
use crate::shop::{events, texts};
use crate::support::eventually;
use crate::support::postgres::PostgresServer;
use crate::support::wait::SOON;

const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";

#[tokio::test]
async fn what_transactions_write_into_the_log_becomes_events_each_once_and_in_the_order_of_commits() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Log).await;
    shop.orders(&["before-the-host"]).await;
    let _host = mesh.host(&[]).await;
    audited(&mesh, &shop).await;
    shop.run(&format!("BEGIN; {} ROLLBACK", shop.saved(&["never"]))).await;
    for n in 0..30 {
        shop.orders(&[&format!("one-{n}"), &format!("two-{n}")]).await;
    }
    audited(&mesh, &shop).await;
    // One that writes first and commits last comes last, and its orders were saved first.
    let count = events(&mesh).await.len();
    shop.run(&format!("BEGIN; {}", shop.saved(&["late-1", "late-2"]))).await;
    let other = shop.again(server).await;
    other.orders(&["early"]).await;
    shop.run("COMMIT").await;
    let found = eventually("all three", SOON, async || {
        let found = texts(&events(&mesh).await);
        (found.len() == count + 3).then_some(found)
    })
    .await;
    assert_eq!(found[count..], ["early", "late-1", "late-2"]);
    let headers = json!({ "subject": "orders.created", "headers": { "Tag": ["x", "y"] }, "payload": { "n": 1 } });
    shop.run(&format!("SELECT pg_logical_emit_message(true, 'jetmesh', '{headers}')"))
        .await;
    let last = eventually("one with headers", SOON, async || {
        let found = events(&mesh).await;
        found.into_iter().nth(count + 3)
    })
    .await;
    let tags: Vec<&str> = last.headers.get_all("Tag").map(|value| value.as_str()).collect();
    assert_eq!((tags.as_slice(), last.json()), (&["x", "y"][..], json!({ "n": 1 })));
    let marker = mesh
        .messages("ORDERS", "$MESH.outbox.orders")
        .await
        .pop()
        .expect("there is one");
    let point = marker.json()["log"].clone();
    assert!(
        point["timeline"] == "1" && point["lsn"].as_str().is_some_and(|lsn| lsn.contains('/')),
        "{point}"
    );
}

#[tokio::test]
async fn rows_of_a_table_in_the_publication_are_events_of_the_log_and_stay_in_the_table() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Log).await;
    shop.run(
        "CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, subject text, headers jsonb, payload bytea, \
         uid bigint DEFAULT 7); ALTER PUBLICATION jetmesh_orders ADD TABLE outbox",
    )
    .await;
    let host = mesh.host(&[]).await;
    shop.row("orders.created", Some(r#"{"a": "1"}"#), "a row").await;
    shop.run(
        "BEGIN; INSERT INTO outbox (subject, payload) VALUES ('orders.created', '\\x00ff'); DELETE FROM outbox; COMMIT",
    )
    .await;
    let found = eventually("both", SOON, async || {
        let found = events(&mesh).await;
        (found.len() == 2).then_some(found)
    })
    .await;
    assert_eq!(
        (found[0].header("a"), &found[0].payload[..]),
        (Some("1"), &b"a row"[..])
    );
    assert_eq!(found[1].payload[..], [0, 255]);
    // Another table in it is no outbox.
    shop.run("ALTER PUBLICATION jetmesh_orders ADD TABLE orders").await;
    shop.run("INSERT INTO orders (event) VALUES ('no event')").await;
    host.wait_for_line(
        says(&["WARN", "is not an outbox", "public.orders", "id, uid, subject, payload"]),
        SOON,
    )
    .await;
    shop.run("INSERT INTO outbox (subject, uid) VALUES ('orders.created', NULL)")
        .await;
    shop.row("orders.created", None, "behind").await;
    let letters = mesh.wait_letters(1).await;
    assert!(
        letters[0]
            .header("Mesh-Error")
            .is_some_and(|why| why.contains("its uid is not a number"))
    );
    eventually("the row behind", SOON, async || {
        (texts(&events(&mesh).await)[2..] == ["behind"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_is_too_large_for_a_batch_is_published_in_order_and_once() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Log).await;
    let _host = mesh.host(&[]).await;
    shop.orders(&["before"]).await;
    let names: Vec<String> = (0..2500).map(|n| n.to_string()).collect();
    shop.orders(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    shop.orders(&["after"]).await;
    audited(&mesh, &shop).await;
    // Whole transactions lie between two markers, but for the large one.
    let batches = mesh.messages("ORDERS", "$MESH.outbox.orders").await;
    let rows = |at: usize| batches[at].json()["rows"].as_array().map_or(0, Vec::len);
    let sizes: Vec<usize> = (0..batches.len()).map(rows).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 2502, "{sizes:?}");
    assert!(sizes.iter().filter(|size| **size > 500).count() >= 3, "{sizes:?}");
}

#[tokio::test]
async fn a_message_that_no_stream_can_take_is_a_dead_letter_and_a_person_can_skip_one_by_its_place() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Log).await;
    let host = mesh.host(&[]).await;
    shop.poison().await;
    shop.emit("no JSON").await;
    shop.run("SELECT pg_logical_emit_message(false, 'jetmesh', '{}')").await;
    shop.orders(&["a"]).await;
    audited(&mesh, &shop).await;
    let letters = mesh.wait_letters(2).await;
    assert!(
        letters[1]
            .header("Mesh-Error")
            .is_some_and(|why| why.contains("not what an outbox reads"))
    );
    host.wait_for_line(says(&["WARN", "is not transactional"]), SOON).await;
    mesh.jetmesh_ok(&["outbox", "pause", "orders"]).await;
    let place = shop
        .emit("{\"subject\": \"orders.created\", \"payload\": \"wrong\"}")
        .await;
    shop.orders(&["right"]).await;
    for (wrong, said) in [
        ("4711", "is not a place in the log"),
        ("0/1", "0/1 is settled"),
        ("FF/1", "there is nothing at FF/1"),
    ] {
        let (status, _, stderr) = mesh.jetmesh(&["outbox", "skip", "orders", wrong, "--yes"]).await;
        assert!(!status.success() && stderr.contains(said), "{stderr}");
    }
    let told = mesh
        .jetmesh_ok(&["outbox", "skip", "orders", &place, "--reason", "a test order", "--yes"])
        .await;
    assert!(told.contains("becomes a dead letter"), "{told}");
    let status: Value = eventually("what waits to be told", SOON, async || {
        let text = mesh.jetmesh_ok(&["outbox", "status", "orders", "--json"]).await;
        let status: Value = serde_json::from_str(&text).expect("a line of JSON");
        (status["wal_bytes"].as_u64() > Some(0) && status["state"] == "paused").then_some(status)
    })
    .await;
    assert_fits(&mesh, "outbox", &status.to_string()).await;
    assert_eq!(texts(&events(&mesh).await), ["a"]);
    mesh.jetmesh_ok(&["outbox", "resume", "orders"]).await;
    audited(&mesh, &shop).await;
    let letters = mesh.wait_letters(3).await;
    assert_eq!(letters[2].header("Mesh-Error"), Some("a test order"));
    let shown = mesh.jetmesh_ok(&["dlq", "show", letters[2].letter_id()]).await;
    assert!(shown.contains(&format!("the message at {place} of the log")), "{shown}");
    let (_, list, stderr) = mesh.jetmesh(&["dlq", "ls", "--handler", "orders"]).await;
    assert!(
        list.lines().count() == 4 && !stderr.contains("warning"),
        "{list}{stderr}"
    );
    let (_, _, stderr) = mesh.jetmesh(&["trace", letters[2].letter_id()]).await;
    assert!(stderr.contains("a dead letter of outbox orders"), "{stderr}");
    let lines = host.lines();
    assert!(!lines.iter().any(|line| line.contains("is older than")), "{lines:#?}");
}

#[tokio::test]
async fn a_slot_that_is_dropped_is_named_and_one_that_is_made_again_goes_on() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Log).await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a"]).await;
    audited(&mesh, &shop).await;
    host.stop().await;
    let slot = format!("jetmesh_{}_orders", shop.database);
    let dropped = async || {
        eventually("the slot to be free", SOON, async || {
            let dropped = format!("SELECT pg_drop_replication_slot('{slot}')");
            shop.db.batch_execute(&dropped).await.ok()
        })
        .await;
    };
    dropped().await;
    shop.run("DELETE FROM orders").await;
    shop.emit("{\"subject\": \"orders.created\", \"payload\": \"lost\"}")
        .await;
    let host = mesh.host(&[]).await;
    let missing = format!("there is no slot {slot}");
    host.wait_for_line(says(&["ERROR", &missing, "cannot be read any more"]), PATIENT)
        .await;
    let (_, stdout, _) = mesh.jetmesh(&["check"]).await;
    assert!(stdout.contains(&missing), "{stdout}");
    shop.init(&mesh).await;
    shop.orders(&["b"]).await;
    eventually("the next order", SOON, async || {
        (texts(&events(&mesh).await) == ["a", "b"]).then_some(())
    })
    .await;
    // What was committed without a publication cannot be read with one that is made later.
    shop.run("DROP PUBLICATION jetmesh_orders").await;
    shop.orders(&["lost"]).await;
    let said = [
        "ERROR",
        "jetmesh_orders",
        "does not exist",
        "if this error stays, the slot is lost",
    ];
    host.wait_for_line(says(&said), PATIENT).await;
    shop.init(&mesh).await;
    shop.tried_again().await;
    let status = mesh.jetmesh(&["outbox", "status"]).await.1;
    assert!(status.contains("does not exist"), "{status}");
    let lines = host.lines();
    // Which of the two depends on when the host looks.
    let words = ["publishes again", "nothing keeps an outbox from publishing"];
    let again = lines
        .iter()
        .filter(|line| words.iter().any(|words| line.contains(words)));
    assert_eq!(again.count(), 1, "it was so after the slot was made: {lines:#?}");
    dropped().await;
    shop.init(&mesh).await;
    shop.orders(&["c"]).await;
    eventually("what comes after", SOON, async || {
        (texts(&events(&mesh).await) == ["a", "b", "c"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slot_for_which_the_database_keeps_ever_more_of_its_log_is_given_up_loudly_also_without_a_mesh() {
    // All databases of a server write into one log.
    let Some(server) = PostgresServer::own().await else {
        return;
    };
    let (mesh, shop) = PgShop::behind(&server, server.addr(), Source::Log, "wal_max = \"32MiB\"").await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a"]).await;
    audited(&mesh, &shop).await;
    assert_eq!(shop.number(SLOTS).await, 1);
    mesh.server.stop().await;
    eventually("the slot is dropped", PATIENT, async || {
        shop.filler().await;
        (shop.number(SLOTS).await == 0).then_some(())
    })
    .await;
    let named = [
        "ERROR",
        "more than wal_max (33554432)",
        "has dropped slot",
        "A lost slot",
    ];
    host.wait_for_line(says(&named), PATIENT).await;
}

#[tokio::test]
async fn a_host_that_starts_above_the_limit_of_a_slot_publishes_what_waits_and_keeps_the_slot() {
    let Some(server) = PostgresServer::own().await else {
        return;
    };
    let (mesh, shop) = PgShop::behind(&server, server.addr(), Source::Log, "wal_max = \"32MiB\"").await;
    shop.orders(&["a", "b"]).await;
    shop.filler().await;
    shop.filler().await;
    shop.orders(&["c"]).await;
    // Only a host may give a slot up.
    let (_, stdout, stderr) = mesh.jetmesh(&["check"]).await;
    assert_eq!(shop.number(SLOTS).await, 1, "{stdout}{stderr}");
    let host = mesh.host(&[]).await;
    audited(&mesh, &shop).await;
    let looks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%wal_status%' AND state = 'idle'";
    eventually("relay and limit have looked at the slot", SOON, async || {
        (shop.number(looks).await == 2).then_some(())
    })
    .await;
    assert_eq!(shop.number(SLOTS).await, 1, "{:#?}", host.lines());
}
