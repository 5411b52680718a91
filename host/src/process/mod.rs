//! The process: its shutdown, its panics, its log, and what the operating system lets it have.

pub mod drain;
pub mod heartbeat;
pub mod limits;
pub mod logged_event;
pub mod panics;
pub mod service;
pub mod telemetry;
