//! What is measured: which handlers, how many hosts, how much in flight, over how many keys.

/// One of the shipped handlers, as it is configured here.
#[derive(Debug, PartialEq, Eq)]
pub struct Handler {
    /// Also its component's name.
    pub name: &'static str,
    pub bucket: Option<&'static str>,
    pub emits: &'static str,
    /// The stream that takes what it emits.
    pub target: &'static str,
}

impl Handler {
    /// The bucket whose ledger decides its events; the mesh's own, if it has none.
    pub fn ledger(&self) -> &'static str {
        self.bucket.unwrap_or("mesh")
    }
}

pub const INVENTORY: Handler = Handler {
    name: "inventory",
    bucket: Some("inventory"),
    emits: "inventory.reserved",
    target: "RESERVED",
};
pub const POINTS: Handler = Handler {
    name: "points",
    bucket: Some("points"),
    emits: "points.added",
    target: "POINTS",
};
pub const NOTIFY: Handler = Handler {
    name: "notify",
    bucket: None,
    emits: "notifications.requested",
    target: "NOTIFICATIONS",
};

/// Skus, and so keys of the bucket `inventory`.
pub const KEYS: u64 = 10_000;

#[derive(Debug)]
pub struct Case {
    /// For the table, and for `BENCH_CASES`.
    pub name: &'static str,
    pub handlers: &'static [Handler],
    pub hosts: usize,
    /// Of each handler on each host.
    pub in_flight: usize,
    pub keys: u64,
    /// Servers, and replicas of everything.
    pub replicas: usize,
}

const USUAL: Case = Case {
    name: "",
    handlers: &[INVENTORY],
    hosts: 1,
    in_flight: 1024,
    keys: KEYS,
    replicas: 1,
};

pub const CASES: [Case; 9] = [
    Case {
        name: "in flight 1",
        in_flight: 1,
        ..USUAL
    },
    Case {
        name: "in flight 64",
        in_flight: 64,
        ..USUAL
    },
    Case {
        name: "in flight 1024",
        ..USUAL
    },
    Case {
        name: "in flight 4096",
        in_flight: 4096,
        ..USUAL
    },
    Case {
        name: "one hot key",
        in_flight: 4096,
        keys: 1,
        ..USUAL
    },
    Case {
        name: "emits only",
        handlers: &[NOTIFY],
        ..USUAL
    },
    Case {
        name: "two hosts",
        hosts: 2,
        ..USUAL
    },
    Case {
        name: "three handlers",
        handlers: &[INVENTORY, POINTS, NOTIFY],
        ..USUAL
    },
    Case {
        name: "three replicas",
        replicas: 3,
        ..USUAL
    },
];
