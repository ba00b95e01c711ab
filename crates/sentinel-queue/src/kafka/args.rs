//! Settings of the Kafka queue: options as people write them, and as checked.

mod config;

use std::path::PathBuf;

pub use config::{AppenderConfig, ConfigError, ConnectionConfig, TailConfig};

/// How clients reach the brokers, and the topics they make when these are missing.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kafka")]
pub struct ConnectionArgs {
    /// Addresses of brokers to begin with, `host:port` with commas between.
    #[arg(
        long = "kafka-brokers",
        env = "KAFKA_BROKERS",
        hide_env_values = true,
        default_value = "kafka:9092",
        value_name = "ADDRESSES"
    )]
    pub brokers: String,

    /// Topic that events travel in.
    #[arg(
        long = "kafka-topic",
        env = "KAFKA_TOPIC",
        hide_env_values = true,
        default_value = "mcp.events",
        value_name = "NAME"
    )]
    pub topic: String,

    /// Topic of records that could not be stored.
    #[arg(
        long = "kafka-dlq-topic",
        env = "KAFKA_DLQ_TOPIC",
        hide_env_values = true,
        default_value = "mcp.events.dlq",
        value_name = "NAME"
    )]
    pub dlq_topic: String,

    /// How connections are protected. The TLS kinds need a build with the feature `kafka-tls`.
    #[arg(long = "kafka-security", env = "KAFKA_SECURITY_PROTOCOL", hide_env_values = true, value_enum, default_value_t = SecurityProtocol::Plaintext, value_name = "PROTOCOL")]
    pub security: SecurityProtocol,

    /// How clients show who they are. The SCRAM kinds need a build with the feature `kafka-tls`.
    #[arg(long = "kafka-sasl-mechanism", env = "KAFKA_SASL_MECHANISM", hide_env_values = true, value_enum, default_value_t = SaslMechanism::Plain, value_name = "MECHANISM")]
    pub sasl_mechanism: SaslMechanism,

    /// Name that clients show.
    #[arg(
        long = "kafka-sasl-username",
        env = "KAFKA_SASL_USERNAME",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub sasl_username: Option<String>,

    /// File with the password that goes with the name; line ends are left out.
    #[arg(
        long = "kafka-sasl-password-file",
        env = "KAFKA_SASL_PASSWORD_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub sasl_password_file: Option<PathBuf>,

    /// File with the certificates that brokers are checked against [default: those of the system].
    #[arg(
        long = "kafka-tls-ca-file",
        env = "KAFKA_TLS_CA_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub tls_ca_file: Option<PathBuf>,

    /// File with the certificate that clients show.
    #[arg(
        long = "kafka-tls-cert-file",
        env = "KAFKA_TLS_CERT_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// File with the key of that certificate.
    #[arg(
        long = "kafka-tls-key-file",
        env = "KAFKA_TLS_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub tls_key_file: Option<PathBuf>,

    /// Milliseconds to wait for brokers and topics when the process starts.
    #[arg(
        long = "kafka-start-timeout-ms",
        env = "KAFKA_START_TIMEOUT_MS",
        hide_env_values = true,
        default_value_t = 30_000,
        value_name = "MS"
    )]
    pub start_timeout_ms: u32,

    /// Whether missing topics are made.
    #[arg(long = "kafka-create-topics", env = "KAFKA_CREATE_TOPICS", hide_env_values = true, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub create_topics: bool,

    /// Partitions of an events topic that is made; no more processors than this can share the work.
    #[arg(
        long = "kafka-partitions",
        env = "KAFKA_PARTITIONS",
        hide_env_values = true,
        default_value_t = 12,
        value_name = "COUNT"
    )]
    pub partitions: u16,

    /// Brokers that keep each record of a topic that is made [default: as the brokers are set up]. From 2 on, an acknowledgement
    /// needs all of them but one.
    #[arg(
        long = "kafka-replicas",
        env = "KAFKA_REPLICAS",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub replicas: Option<u16>,

    /// Hours after which an events topic that is made forgets, processed or not.
    #[arg(
        long = "kafka-retention-hours",
        env = "KAFKA_RETENTION_HOURS",
        hide_env_values = true,
        default_value_t = 168,
        value_name = "HOURS"
    )]
    pub retention_hours: u32,
}

