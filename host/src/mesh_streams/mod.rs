//! What the mesh keeps in streams of its own: dead letters, delayed events, the replays that are asked for, the attempts at an
//! event, which handlers are paused, what people note, what they have done, and the registry of modules.

pub mod attempts;
pub mod audit;
pub mod dead_letter;
pub mod delayed;
pub mod modules;
pub mod notes;
pub mod pauses;
pub mod replay_queue;
