//! Where a sidecar's policy comes from: a file, a stream, or both.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use service_kit::Tasks;
use tokio::time::timeout;

use super::intake::{Intake, Order};
use super::{PolicyCell, PolicyStreamConfig, file, stream};

/// How long a start waits for the stream before it believes the file, which may not know the newest revocations.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Where the policy is waited for.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PolicyStreamArgs {
    /// Where the operator hands out the policy as soon as it changes. The policy file is then what is fallen back on.
    #[arg(long, env = "POLICY_URL", hide_env_values = true, value_name = "URL")]
    pub policy_url: Option<Uri>,

    /// File with the token that the operator knows this gateway by. It is read for each request.
    #[arg(
        long,
        env = "POLICY_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE",
        requires = "policy_url"
    )]
    pub policy_token_file: Option<PathBuf>,

    /// File with the authorities that the operator's certificate is believed by, as PEM; those of the web when not given.
    #[arg(
        long,
        env = "POLICY_CA_FILE",
        hide_env_values = true,
        value_name = "FILE",
        requires = "policy_url"
    )]
    pub policy_ca_file: Option<PathBuf>,
}

/// Where the policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    pub file: Option<PathBuf>,
    pub stream: Option<PolicyStreamConfig>,
    /// How long the last good policy stays in force when there is no other; `None`: for ever.
    pub age_max: Option<Duration>,
}

impl PolicyConfig {
    /// `None` when there is neither file nor stream. An address must be `https`, or on this machine: a policy that somebody could change
    /// on its way is none, and a token that somebody could read is lost.
    pub fn of(file: Option<PathBuf>, args: PolicyStreamArgs, age_max: Option<Duration>) -> Result<Option<Self>, Uri> {
        if let Some(url) = &args.policy_url {
            let is_here = matches!(url.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
            if !(url.scheme_str() == Some("https") && url.host().is_some() || url.scheme_str() == Some("http") && is_here) {
                return Err(url.clone());
            }
        }
        let stream = args.policy_url.map(|url| PolicyStreamConfig {
            url,
            token: args.policy_token_file,
            authorities: args.policy_ca_file,
        });
        Ok((file.is_some() || stream.is_some()).then_some(Self { file, stream, age_max }))
    }
}

/// Puts the policy in force, now and whenever it changes. Until there is one, everything is refused, and the process is not ready.
pub async fn watch_policy(config: PolicyConfig, cell: PolicyCell, tasks: &Tasks) {
    let order = match config.stream {
        Some(_) => Order::ByTime,
        None => Order::AsTheyCome,
    };
    let intake = Intake::new(cell, order, config.age_max, tasks);
    if let Some(stream) = config.stream {
        let mut first = stream::follow(stream, config.age_max, intake.clone(), tasks);
        if config.file.is_some() {
            let _late = timeout(FIRST_ANSWER_WITHIN, first.wait_for(|answered| *answered)).await;
        }
    }
    if let Some(path) = config.file {
        file::watch(path, intake, tasks).await;
    }
}
