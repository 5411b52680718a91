//! An outbox carries rows of a PostgreSQL into a stream.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mesh::{Mesh, says};
use crate::pg_shop::{PgShop, Source, audited, config, config_with, url};
use crate::shop::{events, texts};
use crate::support::postgres::PostgresServer;
use crate::support::wait::SOON;
use crate::support::{eventually, skipped};

#[tokio::test]
async fn rows_of_postgres_become_events_each_once_and_a_commit_wakes_the_host() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Table).await;
    shop.orders(&["before-the-host"]).await;
    let _host = mesh.host(&[]).await;
    audited(&mesh, &shop).await;
    shop.run(&format!("BEGIN; {} ROLLBACK", shop.saved(&["never"]))).await;
    for n in 0..30 {
        shop.orders(&[&format!("one-{n}"), &format!("two-{n}")]).await;
    }
    let headers = r#"{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Tag": ["x", "y"]}"#;
    shop.run("INSERT INTO orders (event) VALUES ('with headers')").await;
    shop.row("orders.created", Some(headers), "with headers").await;
    let events = audited(&mesh, &shop).await;
    let last = events.last().expect("there are some");
    let tags: Vec<&str> = last.headers.get_all("Tag").map(|value| value.as_str()).collect();
    assert_eq!(tags, ["x", "y"]);
    // A host that only looked each second would need many seconds for this.
    let begun = Instant::now();
    for n in 0..20 {
        shop.orders(&[&format!("woken-{n}")]).await;
        shop.settled().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    audited(&mesh, &shop).await;
}

#[tokio::test]
async fn a_row_of_a_transaction_that_commits_after_rows_with_larger_ids_is_published_too() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Table).await;
    let _host = mesh.host(&[]).await;
    shop.run(&format!("BEGIN; {}", shop.saved(&["late-1", "late-2"]))).await;
    let other = shop.again(server).await;
    for n in 0..5 {
        other.orders(&[&format!("early-{n}")]).await;
    }
    eventually("the early ones", SOON, async || {
        (events(&mesh).await.len() == 5).then_some(())
    })
    .await;
    shop.run("COMMIT").await;
    let found = eventually("the late ones", SOON, async || {
        let found = texts(&events(&mesh).await);
        (found.len() == 7).then_some(found)
    })
    .await;
    assert_eq!(found[5..], ["late-1", "late-2"]);
}

#[tokio::test]
async fn a_row_of_postgres_that_its_stream_cannot_take_is_a_dead_letter_and_a_person_can_pause_and_skip() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Table).await;
    let _host = mesh.host(&[]).await;
    shop.poison().await;
    shop.orders(&["a"]).await;
    audited(&mesh, &shop).await;
    let letters = mesh.wait_letters(1).await;
    assert_eq!(letters[0].payload, "poison");
    mesh.jetmesh_ok(&["outbox", "pause", "orders"]).await;
    shop.row("orders.created", None, "wrong").await;
    shop.orders(&["right"]).await;
    let id = shop.number("SELECT min(id) FROM outbox").await.to_string();
    mesh.jetmesh_ok(&["outbox", "skip", "orders", &id, "--yes"]).await;
    assert_eq!(mesh.wait_letters(2).await.len(), 2);
    let status: Value = eventually("the row to be told", SOON, async || {
        let text = mesh.jetmesh_ok(&["outbox", "status", "orders", "--json"]).await;
        let status: Value = serde_json::from_str(&text).expect("a line of JSON");
        (status["waiting"] == 1).then_some(status)
    })
    .await;
    assert_eq!(status["state"], "paused");
    mesh.jetmesh_ok(&["outbox", "resume", "orders"]).await;
    audited(&mesh, &shop).await;
}

