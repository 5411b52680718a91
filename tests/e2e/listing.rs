//! `jetmesh dlq ls` reads no more than it shows needs, says what it has looked at, and which replays have failed.

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use crate::interrupted::publish;
use crate::mesh::{Config, Mesh};
use crate::poisoned::{replay, with_letters};

const COUNT: usize = 3_000;

/// A mesh with this number of made-up letters of two handlers, every hundredth with a code of its own.
async fn many() -> Mesh {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    publish(&mesh, COUNT, |n| {
        let handler = if n % 100 == 0 { "other" } else { "probe" };
        (format!("$MESH.dead.ORDERS.{handler}.k.{n}"), String::new())
    })
    .await;
    mesh
}

/// What a command prints, and how many letters the server has given it.
async fn reads(mesh: &Mesh, args: &[&str]) -> (String, usize) {
    // A client of its own: answers to requests come to inboxes as well.
    let looker = mesh.server.client().await;
    let mut heard = looker.subscribe("_INBOX.>").await.expect("connected");
    let mut marks = looker.subscribe("mark").await.expect("connected");
    let mut passed = async || {
        looker.publish("mark", "".into()).await.expect("connected");
        marks.next().await.expect("connected");
    };
    passed().await;
    let text = mesh.jetmesh_ok(args).await;
    passed().await;
    let mut read = 0;
    // Without the runtime's budget, by which it would say "nothing yet" after a while.
    while let Some(Some(message)) = tokio::task::unconstrained(heard.next()).now_or_never() {
        let delivery = message.reply.as_deref().unwrap_or_default();
        read += usize::from(delivery.starts_with("$JS.ACK.MESH_DEAD."));
    }
    (text, read)
}

#[tokio::test]
async fn the_newest_letters_are_listed_without_reading_the_others() {
    let mesh = many().await;
    let (table, read) = reads(&mesh, &["dlq", "ls"]).await;
    assert!(read <= 500, "{read} of {COUNT} letters were read to show 100");
    let ids: Vec<&str> = table
        .lines()
        .skip(1)
        .take(100)
        .filter_map(|row| row.split(' ').next())
        .collect();
    let wanted: Vec<String> = (COUNT - 99..=COUNT)
        .map(|n| format!("{}.k.{n}", if n % 100 == 0 { "other" } else { "probe" }))
        .collect();
    assert_eq!(ids, wanted, "the newest, oldest first");
    let last = table.lines().last().expect("a line says what is left out");
    assert_eq!(
        last,
        "the newest 100 of 3000, including those that were resolved in the last three days; all of them with --limit \
         0, by fault with --group"
    );
    let (lines, read) = reads(&mesh, &["dlq", "ls", "--json", "--limit", "7"]).await;
    assert_eq!(lines.lines().count(), 7);
    assert!(read <= 500, "{read} letters were read to show 7");
    let (all, read) = reads(&mesh, &["dlq", "ls", "--json"]).await;
    assert_eq!((all.lines().count(), read), (COUNT, COUNT));
}

#[tokio::test]
async fn with_a_filter_it_says_what_it_has_looked_at_and_finds_what_is_old() {
    let mesh = many().await;
    let (table, read) = reads(&mesh, &["dlq", "ls", "--handler", "other", "--limit", "3"]).await;
    let ids: Vec<&str> = table
        .lines()
        .skip(1)
        .take(3)
        .filter_map(|row| row.split(' ').next())
        .collect();
    assert_eq!(ids, ["other.k.2800", "other.k.2900", "other.k.3000"]);
    assert!(table.contains("the newest 3 of 30, including those"), "{table}");
    assert!(read <= 10, "the server leaves out what is another handler's: {read}");
    let (table, _) = reads(&mesh, &["dlq", "ls", "--code", "made-up", "--limit", "2"]).await;
    assert!(
        table.contains("the newest 2 of this kind: of 3000 in the stream 500 were looked at, back to "),
        "{table}"
    );
    // The only one of its kind is older than all others: everything is read, and so it is counted.
    let odd = [("Mesh-Handler", "probe"), ("Mesh-Code", "odd")];
    mesh.publish_with("$MESH.dead.ORDERS.probe.odd.1", &odd, "").await;
    publish(&mesh, COUNT, |n| {
        (format!("$MESH.dead.ORDERS.probe.later.{n}"), String::new())
    })
    .await;
    let (table, read) = reads(&mesh, &["dlq", "ls", "--code", "odd"]).await;
    assert!(table.contains("probe.odd.1 "), "{table}");
    assert_eq!(table.lines().count(), 2, "nothing is left out: {table}");
    assert!((2 * COUNT + 1..=2 * COUNT + 500).contains(&read), "{read}");
    let (_, read) = reads(&mesh, &["dlq", "ls", "--since", "2000-01-01T00:00:00Z", "--limit", "1"]).await;
    assert!(read <= 500, "{read}");
}

#[tokio::test]
async fn groups_tell_how_many_letters_were_replayed_and_failed_again() {
    let (mesh, _host) = with_letters(3).await;
    let failed = async || -> Value {
        let groups = mesh.jetmesh_ok(&["dlq", "ls", "--group", "--json"]).await;
        serde_json::from_str(&groups).expect("they are one group")
    };
    assert_eq!(failed().await["failed_again"], 0);
    let letters = mesh.letters().await;
    let (code, _) = replay(
        &mesh,
        &[letters[0].letter_id(), letters[1].letter_id(), "--max-failures", "100"],
    )
    .await;
    assert_eq!(code, Some(1));
    let group = failed().await;
    assert_eq!((&group["failed_again"], &group["count"]), (&json!(2), &json!(3)));
    let table = mesh.jetmesh_ok(&["dlq", "ls", "--group"]).await;
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert!(table.starts_with("GROUP     COUNT  FAILED AGAIN  FIRST"), "{table}");
    assert_eq!(row[1..3], ["3", "2"], "{table}");
}