/// Options of the appending side.
#[derive(Debug, Clone, clap::Args)]
pub struct AppenderArgs {
    /// Brokers and topics.
    #[command(flatten)]
    pub connection: ConnectionArgs,

    /// How records are compressed on the wire and on disk.
    #[arg(long = "kafka-compression", env = "KAFKA_COMPRESSION", hide_env_values = true, value_enum, default_value_t = Compression::Lz4, value_name = "KIND")]
    pub compression: Compression,

    /// Milliseconds a record may wait for others to travel with.
    #[arg(
        long = "kafka-linger-ms",
        env = "KAFKA_LINGER_MS",
        hide_env_values = true,
        default_value_t = 5,
        value_name = "MS"
    )]
    pub linger_ms: u32,

    /// Largest record in bytes, before compression. Topic and brokers must take it (`max.message.bytes`).
    #[arg(
        long = "kafka-record-bytes-max",
        env = "KAFKA_RECORD_BYTES_MAX",
        hide_env_values = true,
        default_value_t = 900_000,
        value_name = "BYTES"
    )]
    pub record_bytes_max: usize,

    /// Bytes that may wait for brokers; what comes on top is refused, to be sent again.
    #[arg(long = "kafka-buffer-bytes-max", env = "KAFKA_BUFFER_BYTES_MAX", hide_env_values = true, default_value_t = 128 << 20, value_name = "BYTES")]
    pub buffer_bytes_max: usize,

    /// Milliseconds in which brokers must acknowledge a record. Keep it below the time senders wait.
    #[arg(
        long = "kafka-append-timeout-ms",
        env = "KAFKA_APPEND_TIMEOUT_MS",
        hide_env_values = true,
        default_value_t = 20_000,
        value_name = "MS"
    )]
    pub append_timeout_ms: u32,
}

/// Options of the reading side.
#[derive(Debug, Clone, clap::Args)]
pub struct TailArgs {
    /// Brokers and topics.
    #[command(flatten)]
    pub connection: ConnectionArgs,

    /// Group of the processes that share the work.
    #[arg(
        long = "kafka-group",
        env = "KAFKA_GROUP",
        hide_env_values = true,
        default_value = "mcp-sentinel-processor",
        value_name = "NAME"
    )]
    pub group: String,

    /// Name of this process within the group, such as the name of a stateful pod: a restart within the session timeout then moves
    /// no partition.
    #[arg(
        long = "kafka-group-instance",
        env = "KAFKA_GROUP_INSTANCE",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub group_instance: Option<String>,

    /// Milliseconds of silence after which the group gives this process's partitions to others.
    #[arg(
        long = "kafka-session-timeout-ms",
        env = "KAFKA_SESSION_TIMEOUT_MS",
        hide_env_values = true,
        default_value_t = 30_000,
        value_name = "MS"
    )]
    pub session_timeout_ms: u32,

    /// Milliseconds that events of a partition may wait for others to be stored with. It is added to the time until they are visible.
    #[arg(
        long = "kafka-lease-age-ms-max",
        env = "KAFKA_LEASE_AGE_MS_MAX",
        hide_env_values = true,
        default_value_t = 100,
        value_name = "MS"
    )]
    pub lease_age_ms_max: u32,

    /// Bytes read ahead for each partition, before decoding.
    #[arg(long = "kafka-fetch-bytes-max", env = "KAFKA_FETCH_BYTES_MAX", hide_env_values = true, default_value_t = 8 << 20, value_name = "BYTES")]
    pub fetch_bytes_max: usize,
}

/// How connections to brokers are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SecurityProtocol {
    /// Not at all.
    Plaintext,
    /// TLS.
    Ssl,
    /// Name and password over an open connection.
    #[value(name = "sasl_plaintext", alias = "sasl-plaintext")]
    SaslPlaintext,
    /// Name and password over TLS.
    #[value(name = "sasl_ssl", alias = "sasl-ssl")]
    SaslSsl,
}

/// How clients show who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SaslMechanism {
    /// Name and password as they are.
    #[value(name = "PLAIN", alias = "plain")]
    Plain,
    /// A proof of the password, with SHA-256.
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// A proof of the password, with SHA-512.
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

/// How records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Not at all.
    None,
    /// Quick.
    Lz4,
    /// Smaller.
    Zstd,
}

#[cfg(test)]
mod tests;
