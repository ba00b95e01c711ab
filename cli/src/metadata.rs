//! `.mcp` metadata: the short form of a server's description, as people keep it beside their code.
//!
//! Decoding is strict: a misspelt key is a fault with file, line and the key that was probably meant. Nothing is written back but the
//! lines that must change, so that comments and order stay.

use std::path::{Path, PathBuf};

use crds::McpServerSpec;
use crds::server::{
    AnalyticsSpec, AuthSpec, CatalogEntry, EnvVar, GatewaySpec, PolicySpec, Resources, RolloutSpec, SecretEnvVar, SessionSpec,
    ToolSpec,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{Exit, Fault};

mod edit;

pub(crate) use edit::{put_entry, set_fields};

/// The only version there is.
const VERSION: &str = "v1";
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Keys further apart than this are not offered as what was meant.
const SIMILARITY_MIN: f64 = 0.8;

/// A file of metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    /// `v1`.
    #[serde(default = "version")]
    pub(crate) version: String,
    /// The servers.
    #[serde(default)]
    pub(crate) servers: Vec<Entry>,
}

fn version() -> String {
    VERSION.to_owned()
}

/// Whom a server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// One's team
    #[serde(alias = "Tenant", alias = "TENANT")]
    Tenant,
    /// Everybody with an account
    #[serde(alias = "Org", alias = "ORG")]
    Org,
    /// Everybody
    #[serde(alias = "Public", alias = "PUBLIC")]
    Public,
}

impl Scope {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Org => "org",
            Self::Public => "public",
        }
    }
}

/// One server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Entry {
    /// Name of the server: lower-case letters, digits and hyphens.
    pub(crate) name: String,
    /// One sentence for the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Image repository; the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// Image tag; `latest` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_tag: Option<String>,
    /// Whom it is for; your team when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Scope>,
    /// Public path, such as `/payments/mcp` or `/payments`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// First part of the public path; wins over `route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) public_path_prefix: Option<String>,
    /// Host of the public address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ingress_host: Option<String>,
    /// Class of the Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ingress_class: Option<String>,
    /// Port the server listens on; 8088 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Port of the Service; 80 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_port: Option<u16>,
    /// Pods wanted; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replicas: Option<u32>,
    /// Namespace; follows from the scope when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// Owning team; follows from the namespace when absent.
    #[serde(default, rename = "teamID", skip_serializing_if = "Option::is_none")]
    pub(crate) team_id: Option<String>,
    /// Program to run instead of the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    /// Folder the program runs in; the image's own when absent. On a laptop, `server deploy` fills in the folder beside the metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) working_dir: Option<String>,
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) image_pull_secrets: Vec<String>,
    /// Requests and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Resources>,
    /// Environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env_vars: Vec<EnvVar>,
    /// Environment from Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) secret_env_vars: Vec<SecretEnvVar>,
    /// Tools, with what they do to the world.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tools: Vec<ToolSpec>,
    /// Prompts of the catalogue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) prompts: Vec<CatalogEntry>,
    /// Resources of the catalogue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mcp_resources: Vec<CatalogEntry>,
    /// Tasks of the catalogue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tasks: Vec<CatalogEntry>,
    /// How callers are identified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auth: Option<AuthSpec>,
    /// What the policy does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicySpec>,
    /// Whether callers need a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<SessionSpec>,
    /// The gateway before the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<GatewaySpec>,
    /// Recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) analytics: Option<AnalyticsSpec>,
    /// How new revisions come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<RolloutSpec>,
}

impl Entry {
    /// First part of the public path.
    fn prefix(&self) -> String {
        let route = self.route.as_deref().map(|route| route.trim_matches('/'));
        let route = route.map(|route| route.strip_suffix("/mcp").unwrap_or(route));
        let prefix = self
            .public_path_prefix
            .as_deref()
            .map(|prefix| prefix.trim_matches('/'))
            .or(route);
        prefix.filter(|prefix| !prefix.is_empty()).unwrap_or(&self.name).to_owned()
    }

    /// The spec that a manifest or a publication carries.
    pub(crate) fn spec(&self) -> McpServerSpec {
        let reached = self.gateway.as_ref().is_some_and(|gateway| gateway.upstream_url.is_some());
        let image = self
            .image
            .clone()
            .or_else(|| (!reached && self.command.is_empty()).then(|| self.name.clone()));
        McpServerSpec {
            team_id: self.team_id.clone(),
            description: self.description.clone(),
            image_tag: self
                .image_tag
                .clone()
                .or_else(|| image.is_some().then(|| "latest".to_owned())),
            image,
            image_pull_secrets: self.image_pull_secrets.clone(),
            command: self.command.clone(),
            args: self.args.clone(),
            working_dir: self.working_dir.clone(),
            replicas: self.replicas,
            port: self.port,
            service_port: self.service_port,
            public_path_prefix: Some(self.prefix()),
            ingress_host: self.ingress_host.clone(),
            ingress_class: self.ingress_class.clone(),
            resources: self.resources.clone(),
            env_vars: self.env_vars.clone(),
            secret_env_vars: self.secret_env_vars.clone(),
            // Calls that nobody judges and records are what one asks for, not what one gets by leaving a line out.
            gateway: Some(self.gateway.clone().unwrap_or(GatewaySpec {
                enabled: true,
                ..GatewaySpec::default()
            })),
            analytics: self.analytics.clone(),
            auth: self.auth.clone(),
            policy: self.policy.clone(),
            session: self.session.clone(),
            tools: self.tools.clone(),
            prompts: self.prompts.clone(),
            mcp_resources: self.mcp_resources.clone(),
            tasks: self.tasks.clone(),
            rollout: self.rollout.clone(),
            ..McpServerSpec::default()
        }
    }

