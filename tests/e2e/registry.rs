//! The registry of modules: what is promoted serves, on every host, and nothing else does.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use nkeys::KeyPair;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::modules::{second_version, version};
use crate::permissions::all_but;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, cli, eventually, modules};

const LINES: &str = "bucket = \"probe\"\npublish = [\"events.>\"]";

pub fn config() -> Config {
    Config::new().handler("probe", Path::new("registry"), LINES)
}

fn first_version() -> Vec<u8> {
    fs::read(modules::handler("probe")).expect("the probe is readable")
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file(mesh: &Mesh, name: &str, bytes: &[u8]) -> String {
    let path: PathBuf = mesh.dir.path().join(name);
    fs::write(&path, bytes).expect("the test's folder is writable");
    path.to_str().expect("UTF-8").to_owned()
}

/// Pushes a module; returns its digest.
async fn push(mesh: &Mesh, bytes: &[u8], more: &[&str]) -> String {
    let path = file(mesh, "pushed.wasm", bytes);
    let args = [&["modules", "push", &path, "--as", "probe", "--json"], more].concat();
    let pushed: Value = serde_json::from_str(&mesh.jetmesh_ok(&args).await).expect("JSON");
    assert_eq!(pushed["digest"], hex(bytes), "{pushed}");
    pushed["digest"].as_str().expect("a digest").to_owned()
}

async fn change(mesh: &Mesh, args: &[&str]) -> (ExitStatus, Value, String) {
    let (status, text, error) = mesh.jetmesh(&[&["modules"], args, &["--json"]].concat()).await;
    (status, serde_json::from_str(&text).unwrap_or_default(), error)
}

/// A mesh that serves with the first version, and the digests of both.
async fn serving() -> (Mesh, Host, [String; 2]) {
    serving_with(&[], "").await
}

/// The same with variables of the host, and more lines of its handler.
pub async fn serving_with(env: &[(&str, &str)], lines: &str) -> (Mesh, Host, [String; 2]) {
    let lines = format!("{LINES}\n{lines}");
    let mesh = Mesh::new(Config::new().handler("probe", Path::new("registry"), &lines)).await;
    let versions = pushed_to(&mesh).await;
    let host = mesh.host(env).await;
    (mesh, host, versions)
}

/// Pushes both versions, and promotes the first.
pub async fn pushed_to(mesh: &Mesh) -> [String; 2] {
    let first = push(mesh, &first_version(), &["--version", "1.0.0"]).await;
    let (status, promoted, error) = change(mesh, &["promote", "probe", &first]).await;
    assert!(status.success(), "{promoted} {error}");
    let newer = ["--version", "2.0.0", "--note", "a newer one"];
    [first, push(mesh, &second_version(), &newer).await]
}

#[tokio::test]
async fn what_is_promoted_serves_and_a_rollback_returns_to_what_served_before() {
    let (mesh, host, [first, second]) = serving().await;
    assert_eq!(version(&mesh, 0).await, "1", "what is pushed does not serve yet");
    let (status, promoted, _) = change(&mesh, &["promote", "probe", "2.0.0", "--note", "ticket 7"]).await;
    assert_eq!(
        (
            status.code(),
            &promoted["changed"],
            &promoted["digest"],
            &promoted["previous"],
            &promoted["hosts"]
        ),
        (Some(0), &json!(true), &json!(second), &json!(first), &json!(1)),
        "{promoted}"
    );
    // The command ends when the hosts serve with it.
    assert_eq!(version(&mesh, 1).await, "2");
    let (_, again, _) = change(&mesh, &["promote", "probe", &second[..12]]).await;
    assert_eq!(
        (&again["changed"], &again["revision"]),
        (&json!(false), &promoted["revision"])
    );
    let (status, back, error) = change(&mesh, &["rollback", "probe", "--note", "it is slow"]).await;
    assert_eq!((status.code(), &back["digest"]), (Some(0), &json!(first)), "{error}");
    assert_eq!(version(&mesh, 2).await, "1");
    // Nothing has served before that: the version that was left is not returned to.
    let (status, _, error) = change(&mesh, &["rollback", "probe"]).await;
    assert_eq!(status.code(), Some(1));
    assert!(error.contains("no earlier version of probe has served"), "{error}");
    let history = mesh.jetmesh_ok(&["modules", "history", "probe", "--json"]).await;
    let told: Vec<Value> = history
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told: Vec<(&Value, &Value, &Value)> = told
        .iter()
        .map(|one| (&one["act"], &one["digest"], &one["note"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!("rolled-back"), &json!(first), &json!("it is slow")),
            (&json!("promoted"), &json!(second), &json!("ticket 7")),
            (&json!("promoted"), &json!(first), &Value::Null),
        ]
    );
    let swaps = host
        .lines()
        .iter()
        .filter(|line| line.contains("module swapped"))
        .count();
    assert_eq!(swaps, 2, "what serves already is not swapped");
    // What people with the `nats` command line see is what it is.
    let Some(record) = cli::nats(&mesh.server, &["kv", "get", "mesh_modules", "serving.probe", "--raw"]).await else {
        return;
    };
    let record: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(
        (&record["digest"], &record["act"]),
        (&json!(first), &json!("rolled-back"))
    );
    let path = mesh.dir.path().join("got.wasm");
    let got = path.to_str().expect("UTF-8");
    let get = [
        "object",
        "get",
        "mesh_modules",
        &second,
        "--output",
        got,
        "--no-progress",
    ];
    cli::nats(&mesh.server, &get).await;
    assert_eq!(fs::read(&path).expect("it was written"), second_version());
    let pulled = mesh.dir.path().join("pulled.wasm");
    mesh.jetmesh_ok(&["modules", "pull", "probe", "--output", pulled.to_str().expect("UTF-8")])
        .await;
    assert_eq!(fs::read(&pulled).expect("it was written"), first_version());
}

#[tokio::test]
async fn a_host_waits_for_the_first_version_and_one_that_starts_later_has_what_is_promoted() {
    let mesh = Mesh::new(config()).await;
    let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    host.wait_for_line(
        says(&[
            "handlers.probe.module: nothing is promoted as probe",
            "modules push FILE",
        ]),
        SOON,
    )
    .await;
    let first = push(&mesh, &first_version(), &[]).await;
    change(&mesh, &["promote", "probe", &first]).await;
    host.wait_for_line(says(&["serving", "handler=probe "]), PATIENT).await;
    assert_eq!(version(&mesh, 0).await, "1");
    let second = push(&mesh, &second_version(), &[]).await;
    change(&mesh, &["promote", "probe", &second]).await;
    host.stop().await;
    // One that was frozen while another was promoted, and one that starts now.
    let later = mesh.host(&[]).await;
    assert_eq!(version(&mesh, 1).await, "2");
    later.signal(Signal::STOP);
    let url = mesh.server.url();
    let file = mesh.write_config();
    let promote = [
        "modules",
        "promote",
        "probe",
        &first,
        "--server",
        &url,
        "--config",
        file.to_str().expect("UTF-8"),
    ];
    let promoting = cli::jetmesh_in(mesh.dir.path(), &promote);
    let resumed = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        later.signal(Signal::CONT);
    };
    let ((status, text, error), ()) = tokio::join!(promoting, resumed);
    assert!(status.success(), "{text}{error}");
    later
        .wait_for_line(says(&["module swapped", &format!("new={}", &first[..12])]), SOON)
        .await;
    assert_eq!(version(&mesh, 2).await, "1");
}

