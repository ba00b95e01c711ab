//! `server`: describing, checking, publishing, looking, retiring.

mod build;
mod call;
mod connect;
mod deploy;
mod init;
mod kube;
mod policy;
mod validate;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use domain::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::{Global, Output};
use crate::client::Client;
use crate::command::sentinel::logs::{self, LinesArgs};
use crate::fault::{Exit, Fault};
use crate::metadata;
use crate::render::{self, Done};
use crate::text;

pub(super) const PATH: &str = "/api/v1/runtime/servers";

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Describe a server in .mcp/servers.yaml
    #[command(
        after_help = "Examples:\n  mcp-runtime server init payments --scope org --tool list_invoices --tool-spec refund_invoice:high:destructive\n  mcp-runtime server init payments --from-server http://127.0.0.1:3001/mcp"
    )]
    Init(init::InitArgs),
    /// Check metadata, and grants and sessions against it
    #[command(after_help = "Example:\n  mcp-runtime server validate --metadata-dir .mcp --grant-file grant.yaml")]
    Validate(validate::ValidateArgs),
    /// Write manifests from metadata, for review or version control, into the folder that --output names (`manifests` without it; `-` prints)
    #[command(
        after_help = "Examples:\n  mcp-runtime server generate --metadata-dir .mcp --output manifests/\n  mcp-runtime server generate --output -"
    )]
    Generate(GenerateArgs),
    /// Build what is published
    #[command(subcommand)]
    Build(build::BuildCommand),
    /// Publish a server, and follow it until it is ready
    #[command(
        after_help = "Examples:\n  mcp-runtime server deploy payments --scope org --metadata-dir .mcp\n  mcp-runtime server deploy payments --scope public --image payments --tag v1.0.0 --update"
    )]
    Deploy(deploy::DeployArgs),
    /// Publish what a manifest describes, after checks that name file and line
    #[command(
        after_help = "Examples:\n  mcp-runtime server apply --file payments.yaml\n  mcp-runtime server apply --file payments.yaml --use-kube"
    )]
    Apply(kube::ApplyArgs),
    /// List servers
    #[command(after_help = "Examples:\n  mcp-runtime server list\n  mcp-runtime server list --team acme -o json")]
    List(ListArgs),
    /// Tell how a server is, or all of them; on a cluster also its pods
    #[command(after_help = "Examples:\n  mcp-runtime server status\n  mcp-runtime server status payments")]
    Status(StatusArgs),
    /// Show one server
    #[command(after_help = "Example:\n  mcp-runtime server get payments -o yaml")]
    Get(NameArgs),
    /// Show what a server writes
    #[command(
        after_help = "Examples:\n  mcp-runtime server logs payments\n  mcp-runtime server logs payments --follow --grep error"
    )]
    Logs(LogsArgs),
    /// Call a tool of a server, through its gateway and policy
    #[command(
        after_help = "Examples:\n  mcp-runtime server call payments list_invoices --arg status=open --arg limit=5\n  mcp-runtime server call payments refund_invoice --args '{\"id\":\"INV-1\"}' --trust high -o json"
    )]
    Call(call::CallArgs),
    /// Look at a policy, explain and test it, and compare it with another
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Retire a server, with its grants and sessions
    #[command(after_help = "Example:\n  mcp-runtime server delete payments")]
    Delete(NameArgs),
    /// Print a configuration to paste into an MCP client
    #[command(after_help = "Example:\n  mcp-runtime server connect-config payments --client cursor")]
    ConnectConfig(connect::ConnectArgs),
    /// Print the JSON schema of .mcp metadata, for editors
    #[command(after_help = "Example:\n  mcp-runtime server schema > .mcp/schema.json")]
    Schema,
}

/// Where servers are looked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlaceArgs {
    /// Only in this namespace [default: wherever you may look]
    #[arg(long, short)]
    pub(super) namespace: Option<String>,
    /// Only in the namespace of this team
    #[arg(long, value_name = "SLUG", conflicts_with = "namespace")]
    pub(super) team: Option<String>,
}