    /// Namespace of a manifest, which no service fills in.
    pub(crate) fn manifest_namespace(&self) -> &str {
        match (self.namespace.as_deref(), self.scope) {
            (Some(namespace), _) => namespace,
            (None, Some(Scope::Org)) => "mcp-servers-org",
            (None, Some(Scope::Public)) => "mcp-servers-public",
            (None, Some(Scope::Tenant) | None) => "mcp-servers",
        }
    }
}

/// An entry and the file it is in.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) entry: Entry,
}

/// Reads text of a file.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Metadata, Fault> {
    let metadata: Metadata = serde_saphyr::from_str(text).map_err(|error| {
        let options = serde_saphyr::render_options! { snippets: serde_saphyr::SnippetMode::Off };
        let message = error.render_with_options(options);
        let message = message
            .get(..message.rfind(" at line ").unwrap_or(message.len()))
            .unwrap_or_default();
        let place = error
            .location()
            .map_or_else(String::new, |location| format!(":{}", location.line()));
        let (message, hint) = nearest(message);
        let fault = Fault::new(Exit::Usage, format!("{}{place}: {message}", path.display()));
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault.hint("the schema is printed by `mcp-runtime server schema`"),
        }
    })?;
    if metadata.version != VERSION {
        return Err(Fault::new(
            Exit::Usage,
            format!("{}: version is {:?}, expected {VERSION:?}", path.display(), metadata.version),
        ));
    }
    Ok(metadata)
}

/// A fault about an unknown word, with the known one that is most like it.
fn nearest(message: &str) -> (String, Option<String>) {
    let Some((start, known)) = message
        .split_once(", expected ")
        .filter(|(start, _)| start.contains("unknown"))
    else {
        return (message.to_owned(), None);
    };
    let wrong = start.split('`').nth(1).unwrap_or_default();
    let names = known
        .trim_start_matches("one of ")
        .split(", ")
        .map(|name| name.trim_matches('`'));
    let scored = names.map(|name| (strsim::jaro_winkler(name, wrong), name));
    let best = scored
        .filter(|(score, _)| *score >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((_, name)) => (start.to_owned(), Some(format!("did you mean `{name}`?"))),
        None => (message.to_owned(), None),
    }
}

/// Every entry of a file, or of all `.yaml` and `.yml` files of a folder. A name that comes twice is a fault.
pub(crate) fn read(folder: &Path, file: Option<&Path>) -> Result<Vec<Found>, Fault> {
    let paths = match file {
        Some(file) => vec![file.to_owned()],
        None => files(folder)?,
    };
    let mut found: Vec<Found> = Vec::new();
    for path in paths {
        let metadata = parse(&path, &read_text(&path)?)?;
        for entry in metadata.servers {
            if let Some(first) = found.iter().find(|other| other.entry.name == entry.name) {
                return Err(Fault::new(
                    Exit::Usage,
                    format!(
                        "the server `{}` is in {} and again in {}",
                        entry.name,
                        first.path.display(),
                        path.display()
                    ),
                ));
            }
            found.push(Found {
                path: path.clone(),
                entry,
            });
        }
    }
    Ok(found)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let unreadable = |error: &std::io::Error| {
        Fault::new(Exit::Usage, format!("reading the metadata folder {}", folder.display()))
            .caused_by(error)
            .hint("make metadata first: mcp-runtime server init NAME")
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(&error))? {
        let path = entry.map_err(|error| unreadable(&error))?.path();
        if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

pub(crate) fn read_text(path: &Path) -> Result<String, Fault> {
    let fault = |error: &std::io::Error| Fault::new(Exit::Usage, format!("reading {}", path.display())).caused_by(error);
    let bytes = std::fs::metadata(path).map_err(|error| fault(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(Fault::new(
            Exit::Usage,
            format!("{} has {bytes} bytes, at most {FILE_BYTES_MAX} are read", path.display()),
        ));
    }
    std::fs::read_to_string(path).map_err(|error| fault(&error))
}

/// The schema of a file, for editors.
pub(crate) fn schema() -> String {
    let schema = schemars::schema_for!(Metadata);
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

#[cfg(test)]
mod tests;