#[tokio::test]
async fn the_second_of_two_who_promote_at_once_is_told_who_when_and_what() {
    let (mesh, _host, [first, second]) = serving().await;
    let config = mesh.write_config();
    let args = [
        "modules",
        "promote",
        "probe",
        &second,
        "--config",
        config.to_str().expect("UTF-8"),
    ];
    // It has read what is promoted, and is held before it writes.
    let mut slow = crate::support::host::command(mesh.dir.path());
    slow.args(args).env("MESH_FAULT", "module-change:stop");
    let slow = Host::start_program(slow);
    let read = format!("/proc/{}/stat", slow.pid());
    eventually("the command to stop", SOON, async || {
        fs::read_to_string(&read)
            .ok()
            .filter(|stat| stat.contains(") T "))
            .map(|_| ())
    })
    .await;
    let (status, promoted, error) = change(&mesh, &["hold", "probe", "--note", "counting"]).await;
    assert!(status.success(), "{promoted}{error}");
    slow.signal(Signal::CONT);
    let told = slow
        .wait_for_line(
            says(&["was changed meanwhile", "held by", "(counting)", "nothing is changed"]),
            SOON,
        )
        .await;
    assert!(told.contains(&first[..12]), "{told}");
    assert_eq!(slow.wait_exit(SOON).await.code(), Some(1));
    assert_eq!(version(&mesh, 0).await, "1");
    // The same for people who looked long before.
    let (status, _, error) = change(&mesh, &["resume", "probe", "--upon", "1"]).await;
    assert_eq!(status.code(), Some(1));
    assert!(error.contains("was changed meanwhile"), "{error}");
}

