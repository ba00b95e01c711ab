//! Ingest as a process of its own, into Kafka: its arguments, and how it starts.

use anyhow::Context as _;
use sentinel_queue::EventAppender;
use sentinel_queue::kafka::{AppenderArgs, AppenderConfig, ConnectError, KafkaAppender};
use service_kit::{ProcessArgs, Tasks, reach};

use crate::keys::Senders;
use crate::oidc::{Oidc, OidcArgs};
use crate::{Args, Config, KeyRing};

/// Takes events about MCP calls over HTTP and appends them to Kafka. Any number of these processes share the work.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sentinel-ingest", version)]
pub struct Command {
    #[command(flatten)]
    pub ingest: Args,
    #[command(flatten)]
    pub tokens: OidcArgs,
    #[command(flatten)]
    pub kafka: AppenderArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Everything checked and bound, before brokers are reached.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    senders: Senders,
    listener: tokio::net::TcpListener,
    kafka: AppenderConfig,
}

impl Bound {
    /// Checks all settings, binds both addresses, and answers `/live` and `/ready` from then on.
    pub fn new(args: Command, tasks: &Tasks) -> anyhow::Result<Self> {
        let config = Config::try_from(&args.ingest)?;
        let kafka = AppenderConfig::try_from(args.kafka)?;
        let senders = Senders::new(KeyRing::open(&args.ingest.keys_file), Oidc::from_args(&args.tokens)?);
        let listener = service_kit::http::bind(args.ingest.listen)?;
        let admin = service_kit::http::bind(args.ingest.admin_listen)?;
        service_kit::health::serve_admin(admin, tasks).context("serving health and metrics")?;
        Ok(Self {
            config,
            senders,
            listener,
            kafka,
        })
    }

    /// The queue, once the brokers are there. `/ready` says what is waited for.
    pub async fn open_queue(&self, tasks: &Tasks) -> Result<KafkaAppender, ConnectError> {
        let open = async || KafkaAppender::connect(self.kafka.clone()).await;
        let (appender, flag) = reach("brokers", tasks, ConnectError::passes, open).await?;
        // From here on every append tells how the queue is.
        flag.dismiss();
        Ok(appender)
    }

    /// Serves senders until the process is told to stop.
    pub fn serve<A: EventAppender>(self, appender: A, tasks: &Tasks) -> anyhow::Result<()> {
        crate::serve(self.config, self.listener, appender, self.senders, tasks).context("serving senders")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn help_is_as_agreed() {
        insta::assert_snapshot!(Command::command().term_width(100).render_long_help());
    }

    #[test]
    fn an_issuer_without_an_audience_is_refused() {
        let args = ["sentinel-ingest", "--ingest-oidc-issuer", "https://id.example.com"];
        let error = Command::try_parse_from(args).unwrap_err().to_string();
        assert!(error.contains("--ingest-oidc-audience"), "{error}");
    }
}
