//! A model of the mesh around the host's own ledger: the same `Book`, with a server, a network, handlers and a relay that
//! are a few lines each, searched state by state. `decisions/0001-ledger.md` tells the invariants.

mod bounds;
mod commit;
mod fingerprint;
mod judge;
mod lane;
mod large;
mod mistakes;
mod program;
mod relay;
mod search;
mod server;
mod steps;
mod tests;
mod world;
