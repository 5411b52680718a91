//! The jetmesh binary as a child of a test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{env, fs};

use rustix::process::Signal;

use super::process::Process;
use super::wait::eventually;

/// How long a host may take to finish what runs.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// A running host. It is killed when dropped; if the test is failing then, what it printed is printed.
pub struct Host {
    process: Process,
    lines: Arc<Mutex<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
}

impl Host {
    /// Runs `jetmesh run` on this configuration in `dir`, with these environment variables.
    ///
    /// The configuration is written to a new file of `dir`. Returns at once: wait for a line that tells that it is
    /// ready.
    pub fn start(config_toml: &str, dir: &Path, env: &[(&str, &str)]) -> Self {
        // Hosts of one test may share a folder.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let file = format!("jetmesh-{}.toml", COUNT.fetch_add(1, Ordering::Relaxed));
        fs::write(dir.join(&file), config_toml).expect("the test's folder is writable");
        Self::start_command(&["run", "--config", &file], dir, env)
    }

    /// Runs `jetmesh` with these arguments, for a command that goes on until it is told to stop.
    pub fn start_command(args: &[&str], dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = command(dir);
        command.args(args).envs(env.iter().copied());
        Self::start_program(command)
    }

    /// Runs a line of the shell that ends in `jetmesh` taking its place.
    pub fn start_shell(script: &str, dir: &Path) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .current_dir(dir)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        Self::start_program(command)
    }

    /// Runs a program that becomes a host.
    pub fn start_program(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = Process::spawn("jetmesh", command);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stdout, stderr) = process.take_output();
        let readers = [collect(stdout, &lines), collect(stderr, &lines)];
        Self {
            process,
            lines,
            readers,
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Every line printed so far, of both streams in the order of their coming.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("a reader never panics").clone()
    }

    /// The first line, of those printed already and those to come, that `wanted` accepts.
    ///
    /// # Panics
    /// After `limit`, or as soon as the host has ended without that line.
    #[track_caller]
    pub fn wait_for_line(&self, wanted: impl Fn(&str) -> bool, limit: Duration) -> impl Future<Output = String> {
        self.wait_for_line_after(0, wanted, limit)
    }

    /// The same, but passes over the first `mark` lines. A mark is `lines().len()` at some moment.
    #[track_caller]
    pub fn wait_for_line_after(
        &self,
        mark: usize,
        wanted: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> impl Future<Output = String> {
        eventually("a line of jetmesh", limit, async move || {
            // In this order: lines printed before the end are all there when the readers have ended.
            let ended = self.readers.iter().all(JoinHandle::is_finished);
            let found = self.lines().into_iter().skip(mark).find(|line| wanted(line));
            assert!(
                found.is_some() || !ended,
                "jetmesh ended without the line: {:?}",
                self.ended()
            );
            found
        })
    }

    /// # Panics
    /// When the host has ended.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the process has ended and every line that it printed is in [`Host::lines`].
    #[track_caller]
    pub fn wait_exit(&self, limit: Duration) -> impl Future<Output = ExitStatus> {
        eventually("the end of jetmesh", limit, async || {
            let ended = self.ended()?;
            self.readers.iter().all(JoinHandle::is_finished).then_some(ended)
        })
    }

    /// Ends the host as an operator does, and waits until it has ended well.
    pub async fn stop(&self) {
        self.signal(Signal::TERM);
        let ended = self.wait_exit(ENDS_WITHIN).await;
        assert_eq!(ended.code(), Some(0), "a host ends well");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- jetmesh, process {} ---", self.pid());
            for line in self.lines() {
                eprintln!("{line}");
            }
        }
    }
}

/// The binary under test in a folder, with no input, no colour and none of the developer's own settings.
pub fn command(dir: &Path) -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_jetmesh")), dir)
}

/// The same of a program that runs it.
pub fn program(path: &Path, dir: &Path) -> Command {
    let mut command = Command::new(path);
    let ours = |name: &str| {
        ["JETMESH_", "NATS_", "OTEL_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in env::vars_os().filter(|(name, _)| ours(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").current_dir(dir).stdin(Stdio::null());
    command
}

/// Reads the stream line by line to its end, in a thread, so that the host never waits for a full pipe.
fn collect(stream: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line);
        }
    })
}
