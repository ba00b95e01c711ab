//! The store on a real ClickHouse engine.

mod contract;
mod engine;
mod faults;
mod migrations;
mod proxy;
mod sql;
