//! The command line: what it says, and with which code it ends.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;

use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, says};
use crate::support::cli::jetmesh_in;
use crate::support::wait::SOON;
use crate::support::{cli, eventually, modules};
use tempfile::TempDir;

/// An address where nobody listens: port 1 is taken only by root, and by nobody since long ago.
const NOBODY: &str = "nats://127.0.0.1:1";

/// A component made of these sections, each an id and its content.
///
/// Format: <https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>.
fn component(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    for (id, content) in sections {
        bytes.push(*id);
        bytes.push(u8::try_from(content.len()).expect("a short section"));
        bytes.extend(content);
    }
    bytes
}

/// The name of an import or an export.
fn named(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("a short name");
    [&[0, length], name.as_bytes()].concat()
}

/// A component that exports an empty instance.
fn exports(name: &str) -> Vec<u8> {
    let export = [&[1], &named(name)[..], &[5, 0, 0]].concat();
    component(&[(5, vec![1, 1, 0]), (11, export)])
}

/// A component that imports an empty instance.
fn imports(name: &str) -> Vec<u8> {
    let import = [&[1], &named(name)[..], &[5, 0]].concat();
    component(&[(7, vec![1, 0x42, 0]), (10, import)])
}

/// Runs `jetmesh` on this configuration; the folder's name does not show in what it prints.
async fn run(dir: &Path, config: &str, args: &[&str]) -> (Option<i32>, String, String) {
    fs::write(dir.join("jetmesh.toml"), config).expect("the test's folder is writable");
    let (status, stdout, stderr): (ExitStatus, _, _) = jetmesh_in(dir, args).await;
    let hidden = |text: String| text.replace(dir.to_str().expect("UTF-8"), "[dir]");
    (status.code(), hidden(stdout), hidden(stderr))
}

