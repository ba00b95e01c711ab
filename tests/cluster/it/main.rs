//! The programs of the cluster size as processes, on a real Kafka and a real ClickHouse engine.

mod dashboards;
mod deploy;
mod faults;
mod flow;
mod harness;
