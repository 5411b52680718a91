//! A real nats-server of a test's own.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::tool;
use super::wait::{SOON, eventually};

/// What a test may want otherwise than usual.
#[derive(Clone, Default)]
pub struct Options {
    /// More text for the server's configuration file, such as `authorization { … }`.
    pub config: String,
    /// More text within the block `jetstream`, such as `domain: hub`.
    pub jetstream: String,
    /// The largest message the server takes, in bytes; the server's own default is 1 MiB.
    pub max_payload: Option<usize>,
    /// Where it stores; else in its own folder.
    pub store: Option<PathBuf>,
}

/// A nats-server with JetStream on a free port of 127.0.0.1, with a file store that is deleted with it.
pub struct NatsServer {
    process: Process,
    port: u16,
    // Dropped after the process, which writes in it.
    dir: TempDir,
}

impl NatsServer {
    /// Starts a server with nothing unusual. Returns when it takes connections and JetStream is ready.
    pub async fn start() -> Self {
        Self::start_with(&Options::default()).await
    }

    pub async fn start_with(options: &Options) -> Self {
        let dir = TempDir::with_prefix("jetmesh-nats-").expect("a temporary folder");
        configure(dir.path(), options);
        let (process, port) = launch(dir.path(), None).await;
        Self { process, port, dir }
    }

    /// Where clients connect, `nats://127.0.0.1:PORT`. It stays the same over restarts.
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr())
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where it takes leafnodes, if its configuration says so: its ports file does not tell that.
    pub fn leaf_addr(&self) -> SocketAddr {
        let log = fs::read_to_string(log_path(self.dir.path())).expect("it has a log");
        let line = log.split("Listening for leafnode connections on ").last();
        let address = line.and_then(|line| line.lines().next()?.trim().parse().ok());
        address.expect("it takes leafnodes")
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A connected client that comes back at once after a lost connection.
    pub async fn client(&self) -> async_nats::Client {
        self.client_with(async_nats::ConnectOptions::new()).await
    }

    /// The same with a user, a key or other options.
    pub async fn client_with(&self, options: async_nats::ConnectOptions) -> async_nats::Client {
        // async-nats waits up to 4 s between tries by default, and a test would wait with it.
        let options = options.reconnect_delay_callback(|_| Duration::from_millis(20));
        options.connect(self.url()).await.expect("the server takes connections")
    }

    /// Ends it with SIGKILL: nothing is flushed. Returns when the process has ended.
    pub fn kill9(&self) {
        self.process.kill();
    }

    /// Ends it with SIGTERM and waits until the process has ended.
    pub async fn stop(&self) {
        self.process.signal(Signal::TERM);
        self.process.wait(SOON).await;
    }

    /// Starts it again on the same port and store, after stopping it if it runs.
    pub async fn restart(&mut self) {
        if self.process.ended().is_none() {
            self.stop().await;
        }
        (self.process, self.port) = launch(self.dir.path(), Some(self.port)).await;
    }

    /// The same with other options.
    pub async fn restart_with(&mut self, options: &Options) {
        configure(self.dir.path(), options);
        self.restart().await;
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        log_end(self.dir.path())
    }

    /// Freezes the process: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- the end of the log of nats-server at {} ---\n{}",
                self.addr(),
                self.log_end()
            );
        }
    }
}

/// Returns when the server has taken everything that this client sent before, such as a subscription.
///
/// `Client::flush` does not tell: it ends when the bytes are in the socket.
pub async fn round_trip(client: &async_nats::Client) {
    // The server answers a request without a listener by itself, in its turn.
    let answer = client.request("nobody.listens", "".into()).await;
    let none = answer.err().map(|error| error.kind());
    assert_eq!(none, Some(async_nats::RequestErrorKind::NoResponders));
}

fn configure(dir: &Path, options: &Options) {
    let payload = options
        .max_payload
        .map(|bytes| format!("max_payload: {bytes}\n"))
        .unwrap_or_default();
    let store = options.store.clone().unwrap_or_else(|| dir.join("store"));
    let config = format!(
        "jetstream {{ store_dir: {store:?}, {} }}\n{payload}{}\n",
        options.jetstream, options.config
    );
    fs::write(dir.join("server.conf"), config).expect("the folder is ours");
}

/// Starts the server in its folder, on the given port or a free one, and returns it when it is ready.
async fn launch(dir: &Path, port: Option<u16>) -> (Process, u16) {
    // The server writes this file last of all, when JetStream is up and the port is open. A file of an earlier process would
    // name a port that is closed.
    let ports = dir.join("ports");
    let _ = fs::remove_dir_all(&ports);
    fs::create_dir(&ports).expect("the folder is ours");

    let binary = tool("nats-server", "NATS_SERVER").expect("no nats-server: run tools/install.sh server");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_path(dir))
        .expect("the folder is ours");
    let mut command = Command::new(binary);
    command
        .args([
            "--addr",
            "127.0.0.1",
            "--port",
            &port.map_or("-1".to_owned(), |port| port.to_string()),
        ])
        .arg("--config")
        .arg(dir.join("server.conf"))
        .arg("--ports_file_dir")
        .arg(&ports)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let process = Process::spawn("nats-server", command);
    let port = eventually("nats-server to be ready", SOON, async || {
        if let Some(status) = process.ended() {
            panic!("nats-server ended while starting, {status}:\n{}", log_end(dir));
        }
        read_port(&ports)
    })
    .await;
    (process, port)
}

/// The client port in the ports file, once it is there and whole.
fn read_port(ports: &Path) -> Option<u16> {
    let file = fs::read_dir(ports).ok()?.next()?.ok()?.path();
    let text = fs::read(file).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let url = value["nats"][0].as_str()?;
    url.rsplit_once(':')?.1.parse().ok()
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("server.log")
}

/// The last 30 lines of the log, enough for the reason of a failure.
fn log_end(dir: &Path) -> String {
    let log = fs::read_to_string(log_path(dir)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