#[tokio::test]
async fn a_table_that_a_service_has_made_with_other_types_is_read() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Table).await;
    shop.run(
        "ALTER TABLE outbox ALTER payload DROP DEFAULT, ALTER payload TYPE jsonb USING '{}', ALTER headers TYPE text; \
         ALTER TABLE outbox ALTER payload DROP NOT NULL; \
         INSERT INTO outbox (subject, headers, payload) VALUES ('orders.created', '{\"a\": 1}', '{\"order\": 7}'), \
         ('orders.created', 'null', NULL), ('orders.created', NULL, 'null')",
    )
    .await;
    let _host = mesh.host(&[]).await;
    let found = eventually("the events", SOON, async || {
        let found = events(&mesh).await;
        (found.len() == 3).then_some(found)
    })
    .await;
    assert_eq!(texts(&found), ["{\"order\": 7}", "", "null"]);
    assert_eq!(found[0].header("a"), Some("1"));
    shop.settled().await;
}

#[tokio::test]
async fn an_outbox_that_lacks_a_right_for_a_while_is_stopped_visibly_and_takes_nothing_for_undone() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let (mesh, shop) = PgShop::open(server, Source::Table).await;
    let host = mesh.host(&[]).await;
    shop.orders(&["a"]).await;
    audited(&mesh, &shop).await;
    let role = format!("host_{}", shop.database);
    for (n, right) in ["UPDATE ON outbox_position", "DELETE ON outbox"]
        .into_iter()
        .enumerate()
    {
        shop.run(&format!("REVOKE {right} FROM {role}")).await;
        shop.orders(&["b", "c"]).await;
        let stopped = |times: usize| {
            let stops = says(&["ERROR", "an outbox does not publish", "permission denied"]);
            move |lines: &[String]| lines.iter().filter(|line| stops(line)).count() == times
        };
        eventually("a line for each time that it stops", SOON, async || {
            stopped(n + 1)(&host.lines()).then_some(())
        })
        .await;
        let status: Value = eventually("the rows to be told", SOON, async || {
            let (_, text, _) = mesh.jetmesh(&["outbox", "status", "--json"]).await;
            let status: Value = serde_json::from_str(&text).expect("a line of JSON");
            (status["waiting"] == 2 && status["state"] == "stopped").then_some(status)
        })
        .await;
        // It tries again and again, and is stopped all the time.
        shop.tried_again().await;
        let (_, text, _) = mesh.jetmesh(&["outbox", "status", "--json"]).await;
        let later: Value = serde_json::from_str(&text).expect("a line of JSON");
        assert_eq!((&later["state"], &later["since"]), (&status["state"], &status["since"]));
        let again = |line: &String| line.contains("publishes again");
        assert_eq!(host.lines().iter().filter(|line| again(line)).count(), n);
        shop.run(&format!("GRANT {right} TO {role}")).await;
        audited(&mesh, &shop).await;
        eventually("its end to be told", SOON, async || {
            (host.lines().iter().filter(|line| again(line)).count() == n + 1).then_some(())
        })
        .await;
    }
    let lines = host.lines();
    assert!(!lines.iter().any(|line| line.contains("have no row")), "{lines:#?}");
}

/// `jetmesh check` says this of an outbox.
async fn checked(mesh: &Mesh, said: &str) {
    let (_, stdout, stderr) = mesh.jetmesh(&["check"]).await;
    assert!(stdout.contains(said), "{said}\n{stdout}{stderr}");
    assert!(!stdout.contains("secret"), "{stdout}");
}

#[tokio::test]
async fn what_keeps_a_host_from_its_postgres_is_said_with_the_fix() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let database = server.database().await;
    let shop = PgShop::at(server, &database, Source::Table).await;
    let mut mesh = Mesh::new(config(&url(server.addr(), &database))).await;
    checked(&mesh, "correct the user in outbox.orders.url").await;
    shop.run(&format!("CREATE ROLE host_{database} LOGIN PASSWORD 'secret'"))
        .await;
    let owner = format!("`jetmesh outbox init orders | psql {database}`, run by the owner");
    checked(&mesh, &owner).await;
    let sql = mesh.jetmesh_ok(&["outbox", "init", "orders"]).await;
    shop.run(&sql).await;
    checked(&mesh, "GRANT SELECT, DELETE ON outbox TO").await;
    mesh.config = config(&format!("{}?sslmode=require", url(server.addr(), &database)));
    checked(&mesh, "add `?sslmode=disable`").await;
    mesh.config = config("postgres://u:secret@db.invalid/x?sslmode=prefer");
    let (status, _, stderr) = mesh.jetmesh(&["check"]).await;
    let said = "sslmode \"prefer\" is none that an outbox has";
    assert!(
        status.code() == Some(2) && stderr.contains(said) && !stderr.contains("secret"),
        "{stderr}"
    );
}

