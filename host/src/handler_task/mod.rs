//! One handler at work on this host. An event's way through it, in order:
//!
//! 1. `serve` pulls a message and begins the work on it, as long as there is room.
//! 2. `dispatch` asks: is the event here already, is it decided (`ledger`), does it repeat another (`duplicate`)?
//! 3. It waits for an instance. From the second delivery on, `record` notes the attempt before it runs.
//! 4. `wasm::module` runs the handler; `outcome` decides: done, dead, or again after a delay.
//! 5. `transaction` (done) or `dead_lettering` (dead) makes the decision a transaction, which the ledger commits.
//! 6. `settle` answers the server; `report` writes the line of the attempt.
//!
//! What comes otherwise: `replay`, `advisory`, `sweep`, `malformed`, and `reload` for a changed module. `lane` is what a handler
//! has on this host, which all of these share.

pub mod advisory;
mod behind;
mod dead_lettering;
mod delivery;
mod dispatch;
mod duplicate;
pub mod hindered;
pub mod lane;
mod link;
mod lost;
mod malformed;
mod postpone;
mod record;
pub mod reload;
mod replay;
mod report;
pub mod serve;
mod settle;
pub mod suspicion;
mod sweep;
pub mod transaction;
