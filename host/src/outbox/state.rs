//! What a host tells of an outbox: `micro` asks it.

use parking_lot::Mutex;

use super::table::Backlog;
use crate::event::clock::now_ms;

/// How an outbox stands on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxStanding {
    Starting,
    /// It publishes what comes.
    Publishing,
    /// Another host publishes.
    Standby,
    /// A person has paused it.
    Paused,
    /// Something keeps it from publishing, and it tries again by itself.
    Retrying,
    /// A person must act.
    Stopped,
}

impl OutboxStanding {
    /// It does not publish, and should.
    pub fn is_kept(self) -> bool {
        match self {
            OutboxStanding::Retrying | OutboxStanding::Stopped => true,
            OutboxStanding::Starting
            | OutboxStanding::Publishing
            | OutboxStanding::Standby
            | OutboxStanding::Paused => false,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            OutboxStanding::Starting => "starting",
            OutboxStanding::Publishing => "publishing",
            OutboxStanding::Standby => "standby",
            OutboxStanding::Paused => "paused",
            OutboxStanding::Retrying => "retrying",
            OutboxStanding::Stopped => "stopped",
        }
    }
}

#[derive(Debug, Clone)]
pub struct OutboxNow {
    pub standing: OutboxStanding,
    pub since_ms: u64,
    /// Why it does not publish.
    pub why: Option<String>,
    /// Rows in the table; `None`: not known.
    pub backlog: Option<Backlog>,
    /// Rows that this host has published, and those that it has made dead letters.
    pub published: u64,
    pub dead: u64,
    /// What it found when it last saw that the database or the stream is an older copy.
    pub restored: Option<String>,
}

pub struct OutboxState {
    pub name: String,
    now: Mutex<OutboxNow>,
    /// Why this host has dropped the slot of the outbox.
    lost_slot: Mutex<Option<String>>,
    /// When the stream was created with which this host has brought the database to agree.
    fed: Mutex<Option<String>>,
}

impl OutboxState {
    pub fn new(name: &str) -> OutboxState {
        OutboxState {
            name: name.to_owned(),
            now: Mutex::new(OutboxNow {
                standing: OutboxStanding::Starting,
                since_ms: now_ms(),
                why: None,
                backlog: None,
                published: 0,
                dead: 0,
                restored: None,
            }),
            lost_slot: Mutex::new(None),
            fed: Mutex::new(None),
        }
    }

    pub fn snapshot(&self) -> OutboxNow {
        self.now.lock().clone()
    }

    /// Returns how it stood before.
    pub fn stands(&self, standing: OutboxStanding, why: Option<String>) -> OutboxStanding {
        let why = match standing {
            OutboxStanding::Stopped => self.lost_slot.lock().clone().or(why),
            OutboxStanding::Publishing => {
                *self.lost_slot.lock() = None;
                why
            }
            _ => why,
        };
        let mut now = self.now.lock();
        let before = now.standing;
        if before != standing {
            now.since_ms = now_ms();
        }
        (now.standing, now.why) = (standing, why);
        before
    }

    pub fn lost_slot(&self, why: String) {
        *self.lost_slot.lock() = Some(why);
    }

    /// `None`: it is not known.
    pub fn waits(&self, backlog: Option<Backlog>) {
        self.now.lock().backlog = backlog;
    }

    pub fn settled(&self, published: usize, dead: usize) {
        let mut now = self.now.lock();
        now.published += published as u64;
        now.dead += dead as u64;
    }

    /// Database and stream agree; `created`: when the stream was created.
    pub fn feeds(&self, created: &str) {
        let mut fed = self.fed.lock();
        if fed.as_deref() != Some(created) {
            *fed = Some(created.to_owned());
        }
    }

    pub fn has_fed(&self, created: &str) -> bool {
        self.fed.lock().as_deref() == Some(created)
    }

    pub fn restored(&self, what: String) {
        self.now.lock().restored = Some(what);
    }
}