#[tokio::test]
async fn nothing_is_promoted_while_a_name_is_held_but_a_rollback_is() {
    let (mesh, _host, [first, second]) = serving().await;
    change(&mesh, &["promote", "probe", &second]).await;
    let (_, held, _) = change(&mesh, &["hold", "probe", "--note", "friday"]).await;
    assert_eq!(held["hold"]["reason"], "friday", "{held}");
    let (status, _, error) = change(&mesh, &["promote", "probe", &first]).await;
    assert_eq!(status.code(), Some(1));
    assert!(
        error.contains("probe is held by") && error.contains("(friday)"),
        "{error}"
    );
    let (status, back, error) = change(&mesh, &["rollback", "probe"]).await;
    assert!(status.success(), "{error}");
    assert_eq!(
        (&back["digest"], &back["hold"]["reason"]),
        (&json!(first), &json!("friday"))
    );
    change(&mesh, &["resume", "probe"]).await;
    let (status, ..) = change(&mesh, &["promote", "probe", &second]).await;
    assert!(status.success());
    assert_eq!(version(&mesh, 0).await, "2");
}

/// Writes a version into the registry as one who does not use jetmesh would.
async fn plant(mesh: &Mesh, digest: &str, content: &[u8], wants: &[&str]) {
    let nuid = &digest[..20];
    let publish = async |subject: String, headers: &[(&str, &str)], body: Vec<u8>| {
        mesh.publish_with(&subject, headers, body).await;
    };
    for part in content.chunks(128 * 1024) {
        publish(format!("$O.mesh_modules.C.{nuid}"), &[], part.to_vec()).await;
    }
    let described = json!({
        "name": digest, "bucket": "mesh_modules", "nuid": nuid, "size": content.len(), "mtime": "2026-01-01T00:00:00Z",
        "chunks": content.chunks(128 * 1024).len(), "digest": format!("SHA-256={}", URL_SAFE.encode(Sha256::digest(content))),
    });
    let meta = format!("$O.mesh_modules.M.{}", URL_SAFE.encode(digest));
    publish(meta, &[("Nats-Rollup", "sub")], described.to_string().into()).await;
    let version = json!({
        "format": 1, "digest": digest, "size": content.len(), "wit": "jetmesh:handler@0.1.0", "version": null, "imports": [],
        "wants": wants, "labels": {}, "by": "eve", "at": "2026-01-01T00:00:00Z", "note": null, "signatures": [],
    });
    mesh.put("mesh_modules", &format!("version.probe.{digest}"), &version.to_string())
        .await;
}

async fn serve_by_force(mesh: &Mesh, digest: &str) {
    let record = json!({ "format": 1, "digest": digest, "act": "promoted", "by": "eve", "at": "2026-01-01T00:00:00Z", "note": null,
        "hold": null });
    mesh.put("mesh_modules", "serving.probe", &record.to_string()).await;
}

