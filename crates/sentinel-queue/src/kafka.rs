//! Apache Kafka: a queue of many partitions for many processes.
//!
//! # In the topic
//!
//! A record holds events of one namespace and server as newline-delimited JSON, one event in its wire form a line, so that ClickHouse's
//! own Kafka engine (`JSONEachRow`) and any other consumer can read the topic.
//!
//! ```text
//! key       namespace/server, which also picks the partition (murmur2, as Java's clients do)
//! value     lines
//! headers   schema "1" | content-type "application/x-ndjson" | count "17" | traceparent of the first event that has one
//! ```
//!
//! # Offsets
//!
//! Kafka counts records, this crate's seam counts events. An offset of the seam is the record's offset in the upper 48 bits and the
//! event's line in the lower 16: it names the same event whoever reads, from wherever, as often as they like. Offsets rise, with holes.
//!
//! # The group's position
//!
//! The group's committed offset is the record that holds the first event which is not yet final. Its metadata says the rest:
//!
//! ```text
//! "1;" line in that record, hex ";" claims: ends of leases handed out and not final, each as the hex distance from the one before
//! ```
//!
//! A lease is claimed there before it is handed out, and whoever reads the partition next hands it out with the same span. A store
//! that refuses to take the same span twice therefore counts each event once, whatever dies in between. The claim is also the fence:
//! a process that lost the partition cannot make it, so it gets nothing more to store.

mod appender;
mod args;
mod client;
mod dead_letters;
mod position;
mod record;
mod tail;
mod topic;
mod view;

pub use appender::KafkaAppender;
pub use args::{
    AppenderArgs, AppenderConfig, Compression, ConfigError, ConnectionArgs, ConnectionConfig, SaslMechanism, SecurityProtocol,
    TailArgs, TailConfig,
};
pub use client::ConnectError;
pub use dead_letters::KafkaDeadLetters;
pub use tail::KafkaTail;
pub use view::{KafkaView, ViewError};
