//! ROOM

pub mod advisory;
pub mod dead_lettering;
pub mod delivery;
pub mod dispatch;
pub mod duplicate;
pub mod lane;
pub mod lost;
pub mod malformed;
pub mod record;
pub mod reload;
pub mod replay;
pub mod report;
pub mod serve;
pub mod settle;
pub mod sweep;
pub mod transaction;
