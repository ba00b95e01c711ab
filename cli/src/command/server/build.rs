//! `server build image`: an image by whichever builder there is, and its reference in the metadata.

use std::path::PathBuf;
use std::process::Stdio;

use clap::{Args, Subcommand};
use serde_json::json;

use super::MetadataArgs;
use crate::args::Output;
use crate::fault::{Exit, Fault};
use crate::metadata::{Found, Scope, read_text, set_fields};
use crate::render::{self, Done};

/// Builders in the order in which they are looked for; all take the same words.
const BUILDERS: [&str; 3] = ["docker", "podman", "buildah"];

#[derive(Debug, Subcommand)]
pub(crate) enum BuildCommand {
    /// Build the image of a server, print its reference, and note it in the metadata
    #[command(
        after_help = "Example:\n  mcp-runtime server build image payments --tag v1.0.0 --platform linux/amd64 --registry registry.example.com"
    )]
    Image(BuildArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Name of the server
    name: String,
    #[command(flatten)]
    metadata: MetadataArgs,
    /// File that says how to build
    #[arg(long, default_value = "Dockerfile", value_name = "FILE")]
    dockerfile: PathBuf,
    /// Folder that is built
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    context: PathBuf,
    /// Host of the registry [default: that of the image in the metadata]
    #[arg(long, env = "MCP_REGISTRY_HOST", hide_env_values = true, value_name = "HOST")]
    registry: Option<String>,
    /// Image tag
    #[arg(long, default_value = "latest")]
    tag: String,
    /// Platform to build for
    #[arg(long, env = "MCP_DOCKER_PLATFORM", hide_env_values = true, default_value = "linux/amd64")]
    platform: String,
    /// Builder to use [default: docker, podman or buildah, whichever is there]
    #[arg(long, value_name = "PROGRAM")]
    builder: Option<String>,
}

pub(super) async fn run(output: Output, command: &BuildCommand) -> Result<Done, Fault> {
    let BuildCommand::Image(args) = command;
    // Looked up before the long work, so that a typo is told at once.
    let found = args.metadata.read()?;
    let found = found.into_iter().find(|found| found.entry.name == args.name);
    let found = found.ok_or_else(|| {
        Fault::new(Exit::NotFound, format!("metadata has no server `{}`", args.name))
            .hint("describe it first: mcp-runtime server init NAME")
    })?;
    let image = image(args, &found);
    let reference = format!("{image}:{}", args.tag);
    build(args, &reference).await?;
    let text = set_fields(
        &found.path,
        &read_text(&found.path)?,
        &args.name,
        &[("image", &image), ("imageTag", &args.tag)],
    )?;
    std::fs::write(&found.path, text)
        .map_err(|error| Fault::new(Exit::Failed, format!("writing {}", found.path.display())).caused_by(&error))?;
    render::document(output, &json!({ "name": reference, "file": found.path }), |_| {
        reference.clone()
    })?;
    Ok(Done::Well)
}

/// The repository: as metadata has it, at another host when one is named.
fn image(args: &BuildArgs, found: &Found) -> String {
    let kept = found.entry.image.as_deref().unwrap_or(&args.name);
    let Some(registry) = &args.registry else {
        return kept.to_owned();
    };
    let first = kept.split('/').next().unwrap_or_default();
    let has_host = kept.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let path = if has_host {
        kept.split_once('/').map_or(kept, |(_, path)| path)
    } else {
        kept
    };
    match found.entry.scope {
        Some(scope @ (Scope::Org | Scope::Public)) if !path.contains('/') => format!("{registry}/{}/{path}", scope.as_str()),
        _ => format!("{registry}/{path}"),
    }
}

async fn build(args: &BuildArgs, reference: &str) -> Result<(), Fault> {
    let chosen = args.builder.as_deref().map(|builder| vec![builder]);
    for builder in chosen.unwrap_or(BUILDERS.to_vec()) {
        let mut command = tokio::process::Command::new(builder);
        command
            .arg("build")
            .args(["--platform", &args.platform, "--tag", reference, "--file"])
            .arg(&args.dockerfile)
            .arg(&args.context);
        // What the builder says belongs beside the answer, which is the reference alone.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(std::io::stderr()))
            .kill_on_drop(true);
        match command.status().await {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => {
                return Err(Fault::new(
                    Exit::Failed,
                    format!("{builder} did not build {reference} ({status})"),
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Fault::new(Exit::Failed, format!("starting {builder}")).caused_by(&error)),
        }
    }
    Err(Fault::new(Exit::Failed, "there is no program here that builds images")
        .hint("install docker, podman or buildah, or name one with --builder; a server that runs already needs no image: server deploy NAME --upstream URL"))
}
