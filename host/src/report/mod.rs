//! How the mesh stands, as data: what commands print with `--json`, and what the console shows. The types are also the schemas.

pub mod letters;
pub mod next_due;
pub mod outbox;
pub mod redrive;
pub mod rehearsal;
pub mod replay;
pub mod retrying;
pub mod sample;
pub mod schedule;
pub mod status;
pub mod trace;
pub mod whereabouts;
