//! Queue into the store, each event counted once.
