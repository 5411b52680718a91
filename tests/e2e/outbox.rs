//! An outbox carries rows of a service's database into a stream, and a person looks at it, pauses it and helps it along.

use serde_json::{Value, json};

use crate::mesh::{Mesh, PATIENT, says};
use crate::schemas::assert_fits;
use crate::shop::{OUTBOX, Shop, audited, config, config_of, events, stream, texts};
use crate::support::eventually;
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{NatsServer, Signal};
use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy};

#[tokio::test]
async fn rows_of_committed_transactions_become_events_each_once_and_in_order() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    shop.orders(&["before-the-host"]);
    let host = mesh.host(&[]).await;
    audited(&mesh, &shop).await;
    shop.orders(&["a", "b", "c"]);
    shop.transaction(&["never"], "ROLLBACK");
    for n in 0..50 {
        shop.orders(&[&format!("one-{n}"), &format!("two-{n}")]);
    }
    let headers = r#"{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Tag": ["x", "y"]}"#;
    shop.db
        .execute("INSERT INTO orders (event) VALUES ('with headers')", [])
        .expect("it is saved");
    shop.row("orders.created", Some(headers), "with headers");
    let events = audited(&mesh, &shop).await;
    let last = events.last().expect("there are some");
    let tags: Vec<&str> = last.headers.get_all("Tag").map(|value| value.as_str()).collect();
    assert_eq!(tags, ["x", "y"]);
    assert!(
        last.header("traceparent")
            .is_some_and(|trace| trace.starts_with("00-4bf9"))
    );
    assert!(
        last.header("Nats-Msg-Id")
            .is_some_and(|id| id.starts_with("outbox.orders.105.")),
        "{last:?}"
    );
    host.signal(Signal::TERM);
    assert!(host.wait_exit(SOON).await.success());
}

#[tokio::test]
async fn an_outbox_keeps_few_markers_and_what_it_publishes_runs_its_handlers() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    let _host = mesh.host(&[]).await;
    let order = json!({ "op": "emit", "subject": "events.x", "payload": 1 });
    shop.row("orders.probe", None, &order.to_string());
    mesh.wait_emitted(1).await;
    for n in 0..200 {
        shop.orders(&[&n.to_string()]);
        eventually("a batch of its own", SOON, async || {
            (shop.number("SELECT count(*) FROM outbox") == 0).then_some(())
        })
        .await;
    }
    audited(&mesh, &shop).await;
    let markers = mesh.messages("ORDERS", "$MESH.outbox.orders").await;
    assert!(markers.len() <= 70, "{}", markers.len());
    assert!(markers.last().expect("there is one").json()["batch"].as_u64() >= Some(200));
}

