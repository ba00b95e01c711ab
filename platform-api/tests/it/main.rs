//! The API as its callers see it, over an in-memory store and a system that only pretends.

mod access;
mod bounds;
mod described;
mod events;
mod follow;
mod world;
