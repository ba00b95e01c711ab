//! Checked settings.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{AppenderArgs, Compression, ConnectionArgs, SaslMechanism, SecurityProtocol, TailArgs};

/// A setting cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number is out of its range.
    #[error("{option} must be {} to {}, got {got}", range.start(), range.end())]
    Range {
        /// Which.
        option: &'static str,
        /// What would be right.
        range: RangeInclusive<u64>,
        /// What it is.
        got: u64,
    },
    /// A name cannot be one.
    #[error("{option} must be {expected}, got `{got}`")]
    Name {
        /// Which.
        option: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// Two options go together.
    #[error("{option} needs {other} as well")]
    Needs {
        /// Which is given.
        option: &'static str,
        /// Which is missing.
        other: &'static str,
    },
    /// This build cannot.
    #[error("{option} needs a build with the feature `kafka-tls`")]
    Build {
        /// Which.
        option: &'static str,
    },
}

/// How to reach brokers, checked.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) dlq_topic: String,
    pub(crate) security: SecurityProtocol,
    pub(crate) sasl_mechanism: SaslMechanism,
    pub(crate) sasl: Option<(String, PathBuf)>,
    pub(crate) tls_ca_file: Option<PathBuf>,
    pub(crate) tls_identity: Option<(PathBuf, PathBuf)>,
    pub(crate) start_timeout: Duration,
    pub(crate) create_topics: bool,
    pub(crate) partitions: u16,
    pub(crate) replicas: Option<u16>,
    pub(crate) retention: Duration,
}

/// The appending side, checked.
#[derive(Debug, Clone)]
pub struct AppenderConfig {
    pub(crate) connection: ConnectionConfig,
    pub(crate) compression: Compression,
    pub(crate) linger: Duration,
    pub(crate) record_bytes_max: usize,
    pub(crate) buffer_bytes_max: usize,
    pub(crate) append_timeout: Duration,
}

/// The reading side, checked.
#[derive(Debug, Clone)]
pub struct TailConfig {
    pub(crate) connection: ConnectionConfig,
    pub(crate) group: String,
    pub(crate) group_instance: Option<String>,
    pub(crate) session_timeout: Duration,
    pub(crate) lease_age_max: Duration,
    pub(crate) fetch_bytes_max: usize,
}

impl ConnectionConfig {
    /// Name of the topic of events.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

impl AppenderConfig {
    /// The brokers and topics of these settings, for others that use the same.
    pub fn connection(&self) -> &ConnectionConfig {
        &self.connection
    }
}

impl TailConfig {
    /// Name of the group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The brokers and topics of these settings, for others that use the same.
    pub fn connection(&self) -> &ConnectionConfig {
        &self.connection
    }
}

fn within(option: &'static str, range: RangeInclusive<u64>, got: u64) -> Result<u64, ConfigError> {
    if range.contains(&got) {
        Ok(got)
    } else {
        Err(ConfigError::Range { option, range, got })
    }
}

fn millis(option: &'static str, range: RangeInclusive<u64>, got: u32) -> Result<Duration, ConfigError> {
    within(option, range, got.into()).map(Duration::from_millis)
}

fn bytes(option: &'static str, range: RangeInclusive<u64>, got: usize) -> Result<usize, ConfigError> {
    within(option, range, got as u64).map(|_| got)
}

fn topic(option: &'static str, got: String) -> Result<String, ConfigError> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=249).contains(&got.len()) && got != "." && got != ".." && got.bytes().all(sound) {
        return Ok(got);
    }
    Err(ConfigError::Name {
        option,
        expected: "1 to 249 letters, digits, `.`, `_` or `-`",
        got,
    })
}

impl TryFrom<ConnectionArgs> for ConnectionConfig {
    type Error = ConfigError;

