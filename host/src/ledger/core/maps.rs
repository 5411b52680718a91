//! Maps whose keys are hashed several times for each event. SipHash, the standard library's own, took one percent of a
//! transaction. The seed is chosen at random for each process.

use std::collections;

use foldhash::fast::RandomState;

pub type HashMap<K, V> = collections::HashMap<K, V, RandomState>;
pub type HashSet<K> = collections::HashSet<K, RandomState>;
