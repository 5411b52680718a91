//! The program that `jetmesh dev` runs beside the host, such as a service that uses the mesh.

use std::process::{Child, Command};

use super::super::Error;
use super::super::args::Dev;
use super::server::{die_with_parent, end};

/// It ends when this is dropped.
pub struct Beside(Child);

impl Beside {
    /// Starts it, if there is one. It is told where NATS is.
    pub fn start(dev: &Dev, url: &str) -> Result<Option<Beside>, Error> {
        let [program, args @ ..] = dev.command.as_slice() else {
            return Ok(None);
        };
        let mut command = Command::new(program);
        command.args(args).env("NATS_URL", url);
        die_with_parent(&mut command);
        let child = command.spawn();
        let child = child.map_err(|error| Error::Failed(format!("{program}: {error}")))?;
        Ok(Some(Beside(child)))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}
