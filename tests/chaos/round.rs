//! What is broken in a round. Everything of it follows from a seed and a number.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::blocked;
use crate::orders::{self, Order};
use crate::points::{Database, POINTS, Point, Work};
use crate::redrives;
use crate::rollouts;
use crate::rows::DatabaseTrouble;
use crate::timers;

/// The points of a schedule are passed once a second, from the start of a host on. Before this pass of them, the host serves.
const SCHEDULE_PASS: u32 = 3;

/// How many ways there are.
pub const WAYS: usize = 3;
/// Each point in each way.
pub const CELLS: usize = POINTS.len() * WAYS;

/// What happens to the host that comes to the point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    /// As by `kill -9`.
    Killed,
    /// For longer than the ack wait times the attempts, while another host goes on.
    Frozen,
    /// It goes on at once, but its connections do not.
    CutOff(Trouble),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    Cut,
    /// What it sends from now on arrives late.
    Late(Duration),
    /// What it is sent from now on arrives late.
    AnswersLate(Duration),
    /// What it sends from now on never arrives.
    Lost,
    /// What it is sent from now on never arrives: what it has sent is done, and it does not know.
    AnswersLost,
}

#[derive(Debug, Clone)]
pub struct Round {
    pub seed: u64,
    /// Which of the seed's [`CELLS`].
    pub cell: usize,
    pub point: Point,
    /// The pass at which the point acts.
    pub nth: u32,
    pub way: Way,
    /// The server is killed at the point, and started again after this.
    pub server: Option<Duration>,
    /// Happens at the point to the PostgreSQL of an outbox.
    pub database: Option<DatabaseTrouble>,
    /// How often the mesh replays a dead letter by itself, if the round has a redrive.
    pub redrives_max: Option<usize>,
    /// The second host is there from the beginning; else it comes after the first has come to the point.
    pub together: bool,
    pub concurrency: usize,
    pub reused: bool,
    pub orders: Vec<Order>,
    /// What the person who writes too draws from.
    pub person: u64,
    /// Some events go to a stream that is full, and some are too large for theirs.
    pub blocked: bool,
}

impl Round {
    pub fn new(seed: u64, cell: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1000) + cell as u64);
        let (time, at) = (cell / POINTS.len(), cell % POINTS.len());
        let point = POINTS[at];
        // The first points of a seed come in all ways, and each point has another way each time.
        let way = match (at + time) % 3 {
            0 => Way::Killed,
            1 => Way::Frozen,
            _ => Way::CutOff(trouble(&mut rng)),
        };
        let late = point.name == "floor-written";
        let together = late || rng.random_ratio(1, 2);
        // Together each gets a part of the work only.
        // Of an outbox one host publishes everything.
        let passes = if together && !matches!(point.work, Work::Outbox(_)) {
            point.passes.div_ceil(2)
        } else {
            point.passes
        };
        let mut round = Self {
            seed,
            cell,
            point,
            nth: match point.work {
                Work::Schedule => SCHEDULE_PASS,
                _ => rng.random_range(1..=passes),
            },
            way,
            server: rng
                .random_ratio(1, 3)
                .then(|| Duration::from_millis(rng.random_range(0..800))),
            database: None,
            redrives_max: None,
            together,
            concurrency: rng.random_range(2..24),
            reused: rng.random_ratio(1, 3),
            orders: orders::draw(rng.random(), rng.random_range(60..150)),
            person: rng.random(),
            // A target that is full takes ten seconds, which says nothing of redrives and timers.
            blocked: rng.random_ratio(1, 4) && !matches!(point.work, Work::Redrive | Work::Timers | Work::Rollout),
        };
        if round.blocked {
            blocked::spoil(&mut round.orders);
        }
        match point.work {
            Work::Redrive => {
                redrives::spoil(&mut round.orders);
                round.redrives_max = Some(rng.random_range(redrives::TIMES_MAX));
            }
            Work::Timers => timers::spoil(&mut round.orders, round.person),
            Work::Rollout => rollouts::spoil(&mut round.orders, round.person),
            Work::Orders | Work::Relay | Work::Schedule | Work::Outbox(Database::Sqlite) => {}
            Work::Outbox(Database::Postgres(_)) => round.database = database_trouble(&mut rng),
        }
        round
    }

    /// The first host begins only when a part of the orders is done: only then has it a floor to write.
    pub fn begins_late(&self) -> bool {
        self.point.name == "floor-written"
    }

    /// How long there is between two orders: they are under way for some passes of the point.
    pub fn order_every(&self) -> Duration {
        Duration::from_millis(match self.point.work {
            Work::Orders | Work::Relay => 8,
            Work::Timers => 25,
            Work::Redrive | Work::Rollout => 40,
            Work::Schedule | Work::Outbox(_) => 60,
        })
    }

    /// The host that is there first has the relay, and the outbox.
    pub fn is_of_the_first(&self) -> bool {
        matches!(self.point.work, Work::Relay | Work::Outbox(_))
    }
}

fn trouble(rng: &mut StdRng) -> Trouble {
    let time = Duration::from_millis(rng.random_range(100..2500));
    match rng.random_range(0..5) {
        0 => Trouble::Cut,
        1 => Trouble::Late(time),
        2 => Trouble::AnswersLate(time),
        3 => Trouble::Lost,
        _ => Trouble::AnswersLost,
    }
}

fn database_trouble(rng: &mut StdRng) -> Option<DatabaseTrouble> {
    let time = Duration::from_millis(rng.random_range(0..2000));
    match rng.random_range(0..5) {
        0 => None,
        1 => Some(DatabaseTrouble::Killed(time)),
        2 => Some(DatabaseTrouble::Stopped(time)),
        3 => Some(DatabaseTrouble::Cut),
        _ => Some(DatabaseTrouble::Silent(time)),
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} round {}: {} at pass {} of {}",
            self.seed,
            self.cell,
            match self.way {
                Way::Killed => "killed".to_owned(),
                Way::Frozen => "frozen".to_owned(),
                Way::CutOff(trouble) => format!("cut off ({trouble:?})"),
            },
            self.nth,
            self.point
        )?;
        match self.server {
            Some(down) => write!(f, ", server killed and down for {down:?}")?,
            None => write!(f, ", a person writes too")?,
        }
        if let Some(times) = self.redrives_max {
            write!(f, ", each letter is redriven {times} times at most")?;
        }
        if let Some(trouble) = self.database {
            write!(f, ", its database {trouble}")?;
        }
        write!(
            f,
            "; {}{}, concurrency {}, {} instances, {} orders",
            if self.blocked { "a target is full, " } else { "" },
            match self.together {
                true => "two hosts",
                false => "one host, then another",
            },
            self.concurrency,
            if self.reused { "reused" } else { "fresh" },
            self.orders.len()
        )
    }
}
