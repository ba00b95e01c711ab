//! The programs of the cluster size as processes, on a real Kafka and a real ClickHouse engine.

#[cfg(test)]
mod dashboards;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod harness;