#[tokio::test]
async fn a_bad_module_never_serves_also_if_another_program_has_written_it() {
    const KEPT: &str = "what the registry has cannot serve; the old module continues to serve";
    let (mesh, host, [first, _]) = serving().await;
    let good = first_version();
    let bad: [(&[u8], &str); 4] = [
        (&good[..good.len() / 2], "not a valid component"),
        (b"no module at all", "not a WebAssembly file"),
        (b"\0asm\x01\0\0\0", "a core module, not a component"),
        (b"\0asm\x0d\0\x01\0", "it does not export jetmesh:handler/handler@0.1.0"),
    ];
    for (bytes, why) in bad {
        let path = file(&mesh, "bad.wasm", bytes);
        let (status, _, error) = mesh.jetmesh(&["modules", "push", &path, "--as", "probe"]).await;
        assert!(status.code() == Some(2) && error.contains(why), "{status} {error}");
        plant(&mesh, &hex(bytes), bytes, &[]).await;
        serve_by_force(&mesh, &hex(bytes)).await;
        host.wait_for_line(says(&[KEPT, why]), SOON).await;
    }
    // Another content under the digest of a good one.
    let forged = "f".repeat(64);
    plant(&mesh, &forged, &second_version(), &[]).await;
    serve_by_force(&mesh, &forged).await;
    host.wait_for_line(says(&[KEPT, "it has another SHA-256"]), SOON).await;
    // More than its handler is granted.
    let greedy = hex(&second_version());
    plant(&mesh, &greedy, &second_version(), &["publish:orders.>"]).await;
    serve_by_force(&mesh, &greedy).await;
    host.wait_for_line(
        says(&[KEPT, "wants publish:orders.>, which handler probe is not granted"]),
        SOON,
    )
    .await;
    let (status, _, error) = change(&mesh, &["promote", "probe", &greedy]).await;
    assert!(
        status.code() == Some(1) && error.contains("not granted"),
        "{status} {error}"
    );
    // What is not there at all, and a record that is none.
    serve_by_force(&mesh, &"e".repeat(64)).await;
    host.wait_for_line(says(&[KEPT, "the registry does not describe it"]), SOON)
        .await;
    mesh.put("mesh_modules", "serving.probe", "{}").await;
    host.wait_for_line(says(&[KEPT, "serving.probe"]), SOON).await;
    assert_eq!(version(&mesh, 0).await, "1");
    let status = mesh.jetmesh(&["status"]).await.1;
    assert!(status.contains("serving.probe"), "{status}");
    serve_by_force(&mesh, &first).await;
    eventually("the status to tell of nothing", SOON, async || {
        let status = mesh.jetmesh_ok(&["status"]).await;
        (!status.contains("not taken up")).then_some(())
    })
    .await;
    let swaps = host
        .lines()
        .iter()
        .filter(|line| line.contains("module swapped"))
        .count();
    assert_eq!(swaps, 0);
}

