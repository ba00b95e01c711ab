//! The parts of `make bench`.

pub mod gateway;
pub mod ingest;
pub mod standalone;
