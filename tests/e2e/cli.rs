//! The command line: its output and its exit codes.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;

use tempfile::TempDir;

use crate::mesh::{Config, Mesh};
use crate::support::cli;
use crate::support::cli::jetmesh_in;

/// An address without a listener: only root can listen on port 1, and no common service does.
pub const NOBODY: &str = "nats://127.0.0.1:1";

/// Runs `jetmesh` on this configuration; the folder's name does not show in what it prints.
pub async fn run(dir: &Path, config: &str, args: &[&str]) -> (Option<i32>, String, String) {
    fs::write(dir.join("jetmesh.toml"), config).expect("the test's folder is writable");
    let (status, stdout, stderr): (ExitStatus, _, _) = jetmesh_in(dir, args).await;
    let hidden = |text: String| text.replace(dir.to_str().expect("UTF-8"), "[dir]");
    (status.code(), hidden(stdout), hidden(stderr))
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
    An event mesh on NATS JetStream: sandboxed WebAssembly handlers, effects exactly
    once

    Usage: jetmesh [OPTIONS] <COMMAND>

    Commands:
      run       Run a host in production
      dev       Run a host for development, with a nats-server of its own
      check     Validate the configuration and the modules; with --connect, also
                what is in NATS
      config    Print the effective configuration; secrets are hidden
      status    Show whether each handler, ledger, relay and outbox serves, and how
                many events wait
      health    Ask the host on this machine, at its admin address, whether it is
                well
      top       Show the handlers live on a terminal: rates, times, what waits, and
                what is wrong
      console   Show the mesh in a browser: how it stands, its dead letters, where
                an event is, and what a person can do about them
      dlq       Find, inspect, correct, replay and discard dead letters
      outbox    Make, show, pause and resume outboxes, which carry rows of a
                database into NATS
      modules   Keep versions of modules in NATS, and choose which of them serve
      pause     Pause handlers on all hosts: no event of theirs begins, and no
                attempt is counted, until they are resumed
      resume    Resume paused handlers on all hosts: their events are taken again
      retrying  List the events that failed and will be tried again: attempt, last
                error, time of the next attempt
      delayed   List the events that wait for their time: those that handlers emit
                for later, and timers of handlers
      trace     Show what each handler has made of an event, and what followed from
                it, as a tree
      audit     Show what people have changed in the mesh, with commands or in the
                console: who, what, when, why, and how it ended
      redrive   Show, pause and resume the replays of dead letters that the mesh
                makes by itself
      schedule  List, pause, resume and run the schedules of the mesh
      schema    Print the JSON schema of the output of a command with --json
      reset     Let a handler process its events again from its start; asks before
                it deletes anything
      help      Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Options of all commands:
      -c, --config <FILE>        The configuration file [default: ./jetmesh.toml,
                                 else ./config/default.toml] [env: JETMESH_CONFIG]
      -s, --server <URL>         URL of the NATS server; replaces `nats.url` of the
                                 configuration [env: NATS_URL]
          --context <NAME>       A context of the `nats` CLI to connect with
          --user <NAME>          User name, or a token if there is no password [env:
                                 NATS_USER]
          --password <PASSWORD>  Password [env: NATS_PASSWORD]
          --creds <FILE>         Credentials file [env: NATS_CREDS]
          --nkey <FILE>          File with an nkey seed [env: NATS_NKEY]
          --wait <DURATION>      How long to wait for NATS at start: a duration such
                                 as 30s, 0 to fail at once, or `forever`
          --log <FILTER>         Log level, or a filter such as jetmesh=debug
          --log-format <FORMAT>  Log format: text or json

    Exit codes:
        0  done
        1  failed
        2  wrong usage, configuration or module
        3  NATS not reached in time
        4  NATS cannot be used as it is
        5  a shutdown left work unfinished; the server delivers it again
        6  what was asked about does not serve (`status`, `health`, `dlq replay`)
      130  ended by Ctrl-C (SIGINT); a host only by a second signal
      141  the reader of its output closed the pipe
      143  ended by SIGTERM; a host shuts down instead
    "#);
}

