//! `up`: the whole stack in this process.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use sentinel::Standalone;
use serde_json::json;
use service_kit::Tasks;

use crate::client::standalone_note;
use crate::fault::{Exit, Fault};
use crate::render::{self, Done};

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Start an example MCP server behind the gateway, and call it, so that there is something to see
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    stack: sentinel::Args,
    #[command(flatten)]
    process: service_kit::ProcessArgs,
}

pub(crate) fn run(args: UpArgs) -> Result<Done, Fault> {
    let UpArgs {
        demo,
        stack,
        mut process,
    } = args;
    // The demo's own server and clients tell every step, and each failure they are there to show, which would drown what the stack says.
    if demo {
        process.log_level += ",rmcp=off";
    }
    // Before anything is started, so that a wrong option ends like one that the parser itself refuses.
    let config = sentinel::Config::try_from(stack)
        .map_err(|error| Fault::new(Exit::Usage, error.to_string()).caused_by_source(&error))?;
    let code = service_kit::run("mcp-runtime", process, async move |tasks| {
        if demo {
            up_with_demo(config, &tasks).await
        } else {
            up(config, &tasks).await.map(drop)
        }
    });
    Ok(if code == ExitCode::SUCCESS {
        Done::Well
    } else {
        Done::ButNotWell
    })
}

async fn up(config: sentinel::Config, tasks: &Tasks) -> anyhow::Result<Standalone> {
    let standalone = sentinel::start(config, tasks).await?;
    note_address(&standalone).context("noting the address for other terminals")?;
    tell(&banner(&standalone))?;
    Ok(standalone)
}

#[cfg(feature = "demo")]
async fn up_with_demo(mut config: sentinel::Config, tasks: &Tasks) -> anyhow::Result<()> {
    let server = super::demo::start_server(tasks)?;
    config.add_server("payments", &server)?;
    let standalone = up(config, tasks).await?;
    tell(&super::demo::banner(&standalone.url))?;
    super::demo::start_callers(&standalone.url, tasks);
    Ok(())
}

#[cfg(not(feature = "demo"))]
async fn up_with_demo(_config: sentinel::Config, _tasks: &Tasks) -> anyhow::Result<()> {
    anyhow::bail!("this program was built without the demo; build it with the feature `demo`")
}

fn tell(text: &str) -> anyhow::Result<()> {
    render::line(text).map_err(|fault| anyhow::anyhow!("{fault}"))
}

/// Notes the address where commands in another terminal look for it. Losing a race with another `up` is harmless: the last one
/// started is the one meant.
fn note_address(standalone: &Standalone) -> std::io::Result<()> {
    let Some(path) = standalone_note() else { return Ok(()) };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let data_dir = std::path::absolute(&standalone.data_dir)?;
    write_note(
        &path,
        &json!({ "url": standalone.url, "pid": std::process::id(), "data_dir": data_dir }),
    )
}

fn write_note(path: &Path, note: &serde_json::Value) -> std::io::Result<()> {
    let next = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&next, note.to_string())?;
    std::fs::rename(&next, path)
}

fn banner(standalone: &Standalone) -> String {
    use std::fmt::Write as _;
    let url = &standalone.url;
    let mut out = format!(
        "\nmcp-runtime is up at {url}, keeping its data in {}\n",
        standalone.data_dir.display()
    );
    for server in &standalone.servers {
        // Writing to a String cannot fail.
        let _ignored = writeln!(
            out,
            "  {:<12} clients connect to {} ({})",
            server.name, server.url, server.mode
        );
    }
    if standalone.servers.is_empty() {
        out.push_str("  no MCP server is behind the gateway yet\n");
    }
    let _ignored = write!(
        out,
        "\nIn another terminal:\n  \
         mcp-runtime server deploy NAME --upstream URL       an MCP server that runs already, or\n  \
         mcp-runtime server deploy NAME -- COMMAND           one to run here\n  \
         mcp-runtime sentinel status | tools | events --follow\n\n\
         You are its administrator by the key in {}.\nCtrl-C drains and stops.",
        standalone.owner_key_file.display(),
    );
    out
}
