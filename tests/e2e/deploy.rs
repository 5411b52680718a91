//! What an operator is given besides the program: users of NATS with the rights that they need and no more, and a unit of systemd.

use std::process::ExitStatus;

use async_nats::ConnectOptions;
use serde_json::json;
use tokio::process::Command;

use crate::effects::shop;
use crate::mesh::{Config, Mesh};
use crate::permissions;
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, eventually, modules, root, skipped, tool};

const CONF: &str = include_str!("../../config/nats/jetmesh.conf");
const UNIT: &str = include_str!("../../config/systemd/jetmesh.service");

/// The users of the file, and the test itself, which may do everything.
fn users() -> Options {
    let (_, users) = CONF.split_once("authorization {").expect("it has users");
    let mut users =
        format!("authorization {{{users}").replace("users: [", "users: [\n    { user: test, password: pw }");
    for role in ["HOST", "PUBLISHER", "OPERATOR", "VIEWER"] {
        users = users.replace(&format!("$MESH_{role}_PASSWORD"), "pw");
    }
    Options {
        config: format!("no_auth_user: test\n{users}"),
        ..Options::default()
    }
}

async fn running(config: Config) -> (Mesh, Host) {
    let config = config.nats("user = \"host\"").nats("password = \"pw\"");
    let mesh = Mesh::over(NatsServer::start_with(&users()).await, config).await;
    let host = mesh.host(&[]).await;
    (mesh, host)
}

async fn as_user(mesh: &Mesh, user: &str, args: &[&str]) -> (ExitStatus, String, String) {
    mesh.jetmesh(&[args, &["--user", user, "--password", "pw"]].concat())
        .await
}

fn order(id: &str, qty: i64) -> String {
    json!({ "order_id": id, "user_id": "u-7", "lines": [{ "sku": "sku-1", "qty": qty }], "total_cents": 100 })
        .to_string()
}

