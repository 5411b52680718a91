//! What is published in a round: orders for three handlers, drawn from a seed. This list is all that the auditor knows of
//! what ought to happen.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use serde_json::{Value, json};

/// The handlers, and the bucket whose ledger each has. Two of them share a bucket; the third has no state, so that its
/// ledger is the mesh's own.
pub const HANDLERS: [(&str, &str); 3] = [("ant", SHARED), ("bee", SHARED), ("cat", "mesh")];

/// A handler without a ledger, which only the soak has.
pub const PLAIN: &str = "dog";

/// The bucket with the keys.
pub const SHARED: &str = "shared";

/// A step of the probe guest (`handlers/probe/src/step.rs`).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Step {
    Append {
        key: String,
        text: String,
        with: Option<String>,
    },
    Add {
        key: String,
        by: i64,
    },
    Take {
        key: String,
    },
    Set {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    Tell {
        key: String,
        subject: String,
    },
    Emit {
        subject: String,
        payload: Value,
    },
    EmitLater {
        subject: String,
        payload: Value,
        after_ms: u64,
    },
    TimerSet {
        name: String,
        subject: String,
        payload: Value,
        after_ms: u64,
    },
    TimerCancel {
        name: String,
    },
    Sleep {
        ms: u64,
    },
    Reject {
        code: String,
        message: String,
    },
    Retry {
        code: String,
        message: String,
    },
    FailUntil {
        attempt: u32,
    },
    /// Asks for a retry until the key has a value.
    Need {
        key: String,
    },
    Trap,
    /// Steps of one version of the module: they say nothing of what must happen.
    InVersion {
        version: String,
        #[serde(rename = "do")]
        steps: Vec<Step>,
    },
}

impl Step {
    /// The key that it writes, if many orders write it.
    pub fn written(&mut self) -> Option<&mut String> {
        match self {
            Self::Append { key, .. } | Self::Add { key, .. } | Self::Take { key } | Self::Delete { key } => {
                Some(key).filter(|key| !key.starts_with("own."))
            }
            _ => None,
        }
    }

    /// An attempt that comes to it fails.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Reject { .. } | Self::Retry { .. } | Self::FailUntil { .. } | Self::Need { .. } | Self::Trap
        )
    }
}

/// One event, and what each handler is to do with it, in the order of [`HANDLERS`].
#[derive(Debug, Clone)]
pub struct Order {
    pub number: usize,
    pub steps: [Vec<Step>; 3],
    /// What [`PLAIN`] is to do.
    pub plain: Vec<Step>,
}

impl Order {
    /// Something of it is emitted later.
    pub fn asks_for_delayed(&self) -> bool {
        let later = |step: &Step| matches!(step, Step::EmitLater { .. });
        self.steps.iter().flatten().any(later)
    }

    pub fn payload(&self) -> String {
        let one = |((handler, _), steps): (&(&str, &str), &Vec<Step>)| json!({ "op": "for", "handler": handler, "do": steps });
        let mut steps: Vec<Value> = HANDLERS.iter().zip(&self.steps).map(one).collect();
        if !self.plain.is_empty() {
            steps.push(one((&(PLAIN, ""), &self.plain)));
        }
        json!({ "do": steps }).to_string()
    }
}

/// The orders of a seed.
pub fn draw(seed: u64, count: usize) -> Vec<Order> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|number| one(&mut rng, number)).collect()
}

pub fn one(rng: &mut StdRng, number: usize) -> Order {
    let steps = [
        with_state(rng, number),
        with_state(rng, number),
        without_state(rng, number),
    ];
    let plain = Vec::new();
    Order { number, steps, plain }
}

fn with_state(rng: &mut StdRng, number: usize) -> Vec<Step> {
    let append = |key: String, with: Option<&str>| Step::Append {
        key,
        text: number.to_string(),
        with: with.map(str::to_owned),
    };
    let list = format!("list.{}", rng.random_range(0..7));
    let sum = format!("sum.{}", rng.random_range(0..5));
    let stock = format!("stock.{}", rng.random_range(0..2));
    let mut steps = vec![append(format!("own.{number}"), None)];
    match rng.random_range(0..100) {
        0..20 => steps.extend([append("hot".to_owned(), None), emit("worked", number)]),
        20..35 => steps.extend([append(list, Some("rate")), emit("worked", number)]),
        35..45 => steps.extend([
            Step::Add {
                key: sum.clone(),
                by: 1,
            },
            tell(sum),
        ]),
        45..60 => steps.extend([Step::Take { key: stock }, emit("sold", number)]),
        60..68 => steps.push(Step::Add { key: stock, by: 2 }),
        // Only reads.
        68..76 => steps = vec![tell("rate".to_owned()), tell(stock)],
        76..79 => steps.extend([Step::Delete { key: list }, emit("worked", number)]),
        79..82 => steps.push(Step::Set {
            key: "rate".to_owned(),
            value: format!("set-by-{number}"),
        }),
        _ => {
            steps.extend([append("hot".to_owned(), Some("rate")), emit("worked", number)]);
            steps.push(failure(rng));
        }
    }
    if rng.random_ratio(1, 6) {
        let at = rng.random_range(0..=steps.len());
        let ms = rng.random_range(1..60);
        steps.insert(at, Step::Sleep { ms });
    }
    steps
}

fn without_state(rng: &mut StdRng, number: usize) -> Vec<Step> {
    match rng.random_range(0..10) {
        0 => vec![],
        1 => vec![emit("worked", number), emit("again", number)],
        2 => vec![emit("worked", number), failure(rng)],
        3 => vec![Step::Sleep { ms: 20 }, emit("worked", number)],
        _ => vec![emit("worked", number)],
    }
}

fn emit(kind: &str, number: usize) -> Step {
    Step::Emit {
        subject: format!("events.{kind}"),
        payload: json!(number),
    }
}

fn tell(key: String) -> Step {
    Step::Tell {
        key,
        subject: "events.told".to_owned(),
    }
}

/// Each attempt fails.
pub fn never() -> Step {
    Step::Retry {
        code: "never".to_owned(),
        message: "as ordered".to_owned(),
    }
}

/// What comes before it must not happen, or not yet.
fn failure(rng: &mut StdRng) -> Step {
    let message = "as ordered".to_owned();
    match rng.random_range(0..10) {
        0..4 => Step::Reject {
            code: "bad".to_owned(),
            message,
        },
        4..6 => never(),
        6 => Step::Trap,
        _ => Step::FailUntil { attempt: 2 },
    }
}
