//! ViewerSessions: who is logged in, for how long, and with which connection to NATS. A session is known by a secret, which only the
//! viewer's browser has; here is its digest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::TryRng as _;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::exports::OrderedExports;
use super::live::LatestSample;
use crate::broker::latch::Latch;
use crate::broker::{self, Connection, Error};
use crate::plan::{Plan, SESSIONS_MAX};

/// Without a request for this time, a session ends.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// After this time it ends in any case.
const AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// 256 bits of the operating system, as 64 hex digits.
pub fn secret() -> String {
    let mut bytes = [0; 32];
    // Without randomness nothing here is safe.
    SysRng
        .try_fill_bytes(&mut bytes)
        .expect("the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one viewer's browser has logged in to.
pub struct ViewerSession {
    /// How the viewer is named.
    pub who: String,
    /// What each order must bring, besides the cookie.
    pub csrf: String,
    /// The mesh, with the viewer's way to NATS.
    pub plan: Arc<Plan>,
    connection: tokio::sync::Mutex<Connection>,
    lifetime: Lifetime,
    pub latest: LatestSample,
    pub exports: OrderedExports,
    /// Has one place: for the session's rehearsal.
    pub rehearses: Arc<Semaphore>,
    /// Set when the session has ended.
    pub ended: Latch,
}

impl ViewerSession {
    pub fn new(who: String, plan: Arc<Plan>, connection: Connection) -> ViewerSession {
        ViewerSession {
            who,
            csrf: secret(),
            plan,
            connection: tokio::sync::Mutex::new(connection),
            lifetime: Lifetime::from(Instant::now()),
            latest: LatestSample::default(),
            exports: OrderedExports::default(),
            rehearses: Arc::new(Semaphore::new(1)),
            ended: Latch::default(),
        }
    }

    /// The viewer's connection; another one if the last was lost.
    pub async fn connection(&self) -> Result<Connection, Error> {
        let mut connection = self.connection.lock().await;
        if connection.is_closed() {
            *connection = open(&self.plan, &self.who).await?;
        }
        Ok(connection.clone())
    }

    /// Who gives an order, for those that ask later who it was.
    pub fn by(&self) -> String {
        format!("{}, at the console", self.who)
    }
}

/// When a session began, and was used last.
struct Lifetime {
    began: Instant,
    used: Mutex<Instant>,
}

impl Lifetime {
    fn from(now: Instant) -> Lifetime {
        Lifetime {
            began: now,
            used: Mutex::new(now),
        }
    }

    fn is_used(&self, now: Instant) {
        *self.used.lock() = now;
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= AGE_MAX || now.duration_since(*self.used.lock()) >= IDLE_MAX
    }
}

/// A viewer's connection. Guarded: what others have published is read with it.
pub async fn open(plan: &Plan, who: &str) -> Result<Connection, Error> {
    broker::open_guarded(&plan.nats, &format!("jetmesh console, {who}")).await
}

/// Those that are logged in.
#[derive(Default)]
pub struct ViewerSessions(Mutex<HashMap<[u8; 32], Arc<ViewerSession>>>);

impl ViewerSessions {
    /// Takes a session in; returns its secret. `None`: there are too many.
    pub fn add(&self, session: Arc<ViewerSession>) -> Option<String> {
        let mut all = self.0.lock();
        end_old(&mut all);
        if all.len() >= SESSIONS_MAX {
            return None;
        }
        let secret = secret();
        all.insert(Sha256::digest(&secret).into(), session);
        Some(secret)
    }

    /// The session of a secret, which is used by this.
    pub fn find(&self, secret: &str) -> Option<Arc<ViewerSession>> {
        let mut all = self.0.lock();
        end_old(&mut all);
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let session = all.get(&digest)?;
        session.lifetime.is_used(Instant::now());
        Some(Arc::clone(session))
    }

    pub fn end(&self, secret: &str) {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        if let Some(session) = self.0.lock().remove(&digest) {
            session.ended.set();
        }
    }
}

fn end_old(all: &mut HashMap<[u8; 32], Arc<ViewerSession>>) {
    let now = Instant::now();
    all.retain(|_, session| {
        let over = session.lifetime.is_over(now);
        if over {
            session.ended.set();
        }
        !over
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::secret::same;

    #[test]
    fn a_session_ends_after_half_an_hour_without_a_request_and_after_twelve_hours_in_any_case() {
        let (began, minute) = (Instant::now(), Duration::from_secs(60));
        let lifetime = Lifetime::from(began);
        assert!(!lifetime.is_over(began + 29 * minute) && lifetime.is_over(began + 30 * minute));
        for minutes in (0..12 * 60).step_by(20) {
            let now = began + minutes * minute;
            assert!(!lifetime.is_over(now), "after {minutes} minutes");
            lifetime.is_used(now);
        }
        lifetime.is_used(began + 719 * minute);
        assert!(lifetime.is_over(began + 720 * minute));
    }

    #[test]
    fn each_secret_is_another_one_of_256_bits() {
        let (one, other) = (secret(), secret());
        assert_eq!((one.len(), other.len()), (64, 64));
        assert!(one != other && same(&one, &one) && !same(&one, &other) && !same("", &one));
    }
}