#[tokio::test]
async fn check_names_rights_columns_and_publications_that_an_outbox_of_postgres_lacks() {
    let Some(server) = PostgresServer::shared().await else {
        return;
    };
    let database = server.database().await;
    let shop = PgShop::at(server, &database, Source::Table).await;
    let mut mesh = Mesh::new(config(&url(server.addr(), &database))).await;
    shop.init(&mesh).await;
    let role = format!("host_{database}");
    let made = format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT ON outbox, outbox_position TO {role}");
    shop.run(&made).await;
    checked(&mesh, "no DELETE on table outbox").await;
    checked(&mesh, "no UPDATE on table outbox_position").await;
    shop.run(&format!(
        "GRANT DELETE ON outbox TO {role}; GRANT UPDATE ON outbox_position TO {role}; \
         ALTER TABLE outbox ALTER payload DROP DEFAULT, ALTER payload TYPE integer USING 7"
    ))
    .await;
    checked(&mesh, "column payload is of type int4").await;
    shop.run("ALTER TABLE outbox RENAME payload TO body").await;
    checked(&mesh, "add the column with `ALTER TABLE outbox ADD COLUMN").await;
    // For the log, the role and the database need other things.
    mesh.config = config_with(&url(server.addr(), &database), Source::Log, "");
    shop.init(&mesh).await;
    checked(&mesh, "`ALTER ROLE … REPLICATION`").await;
    shop.run(&format!(
        "ALTER ROLE {role} REPLICATION; DROP PUBLICATION jetmesh_orders"
    ))
    .await;
    checked(&mesh, "there is no publication jetmesh_orders").await;
    shop.run(&format!("REVOKE UPDATE ON outbox_position FROM {role}")).await;
    let (_, stdout, _) = mesh.jetmesh(&["check"]).await;
    assert!(
        stdout.contains("GRANT SELECT, UPDATE ON outbox_position") && !stdout.contains("ON outbox TO"),
        "{stdout}"
    );
    let slot = format!("SELECT pg_drop_replication_slot('jetmesh_{database}_orders')");
    shop.run(&slot).await;
}

#[tokio::test]
async fn a_connection_to_postgres_is_encrypted_and_the_server_proves_its_name() {
    let Some(mut server) = PostgresServer::own().await else {
        return;
    };
    let data = server.data();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(data.join("server.key"))
        .arg("-out")
        .arg(data.join("server.crt"))
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        return skipped("there is no openssl to make a certificate");
    }
    server.stop().await;
    server.use_certificate();
    server.start().await;
    let (mut mesh, shop) = PgShop::open(&server, Source::Table).await;
    let ca = mesh.dir.path().join("ca.pem");
    std::fs::copy(data.join("server.crt"), &ca).expect("it can be read");
    let plain = mesh.config.clone();
    for (query, works) in [
        ("verify-full&sslrootcert=ca.pem", true),
        ("require", true),
        ("verify-full", false),
    ] {
        mesh.config = config(&format!("{}?sslmode={query}", url(server.addr(), &shop.database)));
        let host = mesh.host(&[]).await;
        shop.orders(&[query]).await;
        if works {
            audited(&mesh, &shop).await;
            let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                             WHERE ssl AND application_name = 'jetmesh outbox orders'";
            assert!(shop.number(encrypted).await >= 1, "{query}");
        } else {
            host.wait_for_line(says(&["an outbox does not publish", "&sslrootcert=FILE"]), SOON)
                .await;
        }
        host.stop().await;
    }
    mesh.config = plain;
    let _host = mesh.host(&[]).await;
    audited(&mesh, &shop).await;
}
