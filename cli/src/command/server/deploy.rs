//! `server deploy`: publishing what metadata and flags say, and following it until the new revision is ready.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use crds::McpServerSpec;
use crds::server::EnvVar;
use reqwest::Method;
use serde_json::json;

use super::{MetadataArgs, PATH, PlaceArgs, Server, ServerAnswer};
use crate::args::Output;
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::metadata::{Entry, Scope};
use crate::render::{self, Done};
use crate::text;

/// Pauses between two looks while a revision comes up: a program on this machine takes moments, a cluster takes a while.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_LAST: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// Name of the server
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Whom it is for [default: as metadata says, else your team]
    #[arg(long, value_enum)]
    scope: Option<Scope>,
    /// Image repository; wins over metadata
    #[arg(long)]
    image: Option<String>,
    /// Image tag; wins over metadata
    #[arg(long)]
    tag: Option<String>,
    /// Pods wanted; wins over metadata
    #[arg(long, value_name = "COUNT")]
    replicas: Option<u32>,
    /// Port the server listens on; wins over metadata
    #[arg(long)]
    port: Option<u16>,
    /// Port of the Service; wins over metadata
    #[arg(long, value_name = "PORT")]
    service_port: Option<u16>,
    /// Where the gateway reaches a server that runs already, such as <http://127.0.0.1:3001/mcp>
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    upstream: Option<String>,
    /// Folder that the command runs in [default: as metadata says, else the one that `.mcp` is in, else this one]
    #[arg(long, value_name = "FOLDER")]
    working_dir: Option<PathBuf>,
    /// A variable for the server; again for more. Wins over metadata
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[command(flatten)]
    metadata: MetadataArgs,
    /// Replace the server when there is one
    #[arg(long)]
    update: bool,
    /// Check everything and show the result, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it is ready
    #[arg(long)]
    no_wait: bool,
    /// Longest time to wait for it
    #[arg(long, env = "MCP_DEPLOYMENT_TIMEOUT", hide_env_values = true, default_value = "5m", value_name = "TIME", value_parser = text::duration)]
    timeout: Duration,
    /// A command that the standalone runs on this machine; it must serve MCP over HTTP on the port in $PORT
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "image")]
    command: Vec<String>,
}

pub(super) async fn run(client: &Client, output: Output, args: &DeployArgs) -> Result<Done, Fault> {
    let entry = entry(args)?;
    let scope = args.scope.or_else(|| entry.as_ref().and_then(|entry| entry.scope));
    let namespace = namespace(args, entry.as_ref(), scope)?;
    let body = json!({
        "name": args.name,
        "namespace": namespace,
        "scope": scope.map(Scope::as_str),
        "update": args.update,
        "spec": spec(args, entry.as_ref())?,
    });
    let path = if args.dry_run {
        format!("{PATH}?dryRun=true")
    } else {
        PATH.to_owned()
    };
    let answer: ServerAnswer = client.send(Method::POST, &path, Some(&body)).await?;
    let server = if args.dry_run || args.no_wait {
        answer.server
    } else {
        follow(client, answer.server, args.timeout).await?
    };
    render::document(output, &server, |server| {
        let done = if args.dry_run {
            "would be published"
        } else if server.ready {
            "is ready"
        } else {
            "is published"
        };
        format!("{} in {} {done}: {}", server.name, server.namespace, server.endpoint)
    })?;
    Ok(Done::Well)
}

/// The metadata of this server: the entry of its name, or the only one there is.
fn entry(args: &DeployArgs) -> Result<Option<Entry>, Fault> {
    let folder = &args.metadata.metadata_dir;
    if args.metadata.metadata_file.is_none() && folder.as_os_str() == ".mcp" && !folder.exists() {
        return Ok(None);
    }
    let mut found = args.metadata.read()?;
    if let Some(at) = found.iter().position(|found| found.entry.name == args.name) {
        return Ok(Some(found.swap_remove(at).entry));
    }
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.pop().map(|found| found.entry)),
        _ => {
            let names: Vec<_> = found.iter().map(|found| found.entry.name.as_str()).collect();
            Err(Fault::new(Exit::NotFound, format!("metadata has no server `{}`", args.name))
                .hint(format!("it has {}", names.join(", "))))
        }
    }
}

fn namespace(args: &DeployArgs, entry: Option<&Entry>, scope: Option<Scope>) -> Result<Option<String>, Fault> {
    let named = args.place.namespace();
    if named.is_some() && matches!(scope, Some(Scope::Org | Scope::Public)) {
        return Err(Fault::new(Exit::Usage, "--scope org and public have namespaces of their own")
            .hint("leave --namespace and --team out, or publish with --scope tenant"));
    }
    let in_metadata = entry.and_then(|entry| entry.namespace.clone());
    Ok(match scope {
        Some(Scope::Org | Scope::Public) => None,
        // What the guide's metadata names for lack of a better one means "my team" here.
        Some(Scope::Tenant) => named.or(in_metadata.filter(|namespace| namespace != "mcp-servers")),
        None => named.or(in_metadata),
    })
}