impl PlaceArgs {
    pub(super) fn namespace(&self) -> Option<String> {
        self.namespace
            .clone()
            .or_else(|| self.team.as_ref().map(|slug| format!("mcp-team-{slug}")))
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Only with this text in the name or description
    #[arg(long, short)]
    query: Option<String>,
    #[command(flatten)]
    kube: kube::KubeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only this server
    name: Option<String>,
    #[command(flatten)]
    servers: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Name of the server
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    kube: kube::KubeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    lines: LinesArgs,
}

/// Where metadata is.
#[derive(Debug, Clone, Args)]
pub(crate) struct MetadataArgs {
    /// Folder of metadata
    #[arg(long, default_value = ".mcp", value_name = "FOLDER")]
    pub(super) metadata_dir: PathBuf,
    /// One file of metadata instead
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
}

impl MetadataArgs {
    pub(super) fn read(&self) -> Result<Vec<metadata::Found>, Fault> {
        metadata::read(&self.metadata_dir, self.metadata_file.as_deref())
    }
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    metadata: MetadataArgs,
}

/// A server as the API tells it; what this version does not know is kept for `-o json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) status: String,
    pub(crate) ready: bool,
    #[serde(default)]
    pub(crate) message: Option<String>,
    pub(crate) age: Timestamp,
    pub(crate) endpoint: String,
    pub(crate) generation: i64,
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Servers {
    servers: Vec<Server>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ServerAnswer {
    pub(super) server: Server,
}

pub(crate) async fn run(global: &Global, command: ServerCommand) -> Result<Done, Fault> {
    if let ServerCommand::Generate(args) = &command {
        return generate(global, args);
    }
    if let ServerCommand::Policy(command) = command {
        return policy::run(global, command).await;
    }
    let output = global.form()?;
    if let Some(done) = kube::run(global, output, &command).await {
        return done;
    }
    match command {
        ServerCommand::Call(args) => call::run(Client::new(global)?, output, &args).await,
        ServerCommand::Policy(_) | ServerCommand::Apply(_) | ServerCommand::Generate(_) => Ok(Done::Well),
        ServerCommand::Init(args) => init::run(output, &args),
        ServerCommand::Validate(args) => validate::run(output, &args),
        ServerCommand::Build(command) => build::run(output, &command).await,
        ServerCommand::Schema => render::line(&metadata::schema()).map(|()| Done::Well),
        ServerCommand::Deploy(args) => deploy::run(&Client::new(global)?, output, &args).await,
        ServerCommand::List(args) => list(&Client::new(global)?, output, &args).await,
        ServerCommand::Status(args) => status(&Client::new(global)?, output, &args).await,
        ServerCommand::Get(args) => {
            let server = find(&Client::new(global)?, &args.name, &args.place).await?;
            render::document(output, &server, one)?;
            Ok(Done::Well)
        }
        ServerCommand::Logs(args) => {
            let client = Client::new(global)?;
            let server = find(&client, &args.name.name, &args.name.place).await?;
            let name = format!("{}/{}", server.namespace, server.name);
            logs::show(&client, output, "server", args.lines.of_server(&name)).await
        }
        ServerCommand::Delete(args) => delete(&Client::new(global)?, output, &args).await,
        ServerCommand::ConnectConfig(args) => connect::run(global, &args).await,
    }
}

async fn status(client: &Client, output: Output, args: &StatusArgs) -> Result<Done, Fault> {
    let Some(name) = &args.name else {
        return list(client, output, &args.servers).await;
    };
    let servers = Servers {
        servers: vec![find(client, name, &args.servers.place).await?],
    };
    render::document(output, &servers, table)?;
    Ok(Done::Well)
}

async fn list(client: &Client, output: Output, args: &ListArgs) -> Result<Done, Fault> {
    let servers = Servers {
        servers: read(client, args.place.namespace(), args.query.clone()).await?,
    };
    render::document(output, &servers, table)?;
    Ok(Done::Well)
}

#[derive(Deserialize)]
struct Page {
    servers: Vec<Server>,
    next: Option<String>,
}

/// Every server that the caller may see.
pub(crate) async fn all(client: &Client) -> Result<Vec<Server>, Fault> {
    read(client, None, None).await
}

/// Every server that matches, page by page.
async fn read(client: &Client, namespace: Option<String>, query: Option<String>) -> Result<Vec<Server>, Fault> {
    let mut all: Vec<Server> = Vec::new();
    loop {
        let mut parameters = vec![("limit", "500".to_owned())];
        parameters.extend(namespace.clone().map(|namespace| ("namespace", namespace)));
        parameters.extend(query.clone().map(|query| ("q", query)));
        parameters.extend(all.last().map(|last| ("after", format!("{}/{}", last.namespace, last.name))));
        let page: Page = client.get(PATH, &parameters).await?;
        all.extend(page.servers);
        if page.next.is_none() {
            return Ok(all);
        }
    }
}

/// The one server of a name, wherever the caller may look.
pub(super) async fn find(client: &Client, name: &str, place: &PlaceArgs) -> Result<Server, Fault> {
    if let Some(namespace) = place.namespace() {
        let answer: ServerAnswer = client.get(&format!("{PATH}/{namespace}/{name}"), &[]).await?;
        return Ok(answer.server);
    }
    let mut found = read(client, None, Some(name.to_owned())).await?;
    found.retain(|server| server.name == name);
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(
            Fault::new(Exit::NotFound, format!("there is no server `{name}` that you may see"))
                .hint("list them: mcp-runtime server list"),
        ),
        _ => {
            let places: Vec<_> = found.iter().map(|server| server.namespace.as_str()).collect();
            Err(
                Fault::new(Exit::Usage, format!("there are servers `{name}` in {}", places.join(", ")))
                    .hint("name one with --namespace"),
            )
        }
    }
}

fn table(servers: &Servers) -> String {
    if servers.servers.is_empty() {
        return "No servers. Publish one: mcp-runtime server init NAME, then mcp-runtime server deploy NAME".to_owned();
    }
    let rows = servers.servers.iter().map(|server| {
        vec![
            server.name.clone(),
            server.namespace.clone(),
            text::safe(&server.status),
            server.endpoint.clone(),
            text::age(server.age),
        ]
    });
    render::table(&["NAME", "NAMESPACE", "STATUS", "URL", "AGE"], rows)
}

fn one(server: &Server) -> String {
    let told = |name: &str| {
        server
            .rest
            .get(name)
            .and_then(Value::as_str)
            .map_or_else(|| "-".to_owned(), text::safe)
    };
    let tools = server
        .rest
        .get("tools")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let rows = [
        ("Name", server.name.clone()),
        ("Namespace", server.namespace.clone()),
        ("Description", told("description")),
        ("Status", text::safe(&server.status)),
        ("Why", server.message.as_deref().map_or_else(|| "-".to_owned(), text::safe)),
        ("URL", server.endpoint.clone()),
        ("Runs", runs(server)),
        ("Identity", told("authMode")),
        ("Age", text::age(server.age)),
    ];
    let head = render::table(&["", ""], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]));
    if tools.is_empty() {
        return format!("{head}\n\nNo tools are declared.");
    }
    let word = |tool: &Value, name: &str, usual: &str| {
        tool.get(name)
            .and_then(Value::as_str)
            .map_or_else(|| usual.to_owned(), text::safe)
    };
    let rows = tools.iter().map(|tool| {
        vec![
            word(tool, "name", "-"),
            word(tool, "requiredTrust", "low"),
            word(tool, "sideEffect", "-"),
            word(tool, "description", ""),
        ]
    });
    format!(
        "{head}\n\n{}",
        render::table(&["TOOL", "TRUST", "SIDE EFFECT", "DESCRIPTION"], rows)
    )
}

