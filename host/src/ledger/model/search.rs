//! The search: stateright visits every state within the bounds and looks at the invariants; each edge that it goes is
//! written down, and a pass back over them says whether from every state some path leads to the end of all work. (Its
//! own `eventually` takes a state that is reached twice for a way out.)

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::bounds::{Bounds, bounds};
use super::steps::Step;
use super::world::{Broken, World};

/// Beyond this number of states a search is cut short; then it proves nothing.
const STATES_MAX: usize = 20_000_000;

/// The usual bounds, changed.
pub fn with(name: &'static str, change: impl FnOnce(&mut Bounds)) -> Bounds {
    let mut bounds = bounds(name);
    change(&mut bounds);
    bounds
}

/// Within these bounds every invariant holds, and from every state some path leads to the end of all work.
pub fn holds(bounds: Bounds) {
    let report = search(bounds, STATES_MAX);
    println!(
        "{}: {} states, {} steps, depth {}",
        report.name, report.states, report.edges, report.depth
    );
    assert!(
        report.broken.is_none() && report.stuck.is_none() && report.whole,
        "{report:#?}"
    );
}

/// Within these bounds something is wrong.
pub fn found(bounds: Bounds) {
    let report = search(bounds, STATES_MAX);
    assert!(report.broken.is_some() || report.stuck.is_some(), "{report:#?}");
}

/// What a search has found.
#[derive(Debug)]
struct Report {
    name: &'static str,
    states: usize,
    edges: usize,
    depth: usize,
    /// A shortest way to a state that must not be.
    broken: Option<(Broken, Vec<Step>)>,
    /// A state from which no path leads to the end of all work.
    stuck: Option<u64>,
    whole: bool,
}

struct ModelSearched {
    bounds: Bounds,
    graph: Mutex<Graph>,
}

#[derive(Default)]
struct Graph {
    edges: Vec<(u64, u64)>,
    settled: HashSet<u64>,
}

impl Model for ModelSearched {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.steps(&self.bounds, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let after = world.after(&self.bounds, step);
        if after == *world {
            return None;
        }
        let mut graph = self.graph.lock().expect("no search panics with it");
        graph.edges.push((world.fingerprint, after.fingerprint));
        if after.is_settled(&self.bounds) {
            graph.settled.insert(after.fingerprint);
        }
        Some(after)
    }

    fn properties(&self) -> Vec<Property<ModelSearched>> {
        vec![Property::always("every invariant holds", |_, world: &World| {
            world.broken.is_none()
        })]
    }
}

/// Looks at every state within the bounds, at most this number.
fn search(bounds: Bounds, states_max: usize) -> Report {
    let name = bounds.name;
    let model = ModelSearched {
        bounds,
        graph: Mutex::default(),
    };
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::Any)
        .target_state_count(states_max);
    let checker = checker.spawn_bfs().join();
    let states = checker.unique_state_count();
    let depth = checker.max_depth();
    let whole = checker.is_done() && checker.state_count() < states_max;
    let broken = checker.discoveries().into_values().next().map(|path| {
        let broken = path.last_state().broken.unwrap_or(Broken::Unexpected);
        (broken, path.into_actions())
    });
    let graph = std::mem::take(&mut *checker.model().graph.lock().expect("the search is over"));
    let edges = graph.edges.len();
    let stuck = if broken.is_none() && whole { stuck(graph) } else { None };
    Report {
        name,
        states,
        edges,
        depth,
        broken,
        stuck,
        whole,
    }
}

/// A state from which no path leads to a settled one.
fn stuck(graph: Graph) -> Option<u64> {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut before: Vec<Vec<u32>> = Vec::new();
    let mut place = |state: u64, before: &mut Vec<Vec<u32>>| {
        let next = places.len();
        *places.entry(state).or_insert_with(|| {
            before.push(Vec::new());
            next
        })
    };
    for (from, to) in graph.edges {
        let (from, to) = (place(from, &mut before), place(to, &mut before));
        before[to].push(u32::try_from(from).expect("fewer states"));
    }
    let mut reaches = vec![false; before.len()];
    let mut open: Vec<usize> = graph
        .settled
        .iter()
        .filter_map(|state| places.get(state).copied())
        .collect();
    open.iter().for_each(|at| reaches[*at] = true);
    while let Some(at) = open.pop() {
        for from in &before[at] {
            let from = *from as usize;
            if !std::mem::replace(&mut reaches[from], true) {
                open.push(from);
            }
        }
    }
    places.iter().find(|(_, at)| !reaches[**at]).map(|(state, _)| *state)
}