/// Flags win over metadata.
fn spec(args: &DeployArgs, entry: Option<&Entry>) -> Result<McpServerSpec, Fault> {
    // The entry's route is its own; under another name the server gets that name's.
    let bare = Entry {
        name: args.name.clone(),
        ..Entry::default()
    };
    let same = entry.filter(|entry| entry.name == args.name);
    let mut spec = entry.unwrap_or(&bare).spec();
    if same.is_none() {
        spec.public_path_prefix = Some(args.name.clone());
    }
    if let Some(upstream) = &args.upstream {
        let gateway = spec.gateway.get_or_insert_default();
        gateway.enabled = true;
        gateway.upstream_url = Some(upstream.clone());
        // Something runs already: what the metadata names to run stays for the cluster.
        (spec.image, spec.image_tag) = (None, None);
        (spec.command, spec.args) = (Vec::new(), Vec::new());
    }
    spec.image = args.image.clone().or(spec.image);
    spec.image_tag = args.tag.clone().or(spec.image_tag);
    spec.replicas = args.replicas.or(spec.replicas);
    spec.port = args.port.or(spec.port);
    spec.service_port = args.service_port.or(spec.service_port);
    if !args.command.is_empty() {
        (spec.command, spec.args) = (args.command.clone(), Vec::new());
        (spec.image, spec.image_tag) = (None, None);
    }
    for variable in &args.env {
        let (name, value) = variable.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            Fault::new(Exit::Usage, format!("--env `{variable}` is not NAME=VALUE")).hint("such as LOG_LEVEL=debug")
        })?;
        spec.env_vars.retain(|known| known.name != name);
        spec.env_vars.push(EnvVar {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
    settle_folder(args, &mut spec)?;
    Ok(spec)
}

/// A command of this machine means what it means in the folder of its project.
fn settle_folder(args: &DeployArgs, spec: &mut McpServerSpec) -> Result<(), Fault> {
    let is_local = spec.image.is_none() && !spec.command.is_empty();
    let beside = || match (&args.metadata.metadata_file, args.command.is_empty()) {
        (_, false) => PathBuf::new(),
        (Some(file), true) => file.parent().map(Path::to_owned).unwrap_or_default(),
        (None, true) => args.metadata.metadata_dir.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let wished = args.working_dir.clone();
    let usual = || (is_local && spec.working_dir.is_none()).then(beside);
    if let Some(folder) = wished.or_else(usual) {
        let folder = std::env::current_dir()
            .map(|here| here.join(&folder))
            .and_then(std::fs::canonicalize);
        let folder =
            folder.map_err(|error| Fault::new(Exit::Usage, "finding the folder that the command runs in").caused_by(&error))?;
        spec.working_dir = Some(folder.display().to_string());
    }
    Ok(())
}

/// Looks until the published revision is ready, telling each change of its state.
async fn follow(client: &Client, published: Server, timeout: Duration) -> Result<Server, Fault> {
    let path = format!("{PATH}/{}/{}", published.namespace, published.name);
    let wanted = published.generation;
    let mut told = String::new();
    let mut last = published;
    let mut pause = LOOK_FIRST;
    let looking = async {
        loop {
            if last.ready {
                return Ok(());
            }
            let state = format!(
                "{}{}",
                last.status,
                last.message
                    .as_ref()
                    .map_or_else(String::new, |message| format!(": {message}"))
            );
            // A server of this machine is often ready before there is anything to say.
            if state != told && (last.message.is_some() || !told.is_empty()) {
                render::note(&text::safe(&state));
                told = state;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_LAST);
            let answer: ServerAnswer = client.get(&path, &[]).await?;
            if answer.server.generation > wanted {
                return Err(Fault::new(Exit::Conflict, "somebody published the server again meanwhile")
                    .hint("look at it: mcp-runtime server get NAME"));
            }
            last = answer.server;
        }
    };
    match tokio::time::timeout(timeout, looking).await {
        Ok(Ok(())) => Ok(last),
        Ok(Err(fault)) => Err(fault),
        Err(_late) => {
            let why = last
                .message
                .as_deref()
                .map_or_else(String::new, |message| format!(" ({})", text::safe(message)));
            Err(Fault::new(
                Exit::NotReady,
                format!("{} is {}{why} after {} s", last.name, last.status, timeout.as_secs()),
            )
            .hint("look again with `mcp-runtime server get NAME`, or wait longer with --timeout"))
        }
    }
}
