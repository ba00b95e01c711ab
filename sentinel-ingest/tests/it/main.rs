//! Ingest over real HTTP, with a queue that can be told to fail.

mod bodies;
#[cfg(test)]
mod harness;
mod keys;
mod limits;
#[cfg(test)]
mod otlp;
mod service;
