//! Limits of the operating system: met, they are named; those that are only a default are raised.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::mesh::{Config, Mesh};
use crate::support::wait::SOON;
use crate::support::{Host, eventually, skipped};

/// `jetmesh check` under limits, by the shell's own `ulimit`: its code and its output.
fn check(mesh: &Mesh, limits: &str) -> (Option<i32>, String) {
    let file = mesh.write_config();
    let mut shell = Command::new("sh");
    let script = format!("ulimit {limits} && exec \"$0\" check --config \"$1\"");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_jetmesh")]).arg(file);
    let output = shell.output().expect("there is a shell");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn a_limit_on_computing_does_not_make_a_module_invalid_and_is_named_when_it_is_met() {
    let mesh = Mesh::new(Config::probe()).await;
    let (code, said) = check(&mesh, "-t 30");
    assert_eq!(code, Some(0), "{said}");
    let text = mesh.config.text(&mesh.server.url());
    fs::write(mesh.dir.path().join("limited.toml"), text).expect("the test's folder is writable");
    let script = format!(
        "ulimit -t 300 && exec {:?} run --config limited.toml",
        env!("CARGO_BIN_EXE_jetmesh")
    );
    let host = Host::start_shell(&script, mesh.dir.path());
    let named = |line: &str| line.contains("`ulimit -t`") && line.contains("300 s of computing");
    host.wait_for_line(named, SOON).await;
}

#[tokio::test]
async fn a_limit_on_address_space_is_named() {
    let mesh = Mesh::new(Config::probe()).await;
    let (code, said) = check(&mesh, "-v 8000000");
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "the WebAssembly engine cannot start",
        "7812 MiB of address space (`ulimit -v`)",
        "GiB",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn a_limit_on_open_files_is_named_and_blames_no_module() {
    let mesh = Mesh::new(Config::probe()).await;
    let mut named = 0;
    for files in (5..60).step_by(6) {
        let (code, said) = check(&mesh, &format!("-n {files}"));
        for wrong in ["panicked", "no such file", "not a valid component"] {
            assert!(!said.contains(wrong), "{files}: {said}");
        }
        if code != Some(0) {
            assert!(
                said.contains(&format!("{files} files open (`ulimit -n`)")),
                "{files}: {said}"
            );
            named += 1;
        }
    }
    assert!(named > 0, "five files are not enough");
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let mesh = Mesh::new(Config::probe()).await;
    let text = mesh.config.text(&mesh.server.url());
    fs::write(mesh.dir.path().join("limited.toml"), text).expect("the test's folder is writable");
    let script = format!(
        "ulimit -S -n 100 && exec {:?} run --config limited.toml",
        env!("CARGO_BIN_EXE_jetmesh")
    );
    let host = Host::start_shell(&script, mesh.dir.path());
    host.wait_for_line(|line| line.contains("serving"), SOON).await;
    let limits = format!("/proc/{}/limits", host.pid());
    let soft: u64 = eventually("the limits of the host", SOON, async || {
        let text = fs::read_to_string(&limits).ok()?;
        let line = text.lines().find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(3)?.parse().ok()
    })
    .await;
    assert!(soft > 100, "{soft}");
}

#[tokio::test]
async fn open_files_that_a_host_may_lack_are_told_at_start_with_the_figure() {
    let mesh = Mesh::new(Config::probe().top("threads = 2")).await;
    let text = mesh.config.text(&mesh.server.url());
    fs::write(mesh.dir.path().join("limited.toml"), text).expect("the test's folder is writable");
    let script = format!(
        "ulimit -n 100 && exec {:?} run --config limited.toml",
        env!("CARGO_BIN_EXE_jetmesh")
    );
    let host = Host::start_shell(&script, mesh.dir.path());
    let told = |line: &str| {
        line.contains(" WARN ")
            && line.contains("has up to 136 files open")
            && line.contains("this process may have 100")
    };
    host.wait_for_line(told, SOON).await;
    let started = |line: &str| line.contains("host started") && line.contains("open_files_max=136");
    host.wait_for_line(started, SOON).await;
    let (code, said) = check(&mesh, "-n 100");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("warning: a host with this configuration has up to 136 files open"),
        "{said}"
    );
    let (_, said) = check(&mesh, "-n 200");
    assert!(
        said.contains("a host has 9 connections to NATS, up to 20 at times, and up to 136 open files"),
        "{said}"
    );
    assert!(!said.contains("warning"), "{said}");
}

#[tokio::test]
async fn a_limit_on_threads_is_named_and_nothing_panics() {
    let mesh = Mesh::new(Config::probe()).await;
    let mut shell = Command::new("bash");
    let script = "ulimit -u 1 && exec \"$0\" check";
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_jetmesh")])
        .current_dir("/");
    if rustix::process::getuid().is_root() {
        // Root may have any number of them.
        shell.uid(65_534).gid(65_534);
    }
    let output = match shell.output() {
        Ok(output) => output,
        Err(error) => return skipped(&format!("no other user can run the host: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Permission denied") {
        return skipped(&format!("no other user can run the host: {said}"));
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["no thread can be started", "1 processes and threads (`ulimit -u`)"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    drop(mesh);
}

#[tokio::test]
async fn three_thousand_handlers_of_sixteen_instances_fit_one_engine() {
    let mut config = Config::new();
    let probe = crate::support::modules::handler("probe");
    for n in 0..3000 {
        config = config.handler(&format!("h{n}"), &probe, "memory_max = \"64MiB\"\nconcurrency = 16");
    }
    let mesh = Mesh::new(config).await;
    let said = mesh.jetmesh_ok(&["check"]).await;
    assert!(said.contains("h2999: "), "{said}");
    let bound = "up to 48000 instances can be needed at a time; 4096 of them run at a time, and the other events wait";
    assert!(said.contains(bound), "{said}");
}
