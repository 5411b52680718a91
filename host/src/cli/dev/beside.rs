//! The program that `jetmesh dev` runs beside the host, such as a service that uses the mesh.

use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::Error;
use super::super::args::Dev;
use super::server::{die_with_parent, end};
use crate::process::drain::Drain;

/// How often it is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// It ends when this is dropped.
pub struct Beside {
    program: String,
    child: Arc<Mutex<Child>>,
}

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
        Ok(Some(Beside {
            program: dev.command.join(" "),
            child: Arc::new(Mutex::new(child)),
        }))
    }

    /// Logs how it ends, if it does before the drain begins: then it is to end.
    pub fn watch(&self, drain: &Drain) {
        let (program, child) = (self.program.clone(), Arc::clone(&self.child));
        drain.spawn_until("program beside the host", move || {
            ended(program.clone(), Arc::clone(&child))
        });
    }
}

/// Completes when a program has ended, and logs how.
async fn ended(program: String, child: Arc<Mutex<Child>>) {
    loop {
        let ended = child.lock().try_wait();
        match ended {
            Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
            Ok(Some(status)) if status.success() => {
                return tracing::info!(program, "the program beside the host has ended");
            }
            Ok(Some(status)) => {
                return tracing::error!(program, %status, "the program beside the host has failed; the host continues without it");
            }
            Err(error) => {
                return tracing::error!(program, %error, "the program beside the host cannot be watched");
            }
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        end(&mut self.child.lock());
    }
}
