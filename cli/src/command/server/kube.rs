//! Servers straight in Kubernetes, for administrators: what `kubectl` does, with the kinds and labels of the operator.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::Args;
use crds::Manifests;
use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use super::{PATH, ServerAnswer, ServerCommand};
use crate::args::{Global, Output};
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::metadata::read_text;
use crate::render::{self, Done};

/// The kind, as `kubectl` takes it.
const KIND: &str = "mcpservers.mcpruntime.org";

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// File of manifests; again for more
    #[arg(long = "file", short, value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    kube: KubeArgs,
    /// Check everything and show what would be done, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Whether the cluster itself is asked.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct KubeArgs {
    /// Ask the cluster of your kubeconfig, by kubectl, instead of the platform
    #[arg(long)]
    pub(super) use_kube: bool,
}

#[derive(Debug, Serialize)]
struct Applied {
    servers: Vec<String>,
}

async fn apply(global: &Global, output: Output, args: &ApplyArgs) -> Result<Done, Fault> {
    let mut manifests = Manifests::default();
    for path in &args.files {
        manifests.take(path, &read_text(path)?);
    }
    if let Some(fault) = manifests.faults.first() {
        return Err(Fault::new(Exit::Usage, fault.to_string()));
    }
    if args.kube.use_kube {
        let mut words = vec!["apply", "--server-side", "--field-manager=mcp-runtime"];
        words.extend(args.dry_run.then_some("--dry-run=server"));
        for path in &args.files {
            words.extend(["--filename", text(path)?]);
        }
        return kubectl(&words).await;
    }
    if manifests.servers.is_empty() {
        return Err(Fault::new(Exit::Usage, "the files describe no server")
            .hint("grants and sessions are applied with: mcp-runtime access grant apply --file FILE"));
    }
    let client = Client::new(global)?;
    let mut servers = Vec::new();
    for server in &manifests.servers {
        let metadata = &server.metadata;
        let body = json!({
            "name": metadata.name.as_str(), "namespace": metadata.namespace.as_str(), "update": true, "spec": server.spec,
        });
        let path = if args.dry_run {
            format!("{PATH}?dryRun=true")
        } else {
            PATH.to_owned()
        };
        let answer: ServerAnswer = client.send(Method::POST, &path, Some(&body)).await?;
        servers.push(format!("{}/{}", answer.server.namespace, answer.server.name));
    }
    let done = if args.dry_run { "would be applied" } else { "applied" };
    render::document(output, &Applied { servers }, |applied| {
        let lines: Vec<_> = applied.servers.iter().map(|name| format!("{name} {done}")).collect();
        lines.join("\n")
    })?;
    Ok(Done::Well)
}

/// Every server, or one, as the cluster tells it; with the pods where somebody wants to know how it is.
async fn show(name: Option<&str>, namespace: Option<&str>, form: Output) -> Result<Done, Fault> {
    let form = match form {
        Output::Table => "wide",
        Output::Json => "json",
        Output::Yaml => "yaml",
        Output::Name => "name",
    };
    let mut words = vec!["get", KIND];
    words.extend(name);
    words.extend(place(namespace, name.is_none()));
    words.extend(["--output", form]);
    kubectl(&words).await
}

/// The pods of all servers.
async fn pods(name: Option<&str>, namespace: Option<&str>) -> Result<Done, Fault> {
    let server = name.map_or_else(String::new, |name| format!(",app={name}"));
    let selector = format!("app.kubernetes.io/managed-by=mcp-runtime{server}");
    let mut words = vec!["get", "pods", "--selector", &selector];
    words.extend(place(namespace, true));
    words.extend(["--output", "wide"]);
    kubectl(&words).await
}

async fn delete(name: &str, namespace: Option<&str>) -> Result<Done, Fault> {
    let mut words = vec!["delete", KIND, name];
    words.extend(place(namespace, false));
    kubectl(&words).await
}

/// Runs what the cluster itself is asked for; `None` is for the platform.
pub(super) async fn run(global: &Global, output: Output, command: &ServerCommand) -> Option<Result<Done, Fault>> {
    match command {
        ServerCommand::Apply(args) => Some(apply(global, output, args).await),
        ServerCommand::List(args) if args.kube.use_kube => Some(show(None, args.place.namespace().as_deref(), output).await),
        ServerCommand::Status(args) if args.servers.kube.use_kube => {
            let namespace = args.servers.place.namespace();
            Some(status(args.name.as_deref(), namespace.as_deref(), output).await)
        }
        ServerCommand::Get(args) if args.kube.use_kube => {
            Some(show(Some(&args.name), args.place.namespace().as_deref(), output).await)
        }
        ServerCommand::Delete(args) if args.kube.use_kube => Some(delete(&args.name, args.place.namespace().as_deref()).await),
        ServerCommand::Logs(args) if args.name.kube.use_kube => Some(
            logs(
                &args.name.name,
                args.name.place.namespace().as_deref(),
                args.lines.is_followed(),
            )
            .await,
        ),
        _ => None,
    }
}

/// What a server and its gateway write.
async fn logs(name: &str, namespace: Option<&str>, follow: bool) -> Result<Done, Fault> {
    let deployment = format!("deployment/{name}");
    let mut words = vec!["logs", &deployment, "--all-containers", "--prefix"];
    words.extend(place(namespace, false));
    words.extend(follow.then_some("--follow"));
    kubectl(&words).await
}

/// Servers, and the pods that run them.
async fn status(name: Option<&str>, namespace: Option<&str>, output: Output) -> Result<Done, Fault> {
    let shown = show(name, namespace, output).await?;
    if output != Output::Table || shown == Done::ButNotWell {
        return Ok(shown);
    }
    render::line("")?;
    pods(name, namespace).await
}

fn place(namespace: Option<&str>, is_list: bool) -> Vec<&str> {
    match namespace {
        Some(namespace) => vec!["--namespace", namespace],
        None if is_list => vec!["--all-namespaces"],
        None => Vec::new(),
    }
}

fn text(path: &Path) -> Result<&str, Fault> {
    path.to_str()
        .ok_or_else(|| Fault::new(Exit::Usage, format!("{} is no text that kubectl takes", path.display())))
}

/// Hands over to `kubectl`: what it writes is the answer.
async fn kubectl(words: &[&str]) -> Result<Done, Fault> {
    let mut command = tokio::process::Command::new("kubectl");
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    match command.status().await {
        Ok(status) if status.success() => Ok(Done::Well),
        Ok(_) => Ok(Done::ButNotWell),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Fault::new(Exit::Failed, "there is no kubectl here")
            .hint("install it, or leave --use-kube out to ask the platform")),
        Err(error) => Err(Fault::new(Exit::Failed, "starting kubectl").caused_by(&error)),
    }
}