#[tokio::test]
async fn an_unsigned_or_wrongly_signed_version_never_serves_and_its_signature_lets_it_serve() {
    let (pair, other) = (KeyPair::new_user(), KeyPair::new_user());
    let require = format!("[modules]\nrequire = [{:?}]", pair.public_key());
    let mesh = Mesh::new(config().table(&require)).await;
    let (seed, wrong) = (
        file(&mesh, "seed", pair.seed().expect("it has one").as_bytes()),
        file(&mesh, "other", other.seed().expect("it has one").as_bytes()),
    );
    let first = push(&mesh, &first_version(), &["--key", &seed]).await;
    let (status, _, error) = change(&mesh, &["promote", "probe", &first]).await;
    assert!(status.success(), "{error}");
    let host = mesh.host(&[]).await;
    let second = push(&mesh, &second_version(), &["--key", &wrong]).await;
    let (status, _, error) = change(&mesh, &["promote", "probe", &second]).await;
    assert!(
        status.code() == Some(1) && error.contains(&pair.public_key()),
        "{error}"
    );
    serve_by_force(&mesh, &second).await;
    host.wait_for_line(says(&["cannot serve", "is not signed by", &pair.public_key()]), SOON)
        .await;
    assert_eq!(version(&mesh, 0).await, "1");
    // One who writes to the registry claims the key for a signature of the other.
    let key = format!("version.probe.{second}");
    let stored = mesh.value("mesh_modules", &key).await.expect("it is there");
    mesh.put(
        "mesh_modules",
        &key,
        &stored.replace(&other.public_key(), &pair.public_key()),
    )
    .await;
    serve_by_force(&mesh, &second).await;
    let (status, ..) = change(&mesh, &["promote", "probe", &second]).await;
    assert_eq!(status.code(), Some(1));
    assert_eq!(version(&mesh, 1).await, "1");
    mesh.jetmesh_ok(&["modules", "sign", "probe", &second, "--key", &seed])
        .await;
    host.wait_for_line(says(&["module swapped", &format!("new={}", &second[..12])]), PATIENT)
        .await;
    assert_eq!(version(&mesh, 2).await, "2");
}

#[tokio::test]
async fn a_host_that_starts_with_a_bad_version_promoted_serves_the_one_before() {
    let (mesh, host, _) = serving().await;
    host.stop().await;
    let core = b"\0asm\x01\0\0\0";
    plant(&mesh, &hex(core), core, &[]).await;
    serve_by_force(&mesh, &hex(core)).await;
    let host = mesh.host(&[]).await;
    assert_eq!(version(&mesh, 0).await, "1");
    host.wait_for_line(says(&["the version that served before it does", "a core module"]), SOON)
        .await;
    let (status, text, _) = mesh.jetmesh(&["status"]).await;
    assert!(status.success() && text.contains("a core module"), "{status} {text}");
}

