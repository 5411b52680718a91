//! Dead letters as a file that a browser downloads.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::admin_address;
use super::wire::{log_in, post, send};
use crate::mesh::{Config, Mesh};

/// Orders an export; returns the path of the file.
async fn order(address: SocketAddr, headers: &[&str], selection: Value) -> String {
    let answer = post(address, "export", headers, &json!({ "selection": selection })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    format!("/api/export/{}", answer.json()["ticket"].as_str().expect("a ticket"))
}

/// The lines of an answer; the pieces of it are between their lengths.
fn lines(body: &str) -> Vec<&str> {
    body.lines().filter(|line| line.starts_with('{')).collect()
}

#[tokio::test]
async fn an_export_is_the_file_of_the_command_and_one_that_breaks_off_is_none() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = mesh.host(&[("JETMESH_ADMIN__LISTEN", "127.0.0.1:0")]).await;
    let address = admin_address(&host).await;
    for code in ["a", "a", "b"] {
        mesh.order(json!({ "op": "reject", "code": code, "message": "no\u{202e}" }))
            .await;
    }
    mesh.wait_letters(3).await;
    let (cookie, csrf) = log_in(address, &json!({ "way": "nothing" })).await;
    let headers = [cookie.as_str(), csrf.as_str()];
    let all = mesh.jetmesh_ok(&["dlq", "export", "--all"]).await;
    let (of_a, all): (Vec<&str>, Vec<&str>) = (all.lines().take(2).collect(), all.lines().collect());
    let path = order(address, &headers, json!({ "conditions": { "code": "a" } })).await;
    let file = send(address, &format!("GET {path}"), &[&cookie], "").await;
    assert_eq!((file.status, lines(&file.body)), (200, of_a));
    let kind = file.headers.to_lowercase();
    assert!(
        kind.contains("content-disposition: attachment; filename=\"dead-letters-"),
        "{kind}"
    );
    // A ticket is for one file, and for the session that has ordered it.
    assert_eq!(send(address, &format!("GET {path}"), &[&cookie], "").await.status, 404);
    let id: Value = serde_json::from_str(all[2]).expect("JSON");
    let path = order(address, &headers, json!({ "ids": [id["id"]] })).await;
    let (other, _) = log_in(address, &json!({ "way": "nothing" })).await;
    assert_eq!(send(address, &format!("GET {path}"), &[&other], "").await.status, 404);
    assert_eq!(send(address, &format!("GET {path}"), &[], "").await.status, 401);
    let one = send(address, &format!("GET {path}"), &[&cookie], "").await;
    assert_eq!(lines(&one.body), all[2..]);
    let state = async |path: &str| {
        let ticket = path.rsplit('/').next().expect("a ticket");
        super::wire::get(address, &format!("export?ticket={ticket}"), &cookie)
            .await
            .json()
    };
    let whole = json!({ "letters": 1, "end": { "broken": null, "missing": 0, "first_missing": [], "unread": null } });
    assert_eq!(state(&path).await, whole);
    // What it lacks is said in the file, as the command says it, and to the viewer.
    let ids = [id["id"].as_str().expect("an id"), "probe.k.77"];
    let path = order(address, &headers, json!({ "ids": ids })).await;
    let lacking = send(address, &format!("GET {path}"), &[&cookie], "").await;
    let lacks = r#"{"lacks":{"missing":["probe.k.77"],"unread":null}}"#;
    assert_eq!(lines(&lacking.body), [all[2], lacks]);
    let told = state(&path).await;
    assert_eq!(
        (
            &told["letters"],
            &told["end"]["missing"],
            &told["end"]["first_missing"][0]
        ),
        (&json!(1), &json!(1), &json!("probe.k.77"))
    );
    let (status, by_command, _) = mesh.jetmesh(&["dlq", "export", ids[0], ids[1]]).await;
    assert_eq!(
        (status.code(), by_command.lines().collect::<Vec<_>>()),
        (Some(1), vec![all[2], lacks])
    );
    let file = mesh.dir.path().join("lacking.jsonl");
    std::fs::write(&file, &by_command).expect("the test's folder is writable");
    let (status, out, stderr) = mesh.jetmesh(&["dlq", "import", file.to_str().expect("UTF-8")]).await;
    assert!(
        status.success() && out.contains("1 already there") && out.contains("0 malformed"),
        "{out}{stderr}"
    );
    assert!(
        stderr.contains("lacks something: no dead letter `probe.k.77`"),
        "{stderr}"
    );
    let path = order(address, &headers, json!({ "all": true })).await;
    let file = send(address, &format!("GET {path}"), &[&cookie], "").await;
    assert_eq!(lines(&file.body), all);
    // A browser that takes it slowly holds nothing but its own: what was not sent is not read. One that is not told all must see that.
    let letter = [
        ("Mesh-Handler", "probe"),
        ("Mesh-Cause", "rejected"),
        ("Mesh-Event", "k.9"),
        ("Mesh-Code", "large"),
    ];
    for number in 0..60 {
        mesh.publish_with(
            &format!("$MESH.dead.ORDERS.probe.k.{number}"),
            &letter,
            "x".repeat(500_000),
        )
        .await;
    }
    let path = order(address, &headers, json!({ "conditions": { "code": "large" } })).await;
    let mut slow = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{cookie}\r\n\r\n");
    slow.write_all(request.as_bytes()).await.expect("it reads");
    slow.readable().await.expect("it answers");
    assert_eq!(post(address, "logout", &headers, &json!({})).await.status, 200);
    let mut got = Vec::new();
    // Whether the connection is closed or reset is the system's choice.
    let _ = slow.read_to_end(&mut got).await;
    assert!(
        got.len() < 25_000_000,
        "{} bytes were sent after the end of the session",
        got.len()
    );
    assert!(!got.ends_with(b"\r\n0\r\n\r\n"), "it looks like a whole file");
}
