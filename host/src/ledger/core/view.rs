//! The keys of a bucket as a transaction that runs now sees them: what has joined and is not committed yet lies over
//! what is known to be stored. Pure.

use bytes::Bytes;

use super::maps::HashMap;

use super::cache::{Cache, Cached};
use super::group::TxId;
use crate::event::effects::Version;

#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub(in crate::ledger) cache: Cache,
    /// By key, the newest write that waits for its commit.
    overlay: HashMap<String, Pending>,
}

#[derive(Debug, Clone, PartialEq)]
struct Pending {
    by: TxId,
    /// `None`: deleted.
    value: Option<Bytes>,
}

impl View {
    pub fn new(cache_bytes_max: usize) -> View {
        View {
            cache: Cache::new(cache_bytes_max),
            overlay: HashMap::default(),
        }
    }

    /// `None`: the key is not known here.
    pub fn read(&mut self, key: &str) -> Option<(Option<Bytes>, Version)> {
        if let Some(pending) = self.overlay.get(key) {
            return Some((pending.value.clone(), Version::Pending(pending.by)));
        }
        let cached = self.cache.get(key)?;
        Some((cached.value.clone(), Version::Stored(cached.revision)))
    }

    /// The version of a key that a transaction finds now.
    pub fn version(&self, key: &str) -> Option<Version> {
        match self.overlay.get(key) {
            Some(pending) => Some(Version::Pending(pending.by)),
            None => self.cache.peek(key).map(|cached| Version::Stored(cached.revision)),
        }
    }

    /// Whether what was read of a key is what the next transaction would read. For a key that is not in the cache, the server
    /// will check.
    pub fn is_latest(&self, key: &str, read: Version) -> bool {
        if let Some(pending) = self.overlay.get(key) {
            return read == Version::Pending(pending.by);
        }
        match (self.cache.peek(key), read) {
            (Some(cached), Version::Stored(revision)) => cached.revision == revision,
            (Some(cached), Version::Pending(by)) => cached.by == Some(by),
            (None, Version::Stored(_)) => true,
            (None, Version::Pending(_)) => false,
        }
    }

    pub fn is_pending(&self, key: &str) -> bool {
        self.overlay.contains_key(key)
    }

    /// What is known to be stored, unless something newer is.
    pub fn learn(&mut self, key: &str, revision: u64, value: Option<Bytes>) {
        let by = None;
        self.cache.put(key, Cached { revision, value, by });
    }

    /// What was known to be stored may be no longer.
    pub fn forget(&mut self, key: &str) {
        self.cache.forget(key);
    }

    /// A transaction has joined that writes a key.
    pub fn write(&mut self, key: &str, by: TxId, value: Option<Bytes>) {
        let pending = Pending { by, value };
        match self.overlay.get_mut(key) {
            Some(known) => *known = pending,
            None => {
                self.overlay.insert(key.to_owned(), pending);
            }
        }
    }

    /// The write is stored now.
    pub fn commit(&mut self, key: &str, by: TxId, revision: u64, value: Option<Bytes>) {
        self.withdraw(key, by);
        let by = Some(by);
        self.cache.put(key, Cached { revision, value, by });
    }

    /// The write does not wait any more: it goes, if nothing newer has taken its place.
    pub fn withdraw(&mut self, key: &str, by: TxId) {
        if self.overlay.get(key).is_some_and(|pending| pending.by == by) {
            self.overlay.remove(key);
        }
    }

    pub fn withdraw_all(&mut self) {
        self.overlay.clear();
    }

    /// Nothing that was known counts any more.
    pub fn forget_all(&mut self) {
        self.cache.clear();
    }
}