#[tokio::test]
async fn help_fits_its_terminal_and_eighty_columns_where_there_is_none() {
    let commands = [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["status", "--help"],
        &["health", "--help"],
        &["trace", "--help"],
        &["reset", "--help"],
        &["dlq", "--help"],
        &["dlq", "ls", "--help"],
        &["dlq", "rehearse", "--help"],
        &["dlq", "replay", "--help"],
        &["dlq", "export", "--help"],
    ];
    let fits = |columns: usize, text: &str| {
        let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > columns).collect();
        assert!(wide.is_empty(), "wider than {columns}: {wide:#?}");
    };
    for args in commands {
        fits(80, &cli::jetmesh(args).await.1);
    }
    for (columns, most) in [(60, 60), (80, 80), (160, 110)] {
        let Some((_, shown)) = cli::on_terminal(&std::env::temp_dir(), columns, &["--help"], "").await else {
            return;
        };
        fits(most, &shown);
        assert!(shown.contains("143  ended by SIGTERM"), "{shown}");
    }
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
    // They are taken behind the command anyway.
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
async fn every_command_reads_the_configuration_that_the_variable_names() {
    let dir = TempDir::new().expect("a temporary folder");
    let file = dir.path().join("other.toml");
    fs::write(&file, Config::probe().text(NOBODY)).expect("a writable folder");
    let named = [("JETMESH_CONFIG", file.to_str().expect("UTF-8"))];
    for (args, code) in [
        (&["config"][..], 0),
        (&["check"], 0),
        (&["run", "--wait", "0s"], 3),
        (&["status"], 3),
        (&["retrying"], 3),
        (&["delayed"], 3),
        (&["trace", "ORDERS:1"], 3),
        (&["dlq", "ls"], 3),
        (&["dlq", "rehearse", "--all"], 3),
        (&["reset", "probe"], 3),
    ] {
        let (status, stdout, stderr) = cli::jetmesh_with(dir.path(), args, &named).await;
        assert_eq!(status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    }
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
async fn no_command_succeeds_whose_output_cannot_be_written() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    mesh.order(serde_json::json!({ "op": "reject", "code": "no", "message": "not this one" }))
        .await;
    let letters = mesh.wait_letters(1).await;
    let (id, config) = (letters[0].letter_id(), mesh.write_config());
    let run = |args: &[&str], stdout: fs::File| {
        let mut command = crate::support::host::command(mesh.dir.path());
        command.args(args).env("JETMESH_CONFIG", &config);
        command.stdout(stdout).stderr(std::process::Stdio::piped());
        let output = command.output().expect("it starts");
        (
            output.status.code(),
            String::from_utf8(output.stderr).expect("a command prints UTF-8"),
        )
    };
    for args in [
        &["--help"][..],
        &["--version"],
        &["help", "dlq"],
        &["trace", "--help"],
        &["schema"],
        &["schema", "trace"],
        &["config"],
        &["check"],
        &["status"],
        &["status", "--json"],
        &["retrying"],
        &["trace", "ORDERS:1"],
        &["trace", "ORDERS:1", "--json"],
        &["dlq", "ls"],
        &["dlq", "ls", "--json"],
        &["dlq", "ls", "--group"],
        &["dlq", "show", id],
        &["dlq", "rehearse", id],
        &["dlq", "replay", id, "--dry-run"],
        &["dlq", "export", id],
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("a device of Linux");
        let (code, stderr) = run(args, full);
        assert_eq!(code, Some(1), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains("No space left on device"),
            "{args:?}: {stderr}"
        );
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (code, stderr) = run(args, fs::File::from(std::os::fd::OwnedFd::from(writer)));
        assert_eq!((code, stderr.as_str()), (Some(141), ""), "{args:?}");
    }
}
