//! What a person tells the mesh to do, apart from its dead letters (`dlq`): each function does it and returns what has become of it.
//! Commands print that.

pub mod audit;
pub mod delayed;
pub mod modules;
pub mod pause;
pub mod person;
pub mod retrying;
pub mod schedule;
