//! The store on a real ClickHouse engine.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod migrations;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod sql;
