//! The API as its callers see it, over an in-memory store and a system that only pretends.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "helpers of tests may stop at the first surprise, as tests do; a story of one thing is told in one piece"
)]

mod access;
mod adapter;
mod alerts;
mod bounds;
mod control;
mod database;
mod described;
mod events;
mod follow;
mod identity;
#[cfg(feature = "kube")]
mod kubernetes;
mod matrix;
mod oidc;
mod policy;
mod reference;
mod registry;
mod servers;
mod strangers;
mod tools;
mod world;
