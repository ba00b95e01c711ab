//! The queue between ingest and processor: the contract, an in-memory reference, an embedded log.
