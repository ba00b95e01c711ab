//! Ingest over real HTTP, with a queue that can be told to fail.

mod bodies;
mod harness;
mod keys;
mod limits;
mod service;
