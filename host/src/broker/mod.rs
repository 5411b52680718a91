//! NATS: connections, the JetStream API, streams and consumers, and the pull loop.

pub mod connection;
pub mod consumer;
pub mod provision;
pub mod pull;
pub mod scan;

pub use connection::{By, Connection, Error, Stored, open};
