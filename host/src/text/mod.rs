//! Texts that people read: fit for a terminal, without secrets, and told apart by what they say.

pub mod display;
pub mod normalise;
pub mod secret;
