//! What tells others how a host stands without NATS: its admin address answers over HTTP, and the service manager that has
//! started the host is told. The console is at the admin address, too.

mod backlog;
mod exposition;
mod families;
#[cfg(test)]
mod families_tests;
mod health;
mod manager;
mod proc;
mod site;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use self::backlog::MeshBacklog;
use self::exposition::TextFormat;
use self::families::Scrape;
use self::proc::ProcessFigures;
use self::site::AdminSite;
use crate::broker::latch::Latch;
use crate::console::{Admission, Console};
use crate::event::clock::now_ms;
use crate::http::{self, HttpListener, TlsIdentity};
use crate::micro::Host;
use crate::plan::{AdminPlan, Plan, is_local};
use crate::process::drain::Drain;
use crate::process::service::ServiceManager;

/// Listens at an admin address, before anything is answered there.
///
/// # Errors
/// The address cannot be listened at; the text names it.
pub fn bind(address: SocketAddr, plan: &AdminPlan) -> Result<AdminAddress, String> {
    let tls = plan.tls.as_ref().map(TlsIdentity::read).transpose();
    let tls = tls.map_err(|why| format!("[admin]: {why}"))?.map(Arc::new);
    let listener = HttpListener::bind(address, tls).map_err(|error| {
        format!(
            "admin.listen, {address}: {error}; free this port, or choose another address with --admin, or in [admin]"
        )
    })?;
    let publishes = false;
    Ok(AdminAddress { listener, publishes })
}

/// Where a host answers, and whether a viewer can publish events there, to try things out.
pub struct AdminAddress {
    pub listener: HttpListener,
    pub publishes: bool,
}

/// How far a host has come.
#[derive(Clone)]
pub enum Stage {
    Compiling,
    Connecting,
    Running(Arc<Host>),
}

/// What the answers are made of.
pub struct Admin {
    drain: Drain,
    stage: Mutex<Stage>,
    backlog: Arc<MeshBacklog>,
    ended: Latch,
}

impl Admin {
    fn metrics(&self, format: TextFormat) -> String {
        let stage = self.stage();
        let scrape = Scrape {
            host: match &stage {
                Stage::Running(host) => Some(host),
                Stage::Compiling | Stage::Connecting => None,
            },
            backlog: &self.backlog,
            process: ProcessFigures::read(),
            now_ms: now_ms(),
        };
        exposition::text(format, &scrape)
    }

    fn stage(&self) -> Stage {
        self.stage.lock().clone()
    }
}

/// Says to the admin address how far the host has come. When it is dropped, the host has ended, and nothing is answered any
/// more.
pub struct HostStage(Arc<Admin>);

impl HostStage {
    pub fn new(drain: &Drain) -> HostStage {
        HostStage(Arc::new(Admin {
            drain: drain.clone(),
            stage: Mutex::new(Stage::Compiling),
            backlog: Arc::default(),
            ended: Latch::default(),
        }))
    }

    pub fn is(&self, stage: Stage) {
        *self.0.stage.lock() = stage;
    }

    /// The host runs. If it has an admin address, it is looked up from now on what waits.
    pub fn runs(&self, host: &Arc<Host>, has_address: bool) {
        self.is(Stage::Running(Arc::clone(host)));
        if has_address {
            let (backlog, host) = (Arc::clone(&self.0.backlog), Arc::clone(host));
            self.0.drain.spawn_until("backlog", move || {
                backlog::watch(Arc::clone(&backlog), Arc::clone(&host))
            });
        }
    }

    /// What the admin thread does. `None`: it has nothing to do.
    pub fn answers(
        &self,
        plan: &Arc<Plan>,
        address: Option<AdminAddress>,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let manager = ServiceManager::of_environment().unwrap_or_else(|why| {
            tracing::warn!("the service manager cannot be told: {why}");
            None
        });
        if address.is_none() && manager.is_none() {
            return None;
        }
        let served = address.map(|AdminAddress { listener, publishes }| {
            let admission = Admission::Credentials { publishes };
            let console = Console::new(Arc::clone(plan), admission, &listener);
            (listener, console)
        });
        Some(answer(
            Arc::clone(&self.0),
            plan.admin.metrics_token.clone(),
            served,
            manager,
        ))
    }
}

impl Drop for HostStage {
    fn drop(&mut self) {
        self.0.ended.set();
    }
}

/// Answers and tells until the host has ended.
async fn answer(
    admin: Arc<Admin>,
    metrics_token: Option<PathBuf>,
    served: Option<(HttpListener, Arc<Console>)>,
    manager: Option<ServiceManager>,
) {
    if let Some(manager) = manager.map(Arc::new) {
        let own = Arc::clone(&admin);
        admin.drain.spawn_beside("service manager", move || {
            manager::tell(Arc::clone(&manager), Arc::clone(&own))
        });
    }
    if let Some((listener, console)) = served {
        let address = listener.address;
        match listener.listen().map(Arc::new) {
            Ok(listener) => {
                let own = Arc::clone(&console);
                admin.drain.spawn_beside("console", move || {
                    let own = Arc::clone(&own);
                    async move { own.work().await }
                });
                let site = Arc::new(AdminSite {
                    admin: Arc::clone(&admin),
                    console,
                    metrics_token,
                    is_local: is_local(address),
                });
                admin.drain.spawn_beside("admin address", move || {
                    http::serve(Arc::clone(&listener), Arc::clone(&site))
                });
                tracing::info!(%address, "the admin address answers");
            }
            Err(error) => tracing::error!(%address, %error, "the admin address does not answer"),
        }
    }
    admin.ended.wait().await;
}
