//! The API as its callers see it, over an in-memory store and a system that only pretends.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may stop at the first surprise, as tests do"
)]

mod access;
mod bounds;
mod described;
mod events;
mod follow;
mod world;
