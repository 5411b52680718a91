//! Dead letters as a person works with them: which of them are meant, and which of them are the same fault.

pub mod archive;
pub mod condition;
pub mod course;
pub mod discard;
pub mod edit;
pub mod export;
mod filter;
pub mod group;
pub mod meant;
pub mod note;
pub mod pace;
pub mod payload;
pub mod rehearse;
pub mod replay;
pub mod retention;
pub mod select;
pub mod survey;
pub mod telling;
pub mod unserved;
pub mod watch;

pub use filter::Filter;
pub use group::Groups;
