//! The whole stack in one process: gateway, ingest, log, processor, Parquet store and platform API.