#[tokio::test]
async fn a_row_that_its_stream_can_never_take_is_a_dead_letter_and_the_rows_behind_it_go_on() {
    let users = "authorization { users: [ { user: host, password: pw, permissions: { publish: { allow: [\">\"], deny: \
                 [\"orders.denied\"] } } }, { user: test, password: pw } ] }\nno_auth_user: test";
    let options = Options {
        config: users.to_owned(),
        max_payload: Some(65_536),
        ..Options::default()
    };
    let config = config().nats("user = \"host\"").nats("password = \"pw\"");
    let mesh = Mesh::over(NatsServer::start_with(&options).await, config).await;
    let shop = Shop::open(&mesh).await;
    shop.orders(&["first"]);
    shop.row("stock.moved", None, "nowhere");
    shop.row("orders.denied", None, "denied");
    shop.row("orders.created", Some("not JSON"), "headers");
    shop.row("orders.created", Some(r#"{"Nats-Rollup": "all"}"#), "control");
    shop.row("orders.created", None, &"x".repeat(200_000));
    shop.orders(&["last"]);
    let _host = mesh.host(&[]).await;
    audited(&mesh, &shop).await;
    let letters = mesh.wait_letters(5).await;
    let whys: Vec<&str> = letters
        .iter()
        .filter_map(|letter| letter.header("Mesh-Error"))
        .collect();
    for why in [
        "does not capture `stock.moved`",
        "not allowed to publish",
        "not a JSON object",
        "Nats-Rollup",
        "limit of",
    ] {
        assert!(whys.iter().any(|found| found.contains(why)), "{why}: {whys:?}");
    }
    let large = letters
        .iter()
        .find(|letter| letter.header("Mesh-Parts").is_some())
        .expect("it is in parts");
    let parts = mesh.messages("MESH_DEAD", &format!("{}.part.>", large.subject)).await;
    assert_eq!(
        parts.iter().map(|part| part.payload.len()).sum::<usize>(),
        200_000,
        "it is whole"
    );
    for letter in &letters {
        assert_eq!(letter.header("Mesh-Cause"), Some("undeliverable"));
        assert_eq!(letter.header("Mesh-Handler"), Some("orders"));
    }
    // A person grants it, and publishes it.
    let list = mesh.jetmesh_ok(&["dlq", "ls", "--handler", "orders"]).await;
    assert_eq!(list.lines().count(), 6, "{list}");
    mesh.add_stream("STOCK", &["stock.>"], RetentionPolicy::Limits).await;
    let nowhere = letters
        .iter()
        .find(|letter| letter.header("Mesh-Subject") == Some("stock.moved"));
    let id = nowhere.expect("it is there").letter_id().to_owned();
    mesh.jetmesh_ok(&["dlq", "replay", &id, "--yes"]).await;
    assert_eq!(texts(&mesh.messages("STOCK", ">").await), ["nowhere"]);
}

#[tokio::test]
async fn a_paused_outbox_publishes_nothing_on_any_host_until_it_is_resumed() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    let _hosts = [mesh.host(&[]).await, mesh.host(&[]).await];
    shop.orders(&["before"]);
    audited(&mesh, &shop).await;
    mesh.jetmesh_ok(&["outbox", "pause", "orders", "--reason", "stock is counted"])
        .await;
    let told = mesh.jetmesh_ok(&["outbox", "pause", "orders"]).await;
    assert!(told.contains("paused already"), "{told}");
    shop.orders(&["meanwhile"]);
    let status: Value = eventually("the row to be told", SOON, async || {
        let text = mesh.jetmesh_ok(&["outbox", "status", "orders", "--json"]).await;
        let status: Value = serde_json::from_str(&text).expect("a line of JSON");
        (status["waiting"] == 1).then_some(status)
    })
    .await;
    assert_eq!(
        (&status["state"], &status["why"]),
        (&json!("paused"), &json!("stock is counted"))
    );
    assert_eq!(texts(&events(&mesh).await), ["before"]);
    mesh.jetmesh_ok(&["outbox", "resume", "orders"]).await;
    audited(&mesh, &shop).await;
    assert!(
        mesh.jetmesh_ok(&["outbox", "resume", "orders"])
            .await
            .contains("is not paused")
    );
    // A marker of a person is no batch for a host that sees it late.
    mesh.jetmesh_ok(&["outbox", "pause", "orders"]).await;
    shop.orders(&["soon"]);
    mesh.jetmesh_ok(&["outbox", "resume", "orders"]).await;
    audited(&mesh, &shop).await;
    let line = mesh.jetmesh_ok(&["outbox", "status", "--json"]).await;
    assert!(line.contains("\"restored\":null"), "{line}");
    let line = mesh.jetmesh_ok(&["outbox", "status", "--json"]).await;
    assert_fits(&mesh, "outbox", &line).await;
    let table = mesh.jetmesh_ok(&["status"]).await;
    assert!(table.contains("OUTBOX  STATE       WAITING  LAG"), "{table}");
}

#[tokio::test]
async fn a_row_that_a_person_skips_is_a_dead_letter_and_no_event() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    let _host = mesh.host(&[]).await;
    mesh.jetmesh_ok(&["outbox", "pause", "orders"]).await;
    shop.row("orders.created", None, "wrong");
    shop.orders(&["right"]);
    let (status, _, stderr) = mesh.jetmesh(&["outbox", "skip", "orders", "1"]).await;
    assert!(!status.success() && stderr.contains("--yes"), "{stderr}");
    let skip = ["outbox", "skip", "orders", "1", "--reason", "a test order", "--yes"];
    let told = mesh.jetmesh_ok(&skip).await;
    assert!(told.contains("row 1 is a dead letter"), "{told}");
    let (status, _, stderr) = mesh.jetmesh(&skip).await;
    assert!(status.code() == Some(1) && stderr.contains("has no row 1"), "{stderr}");
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].header("Mesh-Error"), Some("a test order"));
    let shown = mesh.jetmesh_ok(&["dlq", "show", letters[0].letter_id()]).await;
    assert!(shown.contains("id 1, uid "), "{shown}");
    assert_eq!(events(&mesh).await.len(), 0, "it is still paused");
    mesh.jetmesh_ok(&["outbox", "resume", "orders"]).await;
    audited(&mesh, &shop).await;
}

