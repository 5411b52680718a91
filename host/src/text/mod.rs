//! Texts that people read: printable on a terminal, without secrets, fit for a shell, and compared without their names and
//! numbers.

pub mod display;
pub mod normalise;
pub mod secret;
pub mod shell;
