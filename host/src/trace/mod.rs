//! Where an event is: what its handler has made of it. Only reads.

pub mod over;
