//! A log that cannot be written harms nothing.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use async_nats::jetstream::consumer::pull;
use serde_json::{Value, json};

use crate::mesh::{Config, Mesh, PATIENT};
use crate::support::process::Process;
use crate::support::wait::SOON;
use crate::support::{Host, Signal, cli, eventually, host};

/// A host whose log goes there. Its standard output is not read.
fn host_with_log(mesh: &Mesh, log: Stdio) -> Process {
    let mut command = host::command(mesh.dir.path());
    command.args(["run", "--config"]).arg(mesh.write_config());
    command.stdout(Stdio::piped()).stderr(log);
    Process::spawn("jetmesh", command)
}

/// Waits until the handler has its consumer, of which no line of the log may tell.
async fn bound(mesh: &Mesh) {
    eventually("the handler to be bound", SOON, async || {
        mesh.js
            .get_consumer_from_stream::<pull::Config, _, _>("probe", "ORDERS")
            .await
            .ok()
            .map(|_| ())
    })
    .await;
}

/// Handles orders, good ones and bad ones.
async fn works(mesh: &Mesh) {
    bound(mesh).await;
    for _ in 0..3 {
        mesh.order(json!({ "op": "reject", "code": "no", "message": "never" }))
            .await;
        mesh.order(json!({ "op": "add", "key": "n", "by": 1 })).await;
    }
    mesh.wait_value("probe", "n", "3").await;
    mesh.wait_letters(3).await;
    mesh.wait_settled("ORDERS", "probe").await;
}

/// Waits until the only host reports that this number of lines were lost, or more.
async fn lost(mesh: &Mesh, least: u64) -> u64 {
    eventually("the host to count lost lines", SOON, async || {
        let (_, status, _) = mesh.jetmesh(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let lost = status["hosts"][0]["data"]["log_lines_lost"].as_u64()?;
        (lost >= least).then_some(lost)
    })
    .await
}

async fn drains(host: &Process) {
    host.signal(Signal::TERM);
    assert_eq!(host.wait(PATIENT).await.code(), Some(0));
}

#[tokio::test]
async fn a_log_on_a_full_disk_stops_nothing_and_its_lost_lines_are_counted() {
    let mesh = Mesh::new(Config::probe()).await;
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let host = host_with_log(&mesh, full.into());
    works(&mesh).await;
    lost(&mesh, 6).await;
    drains(&host).await;
}

#[tokio::test]
async fn a_log_that_may_not_grow_any_further_stops_nothing_and_its_lost_lines_are_counted() {
    let mesh = Mesh::new(Config::probe()).await;
    let text = mesh.config.text(&mesh.server.url());
    std::fs::write(mesh.dir.path().join("limited.toml"), text).expect("the test's folder is writable");
    // In units of 512 bytes: enough for what a module needs, and less than what is logged.
    let script = format!(
        "ulimit -f 1000 && exec {:?} run --config limited.toml 2>host.log",
        env!("CARGO_BIN_EXE_jetmesh")
    );
    let host = Host::start_shell(&script, mesh.dir.path());
    bound(&mesh).await;
    let line = json!({ "op": "log", "level": "info", "message": "x".repeat(4000) });
    for _ in 0..20 {
        mesh.order(json!(vec![line.clone(); 10])).await;
    }
    works(&mesh).await;
    lost(&mesh, 6).await;
    host.stop().await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_any_more_stops_nothing_and_its_lost_lines_are_counted() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = host_with_log(&mesh, Stdio::piped());
    let (_stdout, stderr) = host.take_output();
    let mut line = String::new();
    BufReader::new(stderr).read_line(&mut line).expect("it logs");
    // The pipe is closed now.
    works(&mesh).await;
    lost(&mesh, 6).await;
    drains(&host).await;
}

#[tokio::test]
async fn a_log_whose_reader_hangs_stops_nothing_and_when_it_reads_again_it_is_told_what_is_missing() {
    let mesh = Mesh::new(Config::probe()).await;
    let host = host_with_log(&mesh, Stdio::piped());
    let (_stdout, stderr) = host.take_output();
    // Lines of the guest fill the pipe, which holds 64 KiB.
    let text = "x".repeat(4000);
    let line = json!({ "op": "log", "level": "info", "message": text });
    bound(&mesh).await;
    for _ in 0..4 {
        mesh.order(json!(vec![line.clone(); 10])).await;
    }
    works(&mesh).await;
    let least = lost(&mesh, 1).await;
    let read = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        lines.find(|line| line.contains("log lines were lost"))
    });
    // Whatever it says next finds room.
    eventually("a line to be written again", SOON, async || {
        mesh.order(json!({ "op": "ok" })).await;
        read.is_finished().then_some(())
    })
    .await;
    let told = read.await.expect("it ends").expect("the loss is told");
    let count = told
        .rsplit_once("lines=")
        .and_then(|(_, n)| n.trim().parse::<u64>().ok());
    assert!(count.is_some_and(|count| count >= least), "{told}");
    drop(host);
}

#[tokio::test]
async fn a_command_that_cannot_print_ends_with_its_code() {
    let mesh = Mesh::new(Config::probe()).await;
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let run = async |args: &[&str], stdout: File, stderr: File| {
        let mut command = host::command(mesh.dir.path());
        command.args(args).arg("--config").arg(mesh.write_config());
        command.stdout(stdout).stderr(stderr);
        Process::spawn("jetmesh", command).wait(SOON).await.code()
    };
    let null = || OpenOptions::new().write(true).open("/dev/null").expect("Unix has it");
    assert_eq!(run(&["config"], full(), null()).await, Some(1));
    assert_eq!(
        run(
            &["check", "--connect", "--server", "nats://127.0.0.1:1"],
            null(),
            full()
        )
        .await,
        Some(3)
    );
    let (status, _, _) = cli::jetmesh(&["schema", "status"]).await;
    assert!(status.success());
}
