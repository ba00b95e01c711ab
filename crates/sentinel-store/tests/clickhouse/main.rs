//! The store on a real ClickHouse engine.

mod contract;
mod engine;
