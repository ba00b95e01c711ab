//! The parts of `make bench`.

pub mod gateway;
pub mod ingest;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod standalone;
