//! A real PostgreSQL of a test's own, or one that tests share.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Signal, test_kill_process};
use tokio_postgres::{Client, NoTls};

use super::process::Process;
use super::skipped;
use super::wait::{SOON, eventually};

/// Who runs the server if the tests are root's, which PostgreSQL refuses: the user of Debian's package.
const USER: &str = "postgres";
/// The folders of all tests of a process lie in one with this prefix and its number.
const PREFIX: &str = "jetmesh-postgres-";

/// Roles have passwords, but for the tests' own superuser.
const HBA: &str = "host all postgres 127.0.0.1/32 trust\n\
                   host all all 127.0.0.1/32 scram-sha-256\n\
                   host replication postgres 127.0.0.1/32 trust\n\
                   host replication all 127.0.0.1/32 scram-sha-256\n";
const CONF: &str = "wal_level = logical\nmax_connections = 200\nmax_wal_senders = 30\n\
                    max_replication_slots = 30\nshared_buffers = 32MB\nlog_min_messages = warning\n";

/// A PostgreSQL on a free port of 127.0.0.1. Its superuser is `postgres`.
pub struct PostgresServer {
    folder: PathBuf,
    port: u16,
    process: Process,
}

impl PostgresServer {
    /// One that other tests use as well. `None`, with a line that says so: this machine has no PostgreSQL.
    pub async fn shared() -> Option<&'static PostgresServer> {
        static SHARED: tokio::sync::OnceCell<Option<PostgresServer>> = tokio::sync::OnceCell::const_new();
        SHARED.get_or_init(PostgresServer::own).await.as_ref().or_else(|| {
            said_skipped();
            None
        })
    }

    /// A test's own, which it may end, start again and restore.
    pub async fn own() -> Option<PostgresServer> {
        PostgresServer::with("fsync = off").await
    }

    /// The same with a line of its configuration.
    pub async fn with(setting: &str) -> Option<PostgresServer> {
        if !is_there() {
            said_skipped();
            return None;
        }
        let folder = new_folder();
        copy(cluster(), &folder.join("data"));
        set(&folder.join("data"), setting);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let process = launch(&folder, port).await;
        Some(PostgresServer { folder, port, process })
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The folder with its files, which are another user's.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A new database with the owner `postgres`, and its name.
    pub async fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("shop{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = self.client("postgres").await;
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .expect("it is made");
        name
    }

    /// A connection of the superuser.
    pub async fn client(&self, database: &str) -> Client {
        try_client(self.port, database).await.expect("it takes connections")
    }

    /// Ends it as `pg_ctl stop -m immediate` does: nothing is written that is not in its log.
    pub async fn kill(&self) {
        self.end(Signal::QUIT).await;
    }

    /// Ends it in order.
    pub async fn stop(&self) {
        self.end(Signal::INT).await;
    }

    async fn end(&self, signal: Signal) {
        self.process.signal(signal);
        self.process.wait(SOON).await;
    }

    /// Starts it again after its end.
    pub async fn start(&mut self) {
        self.process = launch(&self.folder, self.port).await;
    }

    /// Has it encrypt, from its next start on, with `server.crt` and `server.key` among its files.
    pub fn use_certificate(&self) {
        set(&self.data(), "ssl = on");
        let key = self.data().join("server.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is there");
        owned(&self.data());
    }

    /// Has its next start recover as from a backup: it goes on in another history.
    pub fn recover(&self) {
        let data = self.data();
        fs::write(data.join("recovery.signal"), "").expect("the tests may");
        set(&data, "restore_command = 'false'");
        owned(&data);
    }

    /// A copy of its files; it must not run.
    pub fn back_up(&self) -> PathBuf {
        let copied = self.folder.join("copy");
        copy(&self.data(), &copied);
        copied
    }

    /// A copy of a server that runs, made by `pg_basebackup`.
    pub fn base_backup(&self) -> PathBuf {
        let copied = self.folder.join("base");
        let mut backup = command("pg_basebackup").expect("it comes with the server");
        backup.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        backup.args(["--checkpoint", "fast", "--no-sync", "-D"]).arg(&copied);
        assert!(run(&mut backup), "pg_basebackup fails");
        copied
    }

    /// Puts a copy in the place of its files; it must not run.
    pub fn restore(&self, copied: &Path) {
        fs::remove_dir_all(self.data()).expect("the tests may");
        copy(copied, &self.data());
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.end(Signal::QUIT);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn said_skipped() {
    skipped("there is no PostgreSQL (initdb, postgres); tools/install.sh postgres brings it");
}

/// Whether this machine has a PostgreSQL.
pub fn is_there() -> bool {
    program("initdb").is_some()
}

/// The folder of a program of PostgreSQL: in the variable `POSTGRES_BIN`, where Debian has it, or on `PATH`.
fn program(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    debian.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own
        .into_iter()
        .chain(debian.into_iter().rev())
        .chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A program of PostgreSQL, as a user that it takes.
fn command(name: &str) -> Option<Command> {
    let program = program(name)?;
    if !rustix::process::geteuid().is_root() {
        return Some(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    // The signal that the kernel sends at the tests' end is lost when the user changes.
    command.args([
        "--reuid",
        USER,
        "--regid",
        USER,
        "--clear-groups",
        "--pdeathsig",
        "QUIT",
        "--",
    ]);
    command.arg(program);
    Some(command)
}

/// A folder for this process, which all users may enter; those of processes that have ended are removed.
fn new_folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    static SWEPT: OnceLock<()> = OnceLock::new();
    let temporary = std::env::temp_dir();
    SWEPT.get_or_init(|| {
        for entry in fs::read_dir(&temporary).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix(PREFIX).and_then(|id| id.parse().ok());
            let ended = id
                .and_then(rustix::process::Pid::from_raw)
                .is_some_and(|id| test_kill_process(id).is_err());
            if ended {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
    let folder = temporary
        .join(format!("{PREFIX}{}", std::process::id()))
        .join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    fs::create_dir_all(&folder).expect("a temporary folder");
    owned(&folder);
    folder
}

fn owned(path: &Path) {
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").args(["-R", USER]).arg(path));
    }
}

/// Adds to the configuration of a server that does not run.
fn set(data: &Path, line: &str) {
    let conf = data.join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("it is there");
    fs::write(conf, format!("{text}\n{line}\n")).expect("the tests may");
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

fn run(command: &mut Command) -> bool {
    let done = command.stdout(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// An empty cluster, made once for each process of tests, which takes a second.
fn cluster() -> &'static Path {
    static CLUSTER: OnceLock<PathBuf> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let data = new_folder().join("cluster");
        let mut initdb = command("initdb").expect("it is there");
        initdb.args([
            "--no-sync",
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale",
            "C",
            "-D",
        ]);
        assert!(run(initdb.arg(&data)), "initdb fails");
        fs::write(data.join("pg_hba.conf"), HBA).expect("the tests may");
        set(&data, CONF);
        data
    })
}

/// A connection of the superuser. `None`: it takes none now.
#[expect(
    clippy::disallowed_methods,
    reason = "a connection ends with its client, and the test with both"
)]
pub async fn try_client(port: u16, database: &str) -> Option<Client> {
    let parameters = format!("host=127.0.0.1 port={port} user=postgres dbname={database}");
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

async fn launch(folder: &Path, port: u16) -> Process {
    let log = folder.join("log");
    let output = OpenOptions::new().create(true).append(true).open(&log);
    let output = output.expect("the folder is ours");
    let mut postgres = command("postgres").expect("it was there");
    postgres
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""])
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("it can be shared"))
        .stderr(output);
    let process = Process::spawn("postgres", postgres);
    eventually("postgres to be ready", SOON, async || {
        if let Some(status) = process.ended() {
            panic!(
                "postgres ended, {status}:\n{}",
                fs::read_to_string(&log).unwrap_or_default()
            );
        }
        // While it recovers from a copy it can only be read.
        let client = try_client(port, "postgres").await?;
        let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.ok()?;
        (!row.get::<_, bool>(0)).then_some(())
    })
    .await;
    process
}
