//! What a person does to the registry of modules: push a version, sign it, promote it, go back, hold a name, and remove old versions.

mod change;
mod hosts;
mod push;
mod rehearse;
mod rollout;

pub use self::change::{ChangeOrder, ModuleChange, ModuleChanged, change, recorded_change};
pub use self::push::{
    ModulePushed, ORIGIN_LABELS, PrunedModules, PushOrder, PushedFrom, prune, push, recorded_prune, recorded_push, sign,
};
pub use self::rehearse::{ModuleRehearsed, rehearse};
pub use self::rollout::RolloutOrder;
use crate::broker;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A person has to do it in another way; says how.
    #[error("{0}")]
    Person(String),
    #[error(transparent)]
    Broker(#[from] broker::Error),
}
