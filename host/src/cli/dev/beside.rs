//! The program that `jetmesh dev` runs beside the host, such as a service that uses the mesh.

use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::Error;
use super::super::args::Dev;
use super::server::{die_with_parent, end};

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

    /// Completes when it has ended by itself, and logs how.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let (program, child) = (self.program.clone(), Arc::clone(&self.child));
        async move {
            let status = loop {
                match child.lock().try_wait() {
                    Ok(None) => {}
                    ended => break ended,
                }
                tokio::time::sleep(LOOK_EVERY).await;
            };
            match status {
                Ok(Some(status)) if status.success() => {
                    tracing::info!(program, "the program beside the host has ended");
                }
                Ok(Some(status)) => {
                    tracing::error!(program, %status, "the program beside the host has failed; the host continues without it");
                }
                Ok(None) => {}
                Err(error) => tracing::error!(program, %error, "the program beside the host cannot be watched"),
            }
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        end(&mut self.child.lock());
    }
}
