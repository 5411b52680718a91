//! ROOM

pub mod drain;
pub mod limits;
pub mod panics;
pub mod telemetry;