#[tokio::test]
async fn a_stream_that_cannot_hold_an_outbox_is_named_with_the_command_that_mends_it() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    mesh.add_stream("ORDERS", &["orders.>"], RetentionPolicy::Limits).await;
    shop.orders(&["waits"]);
    let wanted = "nats stream edit ORDERS --subjects 'orders.>,$MESH.outbox.orders' --allow-batch";
    let (status, stdout, _) = mesh.jetmesh(&["check", "--connect"]).await;
    assert!(status.code() == Some(4) && stdout.contains(wanted), "{stdout}");
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["ERROR", "an outbox does not publish", wanted]), SOON)
        .await;
    let (status, stdout, _) = mesh.jetmesh(&["status"]).await;
    assert!(
        status.code() == Some(6) && stdout.contains("outbox orders is stopped"),
        "{stdout}"
    );
    let mut info = mesh.js.get_stream("ORDERS").await.expect("it is there");
    let mut mended = info.info().await.expect("it answers").config.clone();
    mended.subjects.push("$MESH.outbox.orders".to_owned());
    mended.allow_atomic_publish = true;
    mesh.js.update_stream(mended).await.expect("it can be changed");
    audited(&mesh, &shop).await;
    host.wait_for_line(says(&["an outbox publishes again"]), SOON).await;
}

#[tokio::test]
async fn rows_wait_in_the_table_while_their_stream_is_full() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    stream(&mesh, |config| {
        config.max_messages = 4;
        config.discard = DiscardPolicy::New;
    })
    .await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a", "b"]);
    audited(&mesh, &shop).await;
    shop.orders(&["c", "d"]);
    host.wait_for_line(
        says(&["an outbox does not publish", "stream ORDERS takes nothing", "--max-"]),
        SOON,
    )
    .await;
    assert_eq!((events(&mesh).await.len(), mesh.letters().await.len()), (2, 0));
    let mut info = mesh.js.get_stream("ORDERS").await.expect("it is there");
    let mut larger = info.info().await.expect("it answers").config.clone();
    larger.max_messages = 400;
    mesh.js.update_stream(larger).await.expect("it can be changed");
    audited(&mesh, &shop).await;
}

#[tokio::test]
async fn an_outbox_without_its_tables_says_which_command_makes_them() {
    let mesh = Mesh::new(config()).await;
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["an outbox does not publish", "there is no such file"]), SOON)
        .await;
    let (_, stdout, _) = mesh.jetmesh(&["check"]).await;
    assert!(
        stdout.contains("warning: outbox orders: database ") && stdout.contains("no such file"),
        "{stdout}"
    );
    let sql = mesh.jetmesh_ok(&["outbox", "init", "orders"]).await;
    rusqlite::Connection::open(mesh.dir.path().join("orders.db"))
        .expect("it opens")
        .execute_batch("CREATE TABLE other (a)")
        .expect("it is SQL");
    host.wait_for_line(
        says(&[
            "an outbox does not publish",
            "`jetmesh outbox init orders --yes` makes it",
        ]),
        SOON,
    )
    .await;
    // The SQL that is printed does the same.
    let shop = Shop::at(&mesh.dir.path().join("orders.db"));
    shop.db.execute_batch(&sql).expect("it is SQL");
    shop.orders(&["a"]);
    audited(&mesh, &shop).await;
}