    fn try_from(args: ConnectionArgs) -> Result<Self, ConfigError> {
        if args.brokers.trim().is_empty() {
            return Err(ConfigError::Name {
                option: "--kafka-brokers",
                expected: "addresses, `host:port` with commas between",
                got: args.brokers,
            });
        }
        let (sasl, tls_identity) = (sasl(&args)?, tls_identity(&args)?);
        Ok(Self {
            topic: topic("--kafka-topic", args.topic)?,
            dlq_topic: topic("--kafka-dlq-topic", args.dlq_topic)?,
            brokers: args.brokers,
            security: args.security,
            sasl_mechanism: args.sasl_mechanism,
            sasl,
            tls_ca_file: args.tls_ca_file,
            tls_identity,
            start_timeout: millis("--kafka-start-timeout-ms", 100..=3_600_000, args.start_timeout_ms)?,
            create_topics: args.create_topics,
            partitions: within("--kafka-partitions", 1..=10_000, args.partitions.into()).map(|_| args.partitions)?,
            replicas: args.replicas.filter(|replicas| *replicas > 0),
            retention: Duration::from_hours(within("--kafka-retention-hours", 1..=876_000, args.retention_hours.into())?),
        })
    }
}

fn sasl(args: &ConnectionArgs) -> Result<Option<(String, PathBuf)>, ConfigError> {
    let tls = matches!(args.security, SecurityProtocol::Ssl | SecurityProtocol::SaslSsl);
    if tls && !cfg!(feature = "kafka-tls") {
        return Err(ConfigError::Build {
            option: "--kafka-security",
        });
    }
    if !matches!(args.security, SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl) {
        return Ok(None);
    }
    if args.sasl_mechanism != SaslMechanism::Plain && !cfg!(feature = "kafka-tls") {
        return Err(ConfigError::Build {
            option: "--kafka-sasl-mechanism",
        });
    }
    let needs = |other| ConfigError::Needs {
        option: "--kafka-security",
        other,
    };
    let name = args.sasl_username.clone().ok_or_else(|| needs("--kafka-sasl-username"))?;
    let file = args
        .sasl_password_file
        .clone()
        .ok_or_else(|| needs("--kafka-sasl-password-file"))?;
    Ok(Some((name, file)))
}

fn tls_identity(args: &ConnectionArgs) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let needs = |option, other| Err(ConfigError::Needs { option, other });
    match (args.tls_cert_file.clone(), args.tls_key_file.clone()) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (Some(_), None) => needs("--kafka-tls-cert-file", "--kafka-tls-key-file"),
        (None, Some(_)) => needs("--kafka-tls-key-file", "--kafka-tls-cert-file"),
    }
}

impl TryFrom<AppenderArgs> for AppenderConfig {
    type Error = ConfigError;

    fn try_from(args: AppenderArgs) -> Result<Self, ConfigError> {
        Ok(Self {
            connection: args.connection.try_into()?,
            compression: args.compression,
            linger: millis("--kafka-linger-ms", 0..=10_000, args.linger_ms)?,
            record_bytes_max: bytes("--kafka-record-bytes-max", 1_024..=64 << 20, args.record_bytes_max)?,
            buffer_bytes_max: bytes("--kafka-buffer-bytes-max", 1 << 20..=2 << 30, args.buffer_bytes_max)?,
            append_timeout: millis("--kafka-append-timeout-ms", 100..=3_600_000, args.append_timeout_ms)?,
        })
    }
}

impl TryFrom<TailArgs> for TailConfig {
    type Error = ConfigError;

    fn try_from(args: TailArgs) -> Result<Self, ConfigError> {
        Ok(Self {
            connection: args.connection.try_into()?,
            group: args.group,
            group_instance: args.group_instance.filter(|name| !name.is_empty()),
            session_timeout: millis("--kafka-session-timeout-ms", 1_000..=3_600_000, args.session_timeout_ms)?,
            lease_age_max: millis("--kafka-lease-age-ms-max", 0..=60_000, args.lease_age_ms_max)?,
            fetch_bytes_max: bytes("--kafka-fetch-bytes-max", 64 << 10..=1 << 30, args.fetch_bytes_max)?,
        })
    }
}
