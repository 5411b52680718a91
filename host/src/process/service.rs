//! What a host tells the service manager that has started it, as `man 3 sd_notify` has it: datagrams to the socket that the
//! variable `NOTIFY_SOCKET` names. `systemd` is one, and others speak the same.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager of this process.
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How long it waits at most for a sign of life before it ends this process.
    pub watchdog: Option<Duration>,
}

impl ServiceManager {
    /// `None`: there is none that wants to be told.
    ///
    /// # Errors
    /// Its socket cannot be used; the text says why.
    pub fn of_environment() -> Result<Option<ServiceManager>, String> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(name) = variable("NOTIFY_SOCKET") else {
            return Ok(None);
        };
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let told = || Self::at(&name, text("WATCHDOG_USEC"), text("WATCHDOG_PID"));
        let manager = told().map_err(|error| format!("NOTIFY_SOCKET, {}: {error}", name.display()))?;
        Ok(Some(manager))
    }

    fn at(name: &OsStr, watchdog: Option<String>, of: Option<String>) -> io::Result<ServiceManager> {
        let address = match name.as_bytes() {
            // A name that is no file.
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read holds no thread.
        socket.set_nonblocking(true)?;
        let ours = of.is_none_or(|of| of == std::process::id().to_string());
        let watchdog = watchdog.filter(|_| ours).and_then(|limit| limit.parse().ok());
        Ok(ServiceManager {
            socket,
            address,
            watchdog: watchdog.filter(|limit| *limit > 0).map(Duration::from_micros),
        })
    }

    /// Tells it `states`, one a line, such as `READY=1`.
    pub fn tell(&self, states: &str) -> io::Result<()> {
        self.socket.send_to_addr(states.as_bytes(), &self.address).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_at_a_path_or_at_a_name_that_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let unseen = format!("@jetmesh-test-{}", std::process::id());
        let unseen_address = SocketAddr::from_abstract_name(&unseen.as_bytes()[1..]).unwrap();
        let sockets = [
            (path.as_os_str().to_owned(), UnixDatagram::bind(&path).unwrap()),
            (unseen.into(), UnixDatagram::bind_addr(&unseen_address).unwrap()),
        ];
        for (name, socket) in sockets {
            ServiceManager::at(&name, None, None).unwrap().tell("READY=1").unwrap();
            let mut bytes = [0; 16];
            let length = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1");
        }
        assert!(ServiceManager::at(OsStr::new("vsock:2:1"), None, None).is_err());
    }

    #[test]
    fn a_watchdog_counts_if_it_is_of_this_process() {
        let watchdog = |limit: &str, of: Option<u32>| {
            let of = of.map(|of| of.to_string());
            ServiceManager::at(OsStr::new("@x"), Some(limit.to_owned()), of)
                .unwrap()
                .watchdog
        };
        let own = std::process::id();
        assert_eq!(watchdog("3000000", None), Some(Duration::from_secs(3)));
        assert_eq!(watchdog("3000000", Some(own)), Some(Duration::from_secs(3)));
        assert_eq!(watchdog("3000000", Some(own + 1)), None);
        assert_eq!((watchdog("0", None), watchdog("soon", None)), (None, None));
    }
}