#[tokio::test]
async fn what_is_wrong_with_an_outbox_in_the_configuration_is_said_with_its_fix() {
    let wrong = "[outbox.probe]\nurl = \"mysql://u:secret@h/db\"\ntable = \"a b\"\nstream = \"ORDERS\"\n\
                 [outbox.same]\nurl = \"sqlite:orders.db\"\nstream = \"ORDERS\"\n";
    let mut mesh = Mesh::new(crate::mesh::Config::probe().table(OUTBOX).table(wrong)).await;
    let (status, _, stderr) = mesh.jetmesh(&["check"]).await;
    assert_eq!(status.code(), Some(2));
    for said in [
        "outbox.probe: \"probe\" is the name of a handler",
        "outbox.probe.url: \"mysql://***@h/db\" is not the address of a database that an outbox can read",
        "outbox.probe.table: \"a b\" is not a table's name",
        "outbox.same.table: outbox orders has the same table of the same database",
        "handlers.probe.subjects: it would be given `$MESH.outbox.orders`",
    ] {
        assert!(stderr.contains(said), "{said}\n{stderr}");
    }
    mesh.config = config();
    let printed = mesh.jetmesh_ok(&["config"]).await;
    assert!(printed.contains("[outbox.orders]\nurl = \"sqlite:"), "{printed}");
}

#[tokio::test]
async fn another_database_in_the_place_of_one_is_refused_until_a_person_says_so() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a"]);
    audited(&mesh, &shop).await;
    drop(host);
    let other = mesh.dir.path().join("new.db");
    std::fs::rename(&shop.file, mesh.dir.path().join("old.db")).expect("it is ours");
    drop(shop);
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(mesh.dir.path().join(format!("orders.db{end}")));
    }
    assert!(!other.exists());
    let shop = Shop::open(&mesh).await;
    shop.orders(&["b"]);
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["ERROR", "from another database", "--new-database"]), PATIENT)
        .await;
    assert_eq!(texts(&events(&mesh).await), ["a"]);
    mesh.jetmesh_ok(&["outbox", "resume", "orders", "--new-database"]).await;
    eventually("the new database's row", SOON, async || {
        (texts(&events(&mesh).await) == ["a", "b"]).then_some(())
    })
    .await;
    // What the stream has of the old one is not undone.
    let lines = host.lines();
    assert!(!lines.iter().any(|line| line.contains("is older than")), "{lines:#?}");
}

#[tokio::test]
async fn of_two_meshes_with_one_database_one_stops_and_names_both_streams() {
    let mesh = Mesh::new(config()).await;
    let shop = Shop::open(&mesh).await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a"]);
    audited(&mesh, &shop).await;
    let mut other = Mesh::new(config()).await;
    let file = shop.file.display().to_string();
    other.config = config_of(&OUTBOX.replace("orders.db", &file));
    let second = other.host(&[]).await;
    host.wait_for_line(
        says(&[
            "ERROR",
            "an outbox does not publish",
            "go into two streams",
            "start this host again",
        ]),
        PATIENT,
    )
    .await;
    shop.orders(&["b"]);
    eventually("the row in the stream that is left", SOON, async || {
        (texts(&events(&other).await) == ["b"]).then_some(())
    })
    .await;
    let lines = second.lines();
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("WARN") && line.contains("outbox"))
        .collect();
    assert!(
        told.len() == 1 && told[0].contains("two meshes have this database"),
        "{told:#?}"
    );
}
