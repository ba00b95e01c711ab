//! The embedded store: Parquet files, hot rows in memory, DataFusion.

pub mod schema;