#[tokio::test]
async fn a_server_takes_the_file_of_users_as_it_is() {
    let Some(server) = tool("nats-server", "NATS_SERVER") else {
        return skipped("there is no nats-server");
    };
    let mut command = Command::new(server);
    command.arg("-t").arg("-c").arg(root().join("config/nats/jetmesh.conf"));
    for role in ["HOST", "PUBLISHER", "OPERATOR", "VIEWER"] {
        command.env(format!("MESH_{role}_PASSWORD"), "pw");
    }
    let checked = command.output().await.expect("it starts");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[tokio::test]
async fn each_user_of_the_file_may_do_its_job() {
    let (mesh, host) = running(shop()).await;
    mesh.put("inventory", "stock.sku-1", "10").await;
    let options = ConnectOptions::with_user_and_password("publisher".to_owned(), "pw".to_owned());
    let publisher = mesh.server.client_with(options).await;
    for (id, qty) in [("o-1", 2), ("o-2", 99), ("o-3", 99), ("o-4", 99)] {
        let answer = publisher.request("orders.created", order(id, qty).into()).await;
        answer.expect("the stream confirms it");
    }
    let letters = mesh.wait_letters(3).await;
    let ids: Vec<&str> = letters.iter().map(|letter| letter.letter_id()).collect();
    let trace = format!("ORDERS:{}", 1);
    let looks: [&[&str]; 7] = [
        &["status"],
        &["dlq", "ls", "--group"],
        &["dlq", "show", ids[0]],
        &["trace", &trace],
        &["retrying"],
        &["delayed"],
        &["modules", "ls"],
    ];
    for user in ["viewer", "operator"] {
        for look in looks {
            let (status, text, error) = as_user(&mesh, user, look).await;
            assert!(
                status.success() && !error.contains("not allowed"),
                "{user} {look:?}: {text}{error}"
            );
        }
    }
    mesh.put("inventory", "stock.sku-1", "1000").await;
    let module = modules::handler("probe");
    let payload = mesh.dir.path().join("payload");
    std::fs::write(&payload, order("o-3", 1)).expect("the test's folder is writable");
    let groups = as_user(&mesh, "operator", &["dlq", "ls", "--group", "--json"]).await.1;
    let group: serde_json::Value = serde_json::from_str(groups.lines().next().expect("a group")).expect("JSON");
    let group = group["group"].as_str().expect("an id");
    let acts: [&[&str]; 10] = [
        &["dlq", "note", group, "ticket 12"],
        &[
            "dlq",
            "edit",
            ids[1],
            "--payload",
            payload.to_str().expect("UTF-8"),
            "--reason",
            "too many",
        ],
        &["dlq", "replay", ids[0], "--yes"],
        &["dlq", "replay", ids[1], "--yes"],
        &["dlq", "discard", ids[2], "--reason", "a test", "--yes"],
        &["pause", "points", "--reason", "a test"],
        &["resume", "points"],
        &[
            "modules",
            "push",
            module.to_str().expect("UTF-8"),
            "--as",
            "probe",
            "--version",
            "1",
        ],
        &["modules", "promote", "probe", "1"],
        &["audit"],
    ];
    for act in acts {
        let (status, text, error) = as_user(&mesh, "operator", act).await;
        assert!(status.success(), "{act:?}: {text}{error}");
    }
    mesh.wait_letters(0).await;
    let (status, text, error) = as_user(&mesh, "viewer", &["audit", "--json"]).await;
    assert!(
        status.success() && text.contains("\"user\":\"operator\""),
        "{text}{error}"
    );
    host.stop().await;
    for line in host.lines() {
        assert!(!line.to_lowercase().contains("permissions violation"), "{line}");
    }
}

#[tokio::test]
async fn no_user_of_the_file_may_do_what_is_not_its_job() {
    let (mesh, _host) = running(shop()).await;
    mesh.put("inventory", "stock.sku-1", "1").await;
    mesh.publish("orders.created", order("o-1", 9)).await;
    let letters = mesh.wait_letters(1).await;
    let id = letters[0].letter_id();
    let refused: [&[&str]; 5] = [
        &["dlq", "replay", id, "--yes"],
        &["dlq", "discard", id, "--yes"],
        &["pause", "points"],
        &["modules", "push", "x.wasm", "--as", "probe"],
        &["delayed", "now", "points.k.1.0"],
    ];
    std::fs::copy(modules::handler("probe"), mesh.dir.path().join("x.wasm")).expect("the test's folder is writable");
    for act in refused {
        let (status, _, error) = as_user(&mesh, "viewer", act).await;
        assert_eq!(status.code(), Some(4), "{act:?}: {error}");
        assert!(error.contains("not allowed to publish to"), "{act:?}: {error}");
    }
    let (status, _, error) = as_user(&mesh, "operator", &["reset", "points", "--yes"]).await;
    assert!(!status.success(), "{error}");
    // What is refused is dropped by the server: after the last subject, which is allowed, nothing of it is there.
    for (user, subjects) in [
        (
            "publisher",
            vec![
                "$KV.inventory.stock.sku-1",
                "$MESH.replay.points.x",
                "inventory.reserved",
            ],
        ),
        (
            "operator",
            vec!["$KV.inventory.stock.sku-1", "orders.created", "points.added"],
        ),
        (
            "viewer",
            vec![
                "$KV.inventory.stock.sku-1",
                "orders.created",
                "$KV.mesh_modules.serving.points",
            ],
        ),
        (
            "host",
            vec![
                "orders.other",
                "$KV.mesh_modules.version.points.x",
                "$O.mesh_modules.M.x",
            ],
        ),
    ] {
        let options = ConnectOptions::with_user_and_password(user.to_owned(), "pw".to_owned());
        let client = mesh.server.client_with(options).await;
        for subject in subjects {
            let answer = tokio::time::timeout(SOON / 20, client.request(subject, "forged".into())).await;
            assert!(!matches!(answer, Ok(Ok(_))), "{user} may publish to {subject}");
        }
    }
    assert_eq!(mesh.value("inventory", "stock.sku-1").await.as_deref(), Some("1"));
    assert_eq!(mesh.messages("ORDERS", ">").await.len(), 1);
    mesh.wait_letters(1).await;
}

#[test]
fn the_permissions_of_a_host_are_those_that_the_docs_list() {
    let list = |text: &str| -> Vec<String> {
        let quoted = text.split('"').skip(1).step_by(2).map(str::to_owned);
        let mut all: Vec<String> = quoted.collect();
        all.sort();
        all
    };
    let (_, host) = CONF.split_once("user: host").expect("it has a host");
    let (host, _) = host.split_once("allow_responses").expect("it ends so");
    let mut documented = list(permissions::listed());
    // What the page says of a host that follows the registry.
    documented.extend(["$JS.API.DIRECT.GET.KV_mesh_modules", "$KV.mesh_modules.serving.*"].map(str::to_owned));
    documented.sort();
    assert_eq!(list(host), documented);
}

#[tokio::test]
async fn systemd_takes_the_unit_and_finds_it_well_confined() {
    let Some(analyze) = tool("systemd-analyze", "SYSTEMD_ANALYZE") else {
        return skipped("there is no systemd-analyze, so the unit is not checked");
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let unit = dir.path().join("jetmesh.service");
    let here = UNIT.replace("/usr/local/bin/jetmesh", env!("CARGO_BIN_EXE_jetmesh"));
    std::fs::write(&unit, here).expect("it is writable");
    for args in [["verify"].as_slice(), &["security", "--offline=true", "--threshold=25"]] {
        let checked = Command::new(&analyze)
            .args(args)
            .arg(&unit)
            .output()
            .await
            .expect("it starts");
        let told = format!(
            "{}{}",
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        );
        // An old one does not know every option.
        if told.contains("unrecognized option") {
            skipped("this systemd-analyze is too old to judge the unit");
            continue;
        }
        assert!(checked.status.success(), "{args:?}: {told}");
    }
    let seconds = |key: &str| -> u64 {
        let line = UNIT.lines().find_map(|line| line.strip_prefix(key)).expect("it is set");
        line.parse().expect("seconds")
    };
    let effective = eventually("the configuration", SOON, async || {
        let config = root().join("config/default.toml");
        let args = ["config", "--config", config.to_str().expect("UTF-8")];
        Some(crate::support::cli::jetmesh(&args).await.1)
    });
    assert!(
        effective.await.contains("drain_timeout = \"30s\""),
        "the unit gives a drain more time than this"
    );
    assert!(seconds("TimeoutStopSec=") > 30);
}
