//! The console: how the mesh stands, and what a person does about it, in a browser. A viewer logs in with credentials of NATS, and
//! all that is asked and done for this viewer is asked and done with those. What is shown is read from NATS when it is asked for:
//! nothing of it is kept here. `decisions/0029-console.md` says why.

mod assets;
mod audit;
mod conditions;
mod exports;
mod letters;
mod live;
mod login;
mod modules;
mod now;
mod orders;
mod people;
mod queries;
mod query;
mod registry;
mod rehearsal_order;
mod rehearsals;
mod rights;
mod runs;
mod session;
mod site;
mod state;
mod trouble;
mod waiting;
mod whereabouts;

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::runs::Runs;
use self::session::ViewerSessions;
use crate::http::{HttpListener, TlsIdentity};
use crate::plan::Plan;
use crate::text::secret::same;

/// How a viewer is let in.
pub enum Admission {
    /// With credentials of NATS. `publishes`: a viewer can publish events, to try things out.
    Credentials { publishes: bool },
    /// By the address that the command prints, with its token: then with the command's own connection settings.
    Invitation(Invitation),
}

/// The token of the next viewer. It lets in once; after that there is another one.
pub struct Invitation {
    token: Mutex<String>,
    /// Tells the next address.
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl Invitation {
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Invitation {
        Invitation {
            token: Mutex::new(session::secret()),
            tell: Box::new(tell),
        }
    }

    /// Whether this is the token. It is none any more then.
    fn take(&self, given: &str, address: SocketAddr) -> bool {
        let mut token = self.token.lock();
        if !same(&token, given) {
            return false;
        }
        *token = session::secret();
        (self.tell)(&invited(address, &token));
        true
    }
}

/// The address with a token. What follows `#` is sent to no server.
fn invited(address: SocketAddr, token: &str) -> String {
    format!("http://{address}/#/login/{token}")
}

/// What is served at one address.
pub struct Console {
    pub(in crate::console) plan: Arc<Plan>,
    pub(in crate::console) admission: Admission,
    pub(in crate::console) address: SocketAddr,
    pub(in crate::console) tls: Option<Arc<TlsIdentity>>,
    url: String,
    pub(in crate::console) sessions: ViewerSessions,
    pub(in crate::console) runs: Arc<Runs>,
    /// Has the places of exports.
    pub(in crate::console) exports: Arc<Semaphore>,
    /// Has the places of rehearsals.
    pub(in crate::console) rehearsals: Arc<Semaphore>,
}

impl Console {
    pub fn new(plan: Arc<Plan>, admission: Admission, listener: &HttpListener) -> Arc<Console> {
        Arc::new(Console {
            plan,
            admission,
            address: listener.address,
            tls: listener.tls.clone(),
            url: listener.url(),
            sessions: ViewerSessions::default(),
            runs: Arc::default(),
            exports: Arc::new(Semaphore::new(exports::EXPORTS_MAX)),
            rehearsals: Arc::new(Semaphore::new(rehearsals::REHEARSALS_MAX)),
        })
    }

    /// Does what viewers have begun, for as long as it is polled.
    pub async fn work(&self) {
        self.runs.work().await;
    }

    /// Whether a viewer can publish events.
    fn publishes(&self) -> bool {
        matches!(self.admission, Admission::Credentials { publishes: true })
    }

    /// Whether a viewer can rehearse on a module of their own. A host that serves events compiles what its configuration names, and
    /// nothing else, unless the configuration says so.
    fn takes_uploads(&self) -> bool {
        let own = match &self.admission {
            Admission::Credentials { publishes } => *publishes,
            Admission::Invitation(_) => true,
        };
        self.plan.admin.uploads.unwrap_or(own)
    }

    /// The address for the first viewer.
    pub fn first_address(&self) -> String {
        match &self.admission {
            Admission::Credentials { .. } => self.url.clone(),
            Admission::Invitation(invitation) => invited(self.address, &invitation.token.lock()),
        }
    }
}
