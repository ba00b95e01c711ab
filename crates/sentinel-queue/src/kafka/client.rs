//! What all clients of the brokers share.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::args::{ConnectionConfig, SaslMechanism, SecurityProtocol};

/// Longest pause between attempts to reach a broker that was away.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file with a secret cannot be read.
    #[error("reading {}", path.display())]
    Secret {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client refuses its settings.
    #[error("setting up a client of the brokers {brokers}")]
    Client {
        /// Where they would be.
        brokers: String,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// Nobody answers.
    #[error("reaching the brokers {brokers}; check the addresses, the network, and that name and password are right")]
    Unreachable {
        /// Where they would be.
        brokers: String,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// A topic is not there, and may not or cannot be made.
    #[error("the topic {topic} is not there; make it, or allow it with --kafka-create-topics")]
    Missing {
        /// Which.
        topic: String,
    },
    /// A topic cannot be made.
    #[error("making the topic {topic}")]
    Create {
        /// Which.
        topic: String,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// A topic is not fit for what it is for.
    #[error("the topic {topic} has {setting}={value}, but {wanted}; change one of them")]
    Unfit {
        /// Which.
        topic: String,
        /// What of it.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: String,
    },
    /// A thread could not be started.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
}

impl ConnectError {
    /// Whether waiting may mend it: brokers come back, topics are made. Settings stay as they are.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Missing { .. } | Self::Create { .. })
    }
}

/// Tells our log what the client library has to say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Telling;

impl ClientContext for Telling {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell(&error, reason);
    }
}

impl ConsumerContext for Telling {}

/// Nothing is an error here: whether someone must act is for the caller to say, who knows what the client is for.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "from the kafka client"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, message, "from the kafka client"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "from the kafka client"),
    }
}

pub(super) fn tell(error: &KafkaError, reason: &str) {
    // The one is said again with every attempt to connect, while readiness and those who wait say it once; the other is no trouble.
    let quiet = [RDKafkaErrorCode::AllBrokersDown, RDKafkaErrorCode::PartitionEOF];
    if error.rdkafka_error_code().is_some_and(|code| quiet.contains(&code)) {
        tracing::debug!(%error, reason, "trouble with the brokers");
    } else {
        tracing::warn!(%error, reason, "trouble with the brokers");
    }
}

/// Settings that every client has.
pub(super) fn settings(config: &ConnectionConfig) -> Result<ClientConfig, ConnectError> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "mcp-runtime")
        .set("reconnect.backoff.max.ms", RECONNECT_PAUSE_MAX.as_millis().to_string())
        // Idle connections are closed by brokers all the time; those in use fail the request that waits.
        .set("log.connection.close", "false")
        .set("socket.nagle.disable", "true")
        .set("security.protocol", protocol(config.security))
        .set_log_level(RDKafkaLogLevel::Info);
    if let Some((name, file)) = &config.sasl {
        let password = fs::read_to_string(file).map_err(|source| ConnectError::Secret {
            path: file.clone(),
            source,
        })?;
        settings
            .set("sasl.mechanism", mechanism(config.sasl_mechanism))
            .set("sasl.username", name)
            .set("sasl.password", password.trim_end_matches(['\r', '\n']));
    }
    let mut file = |name: &str, path: &PathBuf| {
        settings.set(name, path.to_string_lossy());
    };
    if let Some(path) = &config.tls_ca_file {
        file("ssl.ca.location", path);
    }
    if let Some((cert, key)) = &config.tls_identity {
        file("ssl.certificate.location", cert);
        file("ssl.key.location", key);
    }
    Ok(settings)
}

fn protocol(protocol: SecurityProtocol) -> &'static str {
    match protocol {
        SecurityProtocol::Plaintext => "plaintext",
        SecurityProtocol::Ssl => "ssl",
        SecurityProtocol::SaslPlaintext => "sasl_plaintext",
        SecurityProtocol::SaslSsl => "sasl_ssl",
    }
}

fn mechanism(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

/// The fault as the seam's errors carry it.
pub(super) fn io_error(error: KafkaError) -> io::Error {
    let kind = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
            io::ErrorKind::TimedOut
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
