//! What the mesh keeps in streams of its own: dead letters, delayed events, the replays that are asked for, and the attempts
//! at an event.

pub mod attempts;
pub mod dead_letter;
pub mod delayed;
pub mod replay_queue;
