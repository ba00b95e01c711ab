//! Accounts and objects of the cluster size: their settings, and how they are opened.

use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "kube")]
use anyhow::Context as _;
use domain::Event;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use sentinel_queue::EventAppender as _;
use sentinel_queue::kafka::KafkaAppender;
use service_kit::Tasks;

use crate::objects::Objects;
use crate::objects::embedded::EmbeddedObjects;
use crate::{AuditSink, Control, ControlConfig, Database, OidcArgs, OidcConfig, RegistryTokens};

/// Who signs tokens for the registry, as its settings call it.
const TOKEN_ISSUER: &str = "mcp-runtime";

/// Where servers, grants and sessions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ObjectsPlace {
    /// In the database, for whoever runs servers from there.
    Database,
    /// As custom resources, which the operator acts on.
    #[cfg(feature = "kube")]
    Kubernetes,
}

/// Settings of accounts and objects. They count only where there is a database.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Platform API")]
pub struct ControlArgs {
    /// Where published servers are reached, such as `https://mcp.example.com`; the route follows.
    #[arg(
        long = "platform-api-servers-url",
        env = "PLATFORM_API_SERVERS_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub servers_url: String,

    /// Where servers, grants and sessions are kept.
    #[arg(
        long = "platform-api-objects",
        env = "PLATFORM_API_OBJECTS",
        hide_env_values = true,
        value_enum,
        default_value = "database",
        value_name = "PLACE"
    )]
    pub objects: ObjectsPlace,

    /// Host of the registry that short image names mean, and whose tokens this API signs.
    #[arg(
        long = "platform-api-registry",
        env = "PLATFORM_API_REGISTRY",
        hide_env_values = true,
        value_name = "HOST"
    )]
    pub registry: Option<String>,

    /// File of the key that tokens for the registry are signed with (P-256, PEM); made when it is not there. Without it, the registry has
    /// no tokens of ours.
    #[arg(
        long = "platform-api-registry-key-file",
        env = "PLATFORM_API_REGISTRY_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub registry_key_file: Option<PathBuf>,

    #[command(flatten)]
    pub oidc: OidcArgs,
}

/// Checked settings.
#[derive(Debug)]
pub(super) struct ControlSettings {
    config: ControlConfig,
    objects: ObjectsPlace,
}

impl TryFrom<ControlArgs> for ControlSettings {
    type Error = anyhow::Error;

    fn try_from(args: ControlArgs) -> anyhow::Result<Self> {
        let service = args.registry.clone().unwrap_or_else(|| "registry".to_owned());
        let tokens = args
            .registry_key_file
            .map(|path| RegistryTokens::open(&path, TOKEN_ISSUER, service));
        Ok(Self {
            config: ControlConfig {
                servers_url: args.servers_url,
                registry: args.registry,
                registry_tokens: tokens.transpose()?,
                oidc: Option::<OidcConfig>::try_from(args.oidc)?,
                ..ControlConfig::default()
            },
            objects: args.objects,
        })
    }
}

impl ControlSettings {
    /// Opens the database, and whatever keeps the objects.
    pub(super) async fn open(self, url: &str, facts: KafkaAppender, tasks: &Tasks) -> anyhow::Result<Control> {
        let database = Database::open(url).await?;
        let objects: Arc<dyn Objects> = match self.objects {
            ObjectsPlace::Database => Arc::new(EmbeddedObjects::open(database.clone()).await?),
            #[cfg(feature = "kube")]
            ObjectsPlace::Kubernetes => {
                let connected = crate::objects::kubernetes::KubernetesObjects::connect(database.clone(), tasks).await;
                Arc::new(connected.context("reaching the API server of Kubernetes")?)
            }
        };
        Ok(Control::new(self.config, database, objects, Arc::new(Facts(facts)), tasks))
    }
}

/// Facts about changes travel as the calls do.
#[derive(Debug)]
struct Facts(KafkaAppender);

impl AuditSink for Facts {
    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), anyhow::Error>> {
        async move { Ok(self.0.append(&events).await?) }.boxed()
    }
}
