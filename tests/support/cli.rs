//! Commands that run to their end: the `nats` command line and jetmesh's own.

use std::env;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::host;
use super::server::NatsServer;
use super::{skipped, tool};

/// A command that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the real `nats` command line against the server and returns its standard output.
///
/// `None`, with a line that says so, when this machine has no such program: the test then skips.
///
/// # Panics
/// When the command fails; the text has what it printed.
pub async fn nats(server: &NatsServer, args: &[&str]) -> Option<String> {
    let Some(binary) = tool("nats", "NATS_CLI") else {
        skipped(&format!("there is no nats command line for `nats {}`", args.join(" ")));
        return None;
    };
    let mut command = Command::new(binary);
    // Its contexts, and so another server, come from the developer's own configuration folder.
    command
        .arg("--server")
        .arg(server.url())
        .args(args)
        .env("XDG_CONFIG_HOME", env::temp_dir().join("jetmesh-no-config"));
    let (status, stdout, stderr) = finish(command, "").await;
    assert!(status.success(), "nats {}: {status}\n{stdout}{stderr}", args.join(" "));
    Some(stdout)
}

/// Runs `jetmesh` with these arguments to its end and returns its exit status, standard output and standard error.
pub async fn jetmesh(args: &[&str]) -> (ExitStatus, String, String) {
    jetmesh_in(&env::temp_dir(), args).await
}

/// The same in a folder.
pub async fn jetmesh_in(dir: &Path, args: &[&str]) -> (ExitStatus, String, String) {
    jetmesh_with(dir, args, &[]).await
}

/// The same with these environment variables.
pub async fn jetmesh_with(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> (ExitStatus, String, String) {
    let mut command = host::command(dir);
    command.args(args).envs(env.iter().copied());
    finish(command, "").await
}

/// Runs `jetmesh` on a terminal with this number of columns on which this is typed, and returns its exit status and all that it
/// shows.
///
/// `None`, with a line that says so, when this machine has no `script` to make a terminal.
pub async fn on_terminal(dir: &Path, columns: u16, args: &[&str], typed: &str) -> Option<(ExitStatus, String)> {
    let Some(script) = tool("script", "SCRIPT") else {
        skipped("there is no `script`, so nothing is shown on a terminal");
        return None;
    };
    let quoted: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let binary = env!("CARGO_BIN_EXE_jetmesh");
    let line = format!("stty cols {columns} -echo; '{binary}' {}", quoted.join(" "));
    let mut command = host::program(&script, dir);
    command.args(["-qec", &line, "/dev/null"]);
    let (status, stdout, stderr) = finish(command, typed).await;
    Some((status, stdout.replace('\r', "") + &stderr))
}

async fn finish(mut command: Command, typed: &str) -> (ExitStatus, String, String) {
    command.stdin(if typed.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    });
    let text = format!("{command:?}");
    let run = async {
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(typed.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(LIMIT, run).await;
    let output = output.unwrap_or_else(|_| panic!("{text} takes longer than {LIMIT:?}"));
    let output = output.unwrap_or_else(|error| panic!("{text} does not start: {error}"));
    let utf8 = |bytes| String::from_utf8(bytes).expect("a command prints UTF-8");
    (output.status, utf8(output.stdout), utf8(output.stderr))
}
