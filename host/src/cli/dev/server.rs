//! The nats-server of `jetmesh dev`, and the lock on the folder that it keeps its data in.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::super::Error;
use super::super::args::Dev;
use super::{LOOK_EVERY, START_LIMIT};
use crate::process::drain::Drain;

/// Held while a nats-server may write in the folder.
const LOCK: &str = "dev.lock";
/// The server's log.
const LOG: &str = "nats-server.log";
/// Where the server tells its port when it is ready.
const PORTS: &str = "ports";
/// How many ports are tried after the wanted one.
const PORTS_TRIED: u16 = 100;

/// The nats-server that this process owns.
pub struct Server {
    child: Child,
    _lock: File,
    pub dir: PathBuf,
    pub url: String,
}

impl Server {
    /// Starts it; returns when it takes connections. `None`: the drain has begun.
    pub async fn start(dev: &Dev, drain: &Drain) -> Result<Option<Server>, Error> {
        let program = find("nats-server").ok_or_else(|| Error::Failed(missing()))?;
        let dir = std::path::absolute(&dev.dir).unwrap_or_else(|_| dev.dir.clone());
        let of = |path: &Path| {
            let path = path.display().to_string();
            move |e: std::io::Error| Error::Failed(format!("{path}: {e}"))
        };
        std::fs::create_dir_all(&dir).map_err(of(&dir))?;
        let lock = lock(&dir)?;
        let port = port(dev.port, |port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop)
        })?;
        let ports = dir.join(PORTS);
        // Those of servers that were killed.
        let _ = std::fs::remove_dir_all(&ports);
        std::fs::create_dir_all(&ports).map_err(of(&ports))?;
        let log = File::create(dir.join(LOG)).map_err(of(&dir.join(LOG)))?;
        let mut command = Command::new(&program);
        command
            .args(["--addr", "127.0.0.1", "--port"])
            // The server takes a free port itself.
            .arg(if port == 0 { "-1".to_owned() } else { port.to_string() })
            .args(["--jetstream", "--store_dir"])
            .arg(&dir)
            .arg("--ports_file_dir")
            .arg(&ports)
            // The server holds the lock as well, so that it lasts as long as the one of both that ends last.
            .stdin(lock.try_clone().map_err(of(&dir.join(LOCK)))?)
            .stdout(log.try_clone().map_err(of(&dir.join(LOG)))?)
            .stderr(log);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(of(&program))?;
        let mut server = Server {
            child,
            _lock: lock,
            dir,
            url: String::new(),
        };
        match server.listens(&ports, drain).await? {
            Some(url) => server.url = url,
            None => return Ok(None),
        }
        Ok(Some(server))
    }

    /// Waits until the server tells where it takes connections.
    async fn listens(&mut self, ports: &Path, drain: &Drain) -> Result<Option<String>, Error> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            if let Some(url) = told(ports) {
                return Ok(Some(url));
            }
            if drain.has_begun() {
                return Ok(None);
            }
            if Instant::now() > limit || !matches!(self.child.try_wait(), Ok(None)) {
                let log = self.dir.join(LOG);
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let why = text.lines().rfind(|line| line.contains("[FTL]")).unwrap_or_default();
                let why = why
                    .split_once("[FTL]")
                    .map_or(String::new(), |(_, why)| format!(":{why}"));
                return Err(Error::Failed(format!(
                    "the nats-server did not start{why}; see {}",
                    log.display()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks a child to end, and waits for it for a while.
pub fn end(child: &mut Child) {
    // If it has ended, its number may be another process's by now.
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    if let Some(pid) = rustix::process::Pid::from_raw(child.id().try_into().unwrap_or(0)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let limit = Instant::now() + Duration::from_secs(5);
    while Instant::now() < limit {
        match child.try_wait() {
            Ok(None) => pause(Duration::from_millis(20)),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    let _ = child.kill();
}

#[expect(clippy::disallowed_methods, reason = "at the very end, when nothing else runs")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The address in the server's ports file, once it is there and whole.
fn told(ports: &Path) -> Option<String> {
    let file = std::fs::read_dir(ports).ok()?.next()?.ok()?.path();
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    told["nats"][0].as_str().map(str::to_owned)
}

/// Locks the folder for this process and its server. Two servers on one store overwrite each other's messages.
fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let failed = |e: std::io::Error| Error::Failed(format!("{}: {e}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(Error::Failed(format!(
                "the folder {} is in use by {holder}: end that first, or take another folder with --dir FOLDER",
                dir.display()
            )));
        }
        Err(error) => {
            return Err(Error::Failed(format!(
                "{}: it cannot be locked: {error}; take a folder on a local disk with --dir FOLDER",
                path.display()
            )));
        }
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    write!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// The kernel ends the child when this process ends, however it ends.
pub fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    // The child leaves Ctrl-C to this process, which drains first.
    command.process_group(0);
    let set =
        || rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(Into::into);
    // SAFETY: between fork and exec only this one system call is made, which is async-signal-safe and allocates nothing.
    #[expect(
        unsafe_code,
        reason = "the only way to say something in a child before it becomes another program"
    )]
    unsafe {
        command.pre_exec(set);
    }
}

/// A program beside the project, or on the PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(PathBuf::from(".tools/bin")).chain(std::env::split_paths(&paths));
    places.map(|place| place.join(program)).find(|file| file.is_file())
}

fn missing() -> String {
    let how = match Path::new("tools/install.sh").is_file() {
        true => "`tools/install.sh server` installs one",
        false => "https://docs.nats.io/running-a-nats-service/introduction/installation describes how to get one",
    };
    format!("there is no nats-server on the PATH: {how}")
}

/// The wanted port, or the next free one; 0: any. `bind` tries one.
fn port(wanted: u16, bind: impl Fn(u16) -> std::io::Result<()>) -> Result<u16, Error> {
    if wanted == 0 {
        return Ok(0);
    }
    let last = wanted.saturating_add(PORTS_TRIED);
    for port in wanted..=last {
        match bind(port) {
            Ok(()) => return Ok(port),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(Error::Failed(format!(
                    "port {port} is not permitted to this user ({error}): take one from 1024 on with --port NUMBER"
                )));
            }
            Err(error) => return Err(Error::Failed(format!("port {port} of 127.0.0.1: {error}"))),
        }
    }
    Err(Error::Failed(format!(
        "every port from {wanted} to {last} is taken: take another with --port NUMBER, or any free one with --port 0"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(wanted: u16, answer: impl Fn(u16) -> Option<ErrorKind>) -> Result<u16, String> {
        let bind = |port| answer(port).map_or(Ok(()), |kind| Err(kind.into()));
        port(wanted, bind).map_err(|e| e.to_string())
    }

    #[test]
    fn the_next_free_port_is_taken_and_the_last_of_all_is_one_of_them() {
        let up_to = |last: u16| move |port: u16| (port <= last).then_some(ErrorKind::AddrInUse);
        assert_eq!(tried(4222, up_to(4223)), Ok(4224));
        assert_eq!(tried(65535, |_| None), Ok(65535));
        assert_eq!(tried(65530, up_to(65534)), Ok(65535));
        assert_eq!(tried(0, |_| Some(ErrorKind::AddrInUse)), Ok(0));
        let full = tried(65535, up_to(65535)).expect_err("it is taken");
        assert!(full.contains("every port from 65535 to 65535 is taken"), "{full}");
    }

    #[test]
    fn a_port_that_needs_rights_is_told_as_such() {
        let refused = tried(80, |_| Some(ErrorKind::PermissionDenied)).expect_err("it is refused");
        assert!(refused.contains("port 80 is not permitted to this user"), "{refused}");
    }
}
