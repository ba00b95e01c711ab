//! The programs of the cluster size as processes, on a real Kafka and a real ClickHouse engine.

mod faults;
mod flow;
mod harness;