/// What is run, or where the server is that runs elsewhere.
fn runs(server: &Server) -> String {
    let spec = server.rest.get("spec");
    let named = |pointer: &str| spec.and_then(|spec| spec.pointer(pointer)).and_then(Value::as_str);
    let words = |name: &str| {
        let list = spec.and_then(|spec| spec.get(name)).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let line = match (named("/image"), named("/gateway/upstreamURL")) {
        (Some(image), _) => named("/imageTag").map_or_else(|| image.to_owned(), |tag| format!("{image}:{tag}")),
        (None, _) if !words("command").is_empty() => [words("command"), words("args")].concat().join(" "),
        (None, Some(upstream)) => upstream.to_owned(),
        (None, None) => "-".to_owned(),
    };
    text::safe(&line)
}

async fn delete(client: &Client, output: Output, args: &NameArgs) -> Result<Done, Fault> {
    let server = find(client, &args.name, &args.place).await?;
    let path = format!("{PATH}/{}/{}", server.namespace, server.name);
    let removed: Value = client.send(Method::DELETE, &path, None).await?;
    render::document(output, &removed, |removed| {
        let with = removed.get("removed").and_then(Value::as_array).map_or(0, Vec::len);
        let also = if with == 0 {
            String::new()
        } else {
            format!(" {with} grants and sessions went with it.")
        };
        format!("The server {} in {} is retired.{also}", server.name, server.namespace)
    })?;
    Ok(Done::Well)
}

#[derive(Debug, Serialize)]
struct Written {
    files: Vec<String>,
}

fn generate(global: &Global, args: &GenerateArgs) -> Result<Done, Fault> {
    let (output, folder) = global.form_and_file();
    let folder = folder.unwrap_or(Path::new("manifests"));
    let found = args.metadata.read()?;
    let to_stdout = folder.as_os_str() == "-";
    let mut files = Vec::new();
    for metadata::Found { entry, .. } in &found {
        let manifest = manifest(entry)?;
        if to_stdout {
            render::text(&format!("---\n{manifest}"))?;
            continue;
        }
        let path = folder.join(format!("{}.yaml", entry.name));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, manifest));
        written.map_err(|error| Fault::new(Exit::Failed, format!("writing {}", path.display())).caused_by(&error))?;
        files.push(path.display().to_string());
    }
    if !to_stdout {
        render::document(output, &Written { files }, |written| written.files.join("\n"))?;
    }
    Ok(Done::Well)
}

/// The manifest of an entry.
fn manifest(entry: &metadata::Entry) -> Result<String, Fault> {
    let scope = entry.scope.unwrap_or(metadata::Scope::Tenant).as_str();
    let manifest = serde_json::json!({
        "apiVersion": crds::API_VERSION,
        "kind": "MCPServer",
        "metadata": {
            "name": entry.name,
            "namespace": entry.manifest_namespace(),
            "labels": { "mcpruntime.org/scope": scope },
        },
        "spec": entry.spec(),
    });
    serde_saphyr::to_string(&manifest).map_err(|error| Fault::new(Exit::Failed, "writing the manifest").caused_by(&error))
}
