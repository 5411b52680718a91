//! One handler at work on this host. `dispatch::handle` is an event's way through it, in one place:
//!
//! 1. `serve` pulls a message and begins the work on it, as long as there is room.
//! 2. `dispatch` asks: is the event here already, is it decided (`ledger`), does it repeat another (`duplicate`)?
//! 3. It waits for the `circuit`, and for an instance (`runner`). From the second delivery on, `record` notes the attempt before it runs.
//! 4. `attempt` runs the handler; `outcome` decides: done, dead, or again after a delay.
//! 5. `transaction` (done) or `dead_lettering` (dead) makes the decision a transaction, which the ledger commits;
//!    `attempt::next` says what follows from that.
//! 6. `conclude` says how the delivery ends, `settle` answers the server, `report` writes the line of the attempt.
//!
//! What comes otherwise: `replay`, `advisory`, `sweep`, `malformed`; `reload` for a changed module file, and `registry` for a module
//! that is promoted.
//!
//! `lane` is all that a handler has on this host, in parts that each function takes as it needs them: `runner` (its module),
//! `links` (its connection), `in_flight` (what is worked on), `counters`, `record`, `dead_lettering`.

pub mod advisory;
mod attempt;
mod attempt_span;
mod behind;
pub mod circuit;
mod conclude;
mod connect;
pub mod counters;
mod dead_lettering;
mod delivery;
mod dispatch;
mod duplicate;
pub mod hindered;
mod in_flight;
pub mod lane;
mod link;
mod links;
mod lost;
mod malformed;
pub mod metrics;
pub mod pauses;
mod postpone;
mod record;
pub mod registry;
pub mod reload;
pub mod replay;
mod report;
pub mod rollout;
pub mod runner;
pub mod serve;
mod settle;
mod source;
pub mod spanned_event;
pub mod suspicion;
mod sweep;
pub mod timers;
pub mod transaction;
