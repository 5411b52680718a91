//! `jetmesh check`: whether a configuration and its modules can serve, and what they mean.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::cli::{NOBODY, run};
use crate::mesh::Config;
use crate::support::modules;

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
    handlers.garbage.module: garbage.wasm: not a WebAssembly file (it does not begin with \0asm); a handler is a component that exports jetmesh:handler/handler@0.1.0
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
        hint: the component file, relative to this configuration, or "registry"
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
    // The digests are those of the build, and what a host has of connections and files depends on the machine's cores.
    let stdout = stdout.lines().map(|line| match line.split_once("(module ") {
        Some((before, _)) => format!("{before}(module …)\n"),
        None if line.starts_with("a host has ") => {
            let words = line
                .split(' ')
                .map(|word| if word.parse::<u32>().is_ok() { "N" } else { word });
            words.collect::<Vec<_>>().join(" ") + "\n"
        }
        None => format!("{line}\n"),
    });
    insta::assert_snapshot!(stdout.collect::<String>(), @r#"
    jetmesh.toml: valid
    bare: notify.wasm is a handler (module …)
      up to 16 instances, 64 events at work, 936 waiting for a retry; ledger: none: its events are only acked
    stateful: probe.wasm is a handler (module …)
      up to 3 instances, 12 events at work, 988 waiting for a retry; ledger: things
    a host has N connections to NATS, up to N at times, and up to N open files
    "#);
}
