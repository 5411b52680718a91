//! Dead letters as a person works with them: which of them are meant, and which of them are the same fault.

pub mod filter;
pub mod group;
pub mod select;

pub use filter::Filter;
pub use group::Groups;
