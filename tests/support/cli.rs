//! Commands that run to their end: the `nats` command line and jetmesh's own.

use std::env;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

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
    let (status, stdout, stderr) = finish(command).await;
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
    finish(command).await
}

async fn finish(mut command: Command) -> (ExitStatus, String, String) {
    command.stdin(Stdio::null());
    let text = format!("{command:?}");
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, output).await;
    let output = output.unwrap_or_else(|_| panic!("{text} takes longer than {LIMIT:?}"));
    let output = output.unwrap_or_else(|error| panic!("{text} does not start: {error}"));
    let utf8 = |bytes| String::from_utf8(bytes).expect("a command prints UTF-8");
    (output.status, utf8(output.stdout), utf8(output.stderr))
}
