//! Modules that the compiler does not get done with: the host says so and goes on with what it has.

use std::fs;

use serde_json::json;

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::wait::SOON;
use crate::support::{cli, modules};

/// A number as WebAssembly writes it (<https://webassembly.github.io/spec/core/binary/values.html#integers>).
fn number(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(n & 0x7f).expect("seven bits");
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], number(content.len()).as_slice(), content].concat()
}

/// A valid component of 4 MB that takes the compiler half a minute and several hundred MiB: functions with 200 variables,
/// each of which depends on what 60,000 branches did to others.
fn heavy() -> Vec<u8> {
    const FUNCTIONS: usize = 4;
    let variable = |n: usize| number(n % 200);
    // 200 variables of type i32.
    let mut body = [number(1), number(200), vec![0x7f]].concat();
    for i in 0..60_000 {
        // local.get, local.get, i32.add, local.tee, if, local.get, local.set, end
        body.extend([&[0x20], variable(i).as_slice(), &[0x20], &variable(7 * i), &[0x6a]].concat());
        body.extend([&[0x22], variable(3 * i).as_slice(), &[0x04, 0x40]].concat());
        body.extend(
            [
                &[0x20],
                variable(11 * i).as_slice(),
                &[0x21],
                &variable(13 * i),
                &[0x0b],
            ]
            .concat(),
        );
    }
    body.push(0x0b);
    let body = [number(body.len()), body].concat();
    let core = [
        b"\0asm\x01\0\0\0".to_vec(),
        // One type: no parameters, no results.
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[number(FUNCTIONS), vec![0; FUNCTIONS]].concat()),
        section(10, &[number(FUNCTIONS), body.repeat(FUNCTIONS)].concat()),
    ];
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, &core.concat())].concat()
}

/// A host with a lowered limit gets the heavy module, says why it does not take it, and serves on.
#[cfg(feature = "failpoints")]
async fn kept_over_the_heavy_one(limit: &str, reason: &str) {
    let mut mesh = Mesh::new(Config::new()).await;
    let module = mesh.dir.path().join("modules/probe.wasm");
    fs::create_dir(mesh.dir.path().join("modules")).expect("the test's folder is writable");
    fs::copy(modules::handler("probe"), &module).expect("the test's folder is writable");
    mesh.config = Config::new().handler("probe", &module, "bucket = \"probe\"");
    let host = mesh.host_with_fault(limit).await;
    fs::write(&module, heavy()).expect("the module can be changed");
    let line = host
        .wait_for_line(
            says(&[
                "the changed module cannot serve; the old one continues to serve",
                reason,
            ]),
            PATIENT,
        )
        .await;
    assert!(line.contains("probe.wasm"), "it does not name the file: {line}");
    mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    mesh.wait_value("probe", "n", "1").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_module_that_makes_the_compiler_compute_for_ever_is_refused() {
    kept_over_the_heavy_one("compile-cpu-seconds:3", "compiling took more than 3s of computing").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_module_that_makes_the_compiler_eat_memory_is_refused() {
    // The allocator takes a gibibyte of addresses at once.
    let limit = 1400 * 1024 * 1024;
    let limit = format!("compile-memory-bytes:{limit}");
    kept_over_the_heavy_one(&limit, "compiling took more than 1400 MiB of memory").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_compilation_that_does_not_end_is_given_up() {
    kept_over_the_heavy_one("compile-wall-seconds:8", "compiling took more than 8s ").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_compiler_that_dies_is_said_by_check_and_by_a_start() {
    let mesh = Mesh::new(Config::probe()).await;
    let file = mesh.write_config();
    let file = file.to_str().expect("a temporary folder's path is UTF-8");
    for command in ["check", "run"] {
        let env = [("MESH_FAULT", "compiling:kill")];
        let (status, _, stderr) = cli::jetmesh_with(mesh.dir.path(), &[command, "--config", file], &env).await;
        assert_eq!(status.code(), Some(2), "{stderr}");
        let said = "probe.wasm: the compiler broke off (signal: 9 (SIGKILL)): it printed nothing";
        assert!(stderr.contains(said), "{stderr}");
    }
}

/// A host that is ended in whatever way takes its compiler along.
#[tokio::test]
async fn no_compiler_outlives_its_host() {
    let mesh = Mesh::new(Config::new()).await;
    let module = mesh.dir.path().join("heavy.wasm");
    fs::write(&module, heavy()).expect("the test's folder is writable");
    let config = Config::new().handler("probe", &module, "");
    let host = crate::support::Host::start(&config.text(&mesh.server.url()), mesh.dir.path(), &[]);
    let children = format!("/proc/{0}/task/{0}/children", host.pid());
    let child = crate::support::eventually("a compiler", SOON, async || {
        let text = fs::read_to_string(&children).ok()?;
        // It has read its limits, and waits for the module or is at work.
        let pid = text.split_whitespace().next()?.to_owned();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let cpu = limits.lines().find(|line| line.starts_with("Max cpu time"))?;
        cpu.contains(" 60 ").then_some(pid)
    })
    .await;
    host.signal(crate::support::Signal::KILL);
    crate::support::eventually("the end of the compiler", SOON, async || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // It has ended, or waits for its parent to take its status.
        (stat.is_empty() || stat.rsplit(')').next()?.trim_start().starts_with('Z')).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_start_with_a_cache_compiles_nothing_that_is_whole_in_it_and_everything_else() {
    let config = Config::probe().table("[modules]\ncache = \"cache\"");
    let (mesh, host) = Mesh::start(config).await;
    let compiled = says(&["module compiled"]);
    host.wait_for_line(&compiled, SOON).await;
    host.stop().await;
    let folder = mesh.dir.path().join("cache");
    let entry = std::fs::read_dir(&folder)
        .expect("it was made")
        .next()
        .expect("an entry")
        .expect("readable")
        .path();
    let host = mesh.host(&[]).await;
    mesh.order(json!({ "op": "version", "subject": "events.version" }))
        .await;
    mesh.wait_emitted(1).await;
    assert!(!host.lines().iter().any(|line| compiled(line)), "it was there");
    host.stop().await;
    let mut bytes = std::fs::read(&entry).expect("it is this user's");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&entry, bytes).expect("it is this user's");
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["WARN", "was changed in its cache, and is compiled again"]), SOON)
        .await;
    host.wait_for_line(&compiled, SOON).await;
    host.stop().await;
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is this user's");
    let host = mesh.host(&[]).await;
    host.wait_for_line(says(&["WARN", "modules are compiled at each start", "mode 0755"]), SOON)
        .await;
    mesh.order(json!({ "op": "version", "subject": "events.version" }))
        .await;
    mesh.wait_emitted(2).await;
}