#[tokio::test]
async fn promotions_under_load_lose_and_repeat_nothing() {
    let (mesh, _host, digests) = serving().await;
    let (ended, mut orders) = (Cell::new(false), 0_usize);
    let publish = async {
        while !ended.get() {
            let emit = json!({ "op": "emit", "subject": "events.n", "payload": orders });
            let steps = json!([{ "op": "version", "subject": "events.version" }, emit]);
            mesh.order(steps).await;
            orders += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let changes = async {
        for n in 0..8 {
            let (status, _, error) = change(&mesh, &["promote", "probe", &digests[(n + 1) % 2]]).await;
            assert!(status.success(), "{error}");
        }
        ended.set(true);
    };
    tokio::join!(publish, changes);
    let events = mesh.wait_emitted(2 * orders).await;
    let mut numbers: Vec<u64> = events
        .iter()
        .filter(|one| one.subject == "events.n")
        .filter_map(|one| one.json().as_u64())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(0..orders as u64));
    let by = |version: &str| {
        events
            .iter()
            .filter(|one| one.subject == "events.version" && one.json() == version)
            .count()
    };
    assert!(by("1") > 0 && by("2") > 0, "both versions have served");
    assert!(mesh.letters().await.is_empty());
}

#[tokio::test]
async fn a_fleet_converges_whatever_became_of_its_hosts_meanwhile() {
    let (mut mesh, first_host, [first, second]) = serving().await;
    let (killed, third) = (mesh.host(&[]).await, mesh.host(&[]).await);
    killed.signal(Signal::KILL);
    mesh.server.stop().await;
    first_host.wait_for_line(says(&["connection lost"]), SOON).await;
    mesh.server.restart().await;
    let (status, promoted, error) = change(&mesh, &["promote", "probe", &second]).await;
    assert!(status.success(), "{promoted}{error}");
    let new = mesh.host(&[]).await;
    for host in [&first_host, &third] {
        host.wait_for_line(says(&["module swapped", &format!("new={}", &second[..12])]), PATIENT)
            .await;
    }
    let (status, back, error) = change(&mesh, &["rollback", "probe"]).await;
    assert_eq!(
        (status.code(), &back["digest"], &back["hosts"]),
        (Some(0), &json!(first), &json!(3)),
        "{error}"
    );
    new.wait_for_line(says(&["module swapped", &format!("new={}", &first[..12])]), SOON)
        .await;
}

#[tokio::test]
async fn prune_keeps_what_serves_what_a_rollback_needs_and_contents_of_other_names() {
    let (mesh, _host, [first, second]) = serving().await;
    change(&mesh, &["promote", "probe", &second]).await;
    let mut others = Vec::new();
    for n in 0..3_u8 {
        // A custom section at the end makes it another module that does the same.
        let mut bytes = first_version();
        bytes.extend([0, 3, 1, b'n', n]);
        others.push(push(&mesh, &bytes, &[]).await);
    }
    let path = mesh.dir.path().join("pushed.wasm");
    mesh.jetmesh_ok(&["modules", "push", path.to_str().expect("UTF-8"), "--as", "other"])
        .await;
    let dry = mesh
        .jetmesh_ok(&["modules", "prune", "probe", "--keep", "1", "--dry-run", "--json"])
        .await;
    let dry: Value = serde_json::from_str(&dry).expect("JSON");
    assert_eq!(
        (&dry["kept"], &dry["removed"]),
        (&json!(3), &json!(others[..2])),
        "{dry}"
    );
    mesh.jetmesh_ok(&["modules", "prune", "probe", "--keep", "0", "--yes"])
        .await;
    let left = mesh.jetmesh_ok(&["modules", "ls", "probe", "--json"]).await;
    let left: Vec<Value> = left
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let digests: Vec<&str> = left.iter().filter_map(|one| one["digest"].as_str()).collect();
    assert_eq!(digests, [first.as_str(), second.as_str()]);
    let pull = |name: &'static str, digest: String| {
        let output = mesh.dir.path().join(format!("{name}-{}", &digest[..12]));
        let mesh = &mesh;
        async move {
            let output = output.to_str().expect("UTF-8");
            mesh.jetmesh(&["modules", "pull", name, &digest, "--output", output])
                .await
                .0
                .success()
        }
    };
    assert!(pull("other", others[2].clone()).await && pull("probe", first.clone()).await);
    let objects = mesh.messages("OBJ_mesh_modules", "$O.mesh_modules.M.>").await;
    let there = objects.iter().filter(|one| one.json()["deleted"] != true).count();
    assert_eq!(there, 3, "the contents of versions that are gone are gone");
    // What was pruned can come again.
    let mut bytes = first_version();
    bytes.extend([0, 3, 1, b'n', 0]);
    assert_eq!(push(&mesh, &bytes, &[]).await, others[0]);
    let (status, _, error) = change(&mesh, &["promote", "probe", &others[0]]).await;
    assert!(status.success(), "{error}");
}

#[tokio::test]
async fn a_host_that_may_not_look_at_the_registry_learns_of_a_promotion_all_the_same_and_says_what_it_lacks() {
    let server = NatsServer::start_with(&all_but("$JS.API.DIRECT.GET.KV_mesh_modules")).await;
    let mesh = Mesh::over(server, config().nats("user = \"host\"").nats("password = \"pw\"")).await;
    let first = push(&mesh, &first_version(), &[]).await;
    change(&mesh, &["promote", "probe", &first]).await;
    let host = mesh.host(&[]).await;
    let second = push(&mesh, &second_version(), &[]).await;
    let (status, promoted, error) = change(&mesh, &["promote", "probe", &second]).await;
    assert!(status.success(), "{promoted}{error}");
    let grant = "grant `$JS.API.DIRECT.GET.KV_mesh_modules`";
    host.wait_for_line(says(&["WARN", "what is promoted is learned late", grant]), SOON)
        .await;
    assert_eq!(version(&mesh, 0).await, "2");
}
