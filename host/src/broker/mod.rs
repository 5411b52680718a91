//! NATS: connections, the JetStream API, streams and consumers, and the pull loop.

mod api;
pub mod batch;
pub mod bucket;
pub mod connection;
pub mod consumer;
mod crowded;
mod denied;
mod dial;
pub mod error;
mod guard;
pub mod kv;
pub mod latch;
pub mod limits;
pub mod login;
mod mapped;
pub mod provision;
pub mod pull;
pub mod recreate;
pub mod scan;
pub mod screen;
pub mod shared;
mod start;
pub mod stored;
pub mod stream;
pub mod tls;
pub mod user;
pub mod wire;

pub use connection::Connection;
pub use dial::open;
pub use error::Error;
pub use guard::open_guarded;
pub use mapped::Captured;
pub use screen::Malformed;
pub use shared::Connections;
pub use stored::{By, Stored};
pub use stream::StreamInfo;
