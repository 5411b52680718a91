//! The keys of a bucket that this host has seen last, bounded in bytes. What is in it may be old: every commit rests on
//! revisions that the server checks. Pure.

use bytes::Bytes;

use super::maps::HashMap;

/// A key as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// 0: the key never was.
    pub revision: u64,
    /// `None`: there is no value.
    pub value: Option<Bytes>,
    /// The transaction of this host that wrote it, if one did.
    pub by: Option<u64>,
}

/// Two generations: when the young one has filled half of the room, it becomes the old one, and the old one goes. What
/// is asked for in between moves to the young one.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    young: HashMap<String, Cached>,
    old: HashMap<String, Cached>,
    young_bytes: usize,
    bytes_max: usize,
}

/// What a key costs beside its own bytes: two map entries and their control words.
const KEY_BYTES: usize = 128;

impl Cache {
    pub fn new(bytes_max: usize) -> Cache {
        Cache {
            young: HashMap::default(),
            old: HashMap::default(),
            young_bytes: 0,
            bytes_max,
        }
    }

    pub fn get(&mut self, key: &str) -> Option<&Cached> {
        if !self.young.contains_key(key)
            && let Some((key, cached)) = self.old.remove_entry(key)
        {
            self.insert(key, cached);
        }
        // A value that fills the room alone has become old at once.
        self.peek(key)
    }

    /// The same without moving it.
    pub fn peek(&self, key: &str) -> Option<&Cached> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Takes in what was seen of a key, unless something newer is known.
    pub fn put(&mut self, key: &str, cached: Cached) {
        if self.peek(key).is_some_and(|known| known.revision >= cached.revision) {
            return;
        }
        self.old.remove(key);
        self.insert(key.to_owned(), cached);
    }

    /// What is known of a key is no longer so.
    pub fn forget(&mut self, key: &str) {
        self.old.remove(key);
        if let Some(cached) = self.young.remove(key) {
            self.young_bytes = self.young_bytes.saturating_sub(size(key, &cached));
        }
    }

    pub fn clear(&mut self) {
        (self.young, self.old, self.young_bytes) = (HashMap::default(), HashMap::default(), 0);
    }

    fn insert(&mut self, key: String, cached: Cached) {
        self.young_bytes += size(&key, &cached);
        if let Some(before) = self.young.insert(key.clone(), cached) {
            self.young_bytes = self.young_bytes.saturating_sub(size(&key, &before));
        }
        if self.young_bytes > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

fn size(key: &str, cached: &Cached) -> usize {
    KEY_BYTES + key.len() + cached.value.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(revision: u64) -> Cached {
        Cached {
            revision,
            value: Some(Bytes::from_static(b"value")),
            by: None,
        }
    }

    #[test]
    fn an_older_value_never_replaces_a_newer_one() {
        let mut cache = Cache::new(10_000);
        cache.put("a", cached(5));
        cache.put("a", cached(4));
        assert_eq!(cache.get("a").map(|c| c.revision), Some(5));
        cache.forget("a");
        assert_eq!(cache.get("a"), None);
    }

    #[test]
    fn it_keeps_what_is_used_and_stays_within_its_bytes() {
        let mut cache = Cache::new(20 * (KEY_BYTES + 10));
        cache.put("hot", cached(1));
        for i in 0..1000 {
            cache.put(&format!("cold{i}"), cached(1));
            assert!(cache.get("hot").is_some(), "after {i}");
            assert!(cache.young.len() + cache.old.len() <= 24, "after {i}");
        }
    }
}
