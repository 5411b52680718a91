//! ROOM

pub mod display;
pub mod secret;
