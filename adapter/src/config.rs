//! What both adapters are told.

use std::time::Duration;

/// How an adapter deals with its server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Longest silence while an answer is owed. Open streams may be silent for ever.
    pub answer_idle_max: Duration,
    /// How long a request waits for a server that cannot be connected to, for platforms restart.
    pub reconnect_max: Duration,
    /// Whether the session is renewed ahead of its end.
    pub auto_refresh: bool,
    /// `Host` to send instead of that of the endpoint.
    pub host_header: Option<http::HeaderValue>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            answer_idle_max: Duration::from_mins(15),
            reconnect_max: Duration::from_secs(15),
            auto_refresh: false,
            host_header: None,
        }
    }
}