#[tokio::test]
async fn a_module_that_cannot_serve_is_named_with_its_fault_and_what_is_wanted() {
    let dir = TempDir::new().expect("a temporary folder");
    let files = [
        ("garbage", b"hello".to_vec()),
        ("core", b"\0asm\x01\0\0\0".to_vec()),
        ("nothing", component(&[])),
        ("newer", exports("jetmesh:handler/handler@0.2.0")),
        ("foreign", imports("acme:db/store@1.0.0")),
        ("broken", component(&[(99, vec![1])])),
    ];
    let mut config = Config::new().handler("absent", Path::new("absent.wasm"), "");
    for (name, bytes) in files {
        let file = format!("{name}.wasm");
        fs::write(dir.path().join(&file), bytes).expect("the test's folder is writable");
        config = config.handler(name, Path::new(&file), "");
    }
    let text = config.text(NOBODY);
    let (code, stdout, stderr) = run(dir.path(), &text, &["check"]).await;
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    insta::assert_snapshot!(stderr, @r#"
    error: handlers.absent.module: absent.wasm: there is no such file
    handlers.broken.module: broken.wasm: not a valid component: failed to parse WebAssembly module: malformed section id: 99 (at offset 0xa)
    handlers.core.module: core.wasm: a core module, not a component; build it for wasm32-wasip2, or run `wasm-tools component new` on it
    handlers.foreign.module: foreign.wasm: it imports `acme:db/store@1.0.0`, which this host does not provide (unknown package); provided: jetmesh:handler@0.1.0 and WASI 0.2
    handlers.garbage.module: garbage.wasm: not a WebAssembly file (it does not begin with \0asm); wanted: a component that exports jetmesh:handler/handler@0.1.0
    handlers.newer.module: newer.wasm: it does not export jetmesh:handler/handler@0.1.0; it exports `jetmesh:handler/handler@0.2.0`
    handlers.nothing.module: nothing.wasm: it does not export jetmesh:handler/handler@0.1.0; it exports nothing
    "#);
    // A host that is started with them says the same, before it looks for NATS.
    let (code, _, again) = run(dir.path(), &text, &["run"]).await;
    assert_eq!((code, again), (Some(2), stderr));
}

#[tokio::test]
async fn check_tells_all_problems_of_a_configuration_at_once() {
    let dir = TempDir::new().expect("a temporary folder");
    let config = r#"
        mesh = "my mesh"
        relais = true
        [nats]
        url = "localhost:4222"
        [streams.ORDERS]
        subjects = ["orders.>"]
        [handlers.points]
        module = "points.wasm"
        stream = "ORDERS"
        subjects = ["order.created"]
        concurrency = 0
        ack_wait = "10ms"
        start = "yesterday"
        bucket = "mesh"
        [handlers.notify]
        stream = "ORDERS"
        publish = ["notifications..x"]
    "#;
    let (code, stdout, stderr) = run(dir.path(), config, &["check"]).await;
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    insta::assert_snapshot!(stderr, @r#"
    error: jetmesh.toml has 10 problems
      mesh: "my mesh" is not a name
        hint: 1 to 64 characters of A-Z a-z 0-9 - and _
      handlers.notify.module: it is missing
        hint: the component file, relative to this configuration
      handlers.notify.publish: "notifications..x" is not a subject: a part between dots is empty
      handlers.points.concurrency: 0 is not in 1..=10000
        hint: leave it out for the default, 16
      handlers.points.ack_wait: 10ms is not between 1s and a year
      handlers.points.start: "yesterday" is not a start
        hint: "all", "new", a sequence from 1 on, or an RFC 3339 time
      handlers.points.bucket: "mesh" is the mesh's own
        hint: use another name
      handlers.points.subjects: `order.created` is not captured by stream ORDERS
        hint: it captures orders.>
      relais: unknown key
        hint: did you mean `relay`?
      handlers.points.module: there is no file points.wasm
    "#);
}

#[tokio::test]
async fn check_says_what_a_good_configuration_means() {
    let dir = TempDir::new().expect("a temporary folder");
    for name in ["probe", "notify"] {
        fs::copy(modules::handler(name), dir.path().join(format!("{name}.wasm"))).expect("a writable folder");
    }
    let config = Config::new()
        .handler(
            "stateful",
            Path::new("probe.wasm"),
            "bucket = \"things\"\nconcurrency = 3",
        )
        .handler("bare", Path::new("notify.wasm"), "");
    let (code, stdout, stderr) = run(dir.path(), &config.text(NOBODY), &["check"]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    // The digests are those of the build.
    let stdout = stdout.lines().map(|line| match line.split_once("(module ") {
        Some((before, _)) => format!("{before}(module …)\n"),
        None => format!("{line}\n"),
    });
    insta::assert_snapshot!(stdout.collect::<String>(), @r#"
    jetmesh.toml: valid
    bare: notify.wasm is a handler (module …)
      up to 16 instances, 64 events at work, 936 waiting for a retry; ledger: none: its events are only acked
    stateful: probe.wasm is a handler (module …)
      up to 3 instances, 12 events at work, 988 waiting for a retry; ledger: things
    "#);
}

#[tokio::test]
async fn every_failure_ends_with_its_code() {
    let dir = TempDir::new().expect("a temporary folder");
    let good = Config::probe().text(NOBODY);
    let expected = [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&[], 2),
        (&["dance"], 2),
        (&["config"], 0),
        (&["check", "--config", "absent.toml"], 2),
        (&["check", "--connect"], 3),
        (&["status"], 3),
        (&["dlq", "ls"], 3),
        (&["run", "--wait", "0s"], 3),
        (&["run", "--wait", "soon"], 2),
    ];
    for (args, wanted) in expected {
        let (code, stdout, stderr) = run(dir.path(), &good, args).await;
        assert_eq!(code, Some(wanted), "{args:?}\n{stdout}{stderr}");
        assert_eq!(stderr.is_empty(), wanted == 0, "{args:?}\n{stderr}");
    }
    let (code, _, stderr) = run(dir.path(), "mesh = ", &["check"]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("jetmesh.toml: not valid TOML"), "{stderr}");
}

#[tokio::test]
async fn the_help_names_every_command_and_every_exit_code() {
    let (status, stdout, _) = cli::jetmesh(&["--help"]).await;
    assert!(status.success());
    insta::assert_snapshot!(stdout, @r#"
    An event mesh on NATS JetStream: sandboxed WebAssembly handlers, effects exactly once

    Usage: jetmesh [OPTIONS] <COMMAND>

    Commands:
      run       Run a host: the production start
      dev       Try everything on this machine: starts its own nats-server, seeds stock, publishes
                sample orders
      check     Validate configuration and modules, without touching NATS
      config    Print the effective configuration, secrets hidden
      status    How each handler stands
      dlq       Dead letters: find, understand, replay
      retrying  What failed and is tried again: attempt, last error, when the next is due
      trace     Where an event is: what each handler has made of it, and what has followed, as a tree
      schema    Print the JSON schema of what a command prints with --json
      reset     Let a handler begin anew, at its start; says first what would go
      help      Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Options of all commands:
      -c, --config <FILE>        The configuration file [default: ./jetmesh.toml, else
                                 ./config/default.toml] [env: JETMESH_CONFIG]
      -s, --server <URL>         NATS server, over `nats.url` of the configuration [env: NATS_URL]
          --context <NAME>       A context of the `nats` CLI to connect with
          --user <NAME>          User name, or, without a password, a token [env: NATS_USER]
          --password <PASSWORD>  Password [env: NATS_PASSWORD]
          --creds <FILE>         Credentials file [env: NATS_CREDS]
          --nkey <FILE>          File with an nkey seed [env: NATS_NKEY]
          --wait <DURATION>      How long to wait for NATS at start: a duration such as 30s, 0 to fail
                                 at once, or `forever`
          --log <FILTER>         What is logged: a level or a filter such as jetmesh=debug
          --log-format <FORMAT>  Log format: text or json

    Exit codes: 0 done; 1 failed; 2 wrong usage, configuration or module; 3 NATS not reached in time; 4
    NATS cannot be used as it is; 5 a shutdown left work unfinished, which will be delivered again; 6
    something does not serve, says `status`; 130 ended at once by a second signal; 141 nobody read what
    it printed.
    "#);
}

#[tokio::test]
async fn the_help_of_a_command_has_its_own_options_and_nothing_suggests_what_is_not_for_people() {
    let (_, stdout, _) = cli::jetmesh(&["dlq", "ls", "--help"]).await;
    assert!(
        stdout.contains("--limit") && !stdout.contains("--config <FILE>"),
        "{stdout}"
    );
    assert!(
        stdout.contains("Options of all commands, such as --config and --server: jetmesh --help"),
        "{stdout}"
    );
    // They are taken behind the command all the same.
    let (status, _, stderr) = cli::jetmesh(&["dlq", "ls", "--config", "absent.toml"]).await;
    assert!(
        status.code() == Some(2) && stderr.contains("absent.toml: cannot be read"),
        "{stderr}"
    );
    let (status, _, stderr) = cli::jetmesh(&["compile-modul"]).await;
    assert!(
        status.code() == Some(2) && !stderr.contains("compile-module"),
        "{stderr}"
    );
}

#[tokio::test]
async fn an_empty_variable_is_not_set() {
    let dir = TempDir::new().expect("a temporary folder");
    fs::write(dir.path().join("jetmesh.toml"), Config::probe().text(NOBODY)).expect("a writable folder");
    for name in [
        "JETMESH_CONFIG",
        "NATS_URL",
        "NATS_USER",
        "NATS_PASSWORD",
        "NATS_CREDS",
        "NATS_NKEY",
        "JETMESH_MESH",
    ] {
        let (status, stdout, stderr) = cli::jetmesh_with(dir.path(), &["config"], &[(name, "")]).await;
        assert!(status.success() && stdout.contains(NOBODY), "{name}: {stderr}");
    }
    let set = [("NATS_URL", "nats://elsewhere:1")];
    let (_, stdout, _) = cli::jetmesh_with(dir.path(), &["config"], &set).await;
    assert!(stdout.contains("nats://elsewhere:1"), "{stdout}");
}

#[tokio::test]
async fn commands_about_dead_letters_end_with_their_codes() {
    let mesh = Mesh::new(Config::probe()).await;
    let (status, _, stderr) = mesh.jetmesh(&["dlq", "ls"]).await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("no host of this mesh has run here"), "{stderr}");
    let _host = mesh.host(&[]).await;
    for (id, code, text) in [
        ("probe.k.1", 1, "no dead letter `probe.k.1`"),
        ("7", 2, "`7` is not HANDLER."),
        ("a.*.1", 2, "`a.*.1`"),
    ] {
        for verb in ["show", "replay"] {
            let (status, _, stderr) = mesh.jetmesh(&["dlq", verb, id]).await;
            assert!(
                status.code() == Some(code) && stderr.contains(text),
                "{verb} {id}: {status}\n{stderr}"
            );
        }
    }
}

#[tokio::test]
async fn a_secret_is_shown_by_no_command() {
    let dir = TempDir::new().expect("a temporary folder");
    let config = Config::probe().nats("user = \"mesh\"").nats("password = \"hunter2\"");
    for url in [NOBODY, "nats://mesh:hunter2@127.0.0.1:1"] {
        for args in [
            &["config"][..],
            &["check"],
            &["check", "--connect"],
            &["status"],
            &["run", "--wait", "0s"],
        ] {
            let (_, stdout, stderr) = run(dir.path(), &config.text(url), args).await;
            assert!(
                !format!("{stdout}{stderr}").contains("hunter2"),
                "{args:?}\n{stdout}{stderr}"
            );
        }
    }
}

#[tokio::test]
async fn status_tells_how_each_handler_stands() {
    let lines = "bucket = \"probe\"\nsubjects = [\"orders.probe\"]";
    let gone = "subjects = [\"orders.gone\"]";
    let mut mesh = Mesh::new(Config::new()).await;
    let probe = modules::handler("probe");
    mesh.config = Config::new()
        .handler("probe", &probe, lines)
        .handler("gone", &probe, gone);
    let host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "ok" })).await;
    mesh.order(json!({ "op": "ok" })).await;
    mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
        .await;
    mesh.order(json!({ "op": "retry", "code": "busy", "message": "later", "delay_ms": 60_000 }))
        .await;
    mesh.wait_letters(1).await;
    // What is decided in all is known from the head.
    let status = eventually("the head to tell", SOON, async || {
        let status: Value = serde_json::from_str(&mesh.jetmesh_ok(&["status", "--json"]).await).expect("JSON");
        (status["handlers"][1]["decided"] == 3).then_some(status)
    })
    .await;
    assert_eq!(status["mesh"], "jetmesh");
    assert_eq!(status["hosts"].as_array().map(Vec::len), Some(1));
    let handler = &status["handlers"][1];
    for (name, value) in [
        ("handler", json!("probe")),
        ("pending", json!(0)),
        ("in_flight", json!(1)),
        ("dead", json!(1)),
    ] {
        assert_eq!(handler[name], value, "{name} in {handler}");
    }
    let serving = host.wait_for_line(says(&["serving", "handler=probe"]), SOON).await;
    assert!(
        serving.ends_with(handler["module"].as_str().expect("a host tells its module")),
        "{serving}"
    );
    if let Some(list) = cli::nats(&mesh.server, &["micro", "ls"]).await {
        assert!(list.contains("jetmesh"), "{list}");
        let stats = cli::nats(&mesh.server, &["micro", "stats", "jetmesh"])
            .await
            .expect("the program is there");
        assert!(stats.contains("probe"), "{stats}");
    }

    // Without a host, and with a handler less.
    drop(host);
    mesh.config = Config::new().handler("probe", &probe, lines);
    mesh.order(json!({ "op": "ok" })).await;
    let (code, text, _) = mesh.jetmesh(&["status"]).await;
    assert_eq!(code.code(), Some(6), "{text}");
    assert!(text.starts_with("mesh jetmesh: no host answers\n"), "{text}");
    let row: Vec<&str> = text
        .lines()
        .nth(2)
        .expect("the handler's row")
        .split_whitespace()
        .collect();
    assert_eq!(row[..3], ["probe", "unserved", "1"], "{text}");
    let orphan = "orphan: consumer gone on stream ORDERS belongs to handler gone, which is not in the configuration; \
                  remove it with `nats consumer rm ORDERS gone`";
    assert!(text.contains(orphan), "{text}");
}

#[tokio::test]
async fn a_command_whose_output_nobody_reads_ends_without_a_word() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = crate::support::host::command(&std::env::temp_dir());
    command
        .args(["schema"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped());
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(141), ""));
}
