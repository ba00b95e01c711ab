//! `server init`: the first description of a server.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use crds::server::{AuthSpec, GatewaySpec, PolicySpec, SessionSpec, ToolSpec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::Output;
use crate::fault::{Exit, Fault};
use crate::metadata::{self, Entry, Scope};
use crate::render::{self, Done};

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the server: lower-case letters, digits and hyphens
    name: String,
    /// Folder to write into
    #[arg(long, default_value = ".mcp", value_name = "FOLDER")]
    metadata_dir: PathBuf,
    /// Whom it is for
    #[arg(long, value_enum, default_value_t = Scope::Tenant)]
    scope: Scope,
    /// Image repository [default: the name]
    #[arg(long)]
    image: Option<String>,
    /// Image tag
    #[arg(long, default_value = "latest")]
    tag: String,
    /// Port the server listens on
    #[arg(long, default_value_t = 8088)]
    port: u16,
    /// A tool that only reads, for low trust; again for more
    #[arg(long = "tool", value_name = "NAME")]
    tools: Vec<String>,
    /// A tool with trust and side effect; again for more
    #[arg(long = "tool-spec", value_name = "NAME:low|medium|high:read|write|destructive")]
    tool_specs: Vec<String>,
    /// Risk of every tool: low, medium or high
    #[arg(long, value_name = "LEVEL")]
    tool_risk: Option<String>,
    /// Refuse what is not allowed, or only record it
    #[arg(long, value_enum, default_value_t = Mode::AllowList)]
    policy_mode: Mode,
    /// What happens to calls that no grant speaks of
    #[arg(long, value_enum, default_value_t = Decision::Deny)]
    default_decision: Decision,
    /// Whether callers need a session
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    session_required: bool,
    /// Replace the entry of this name
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    AllowList,
    Observe,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Decision {
    Allow,
    Deny,
}

pub(super) fn run(output: Output, args: &InitArgs) -> Result<Done, Fault> {
    domain::ServerName::parse(&args.name).map_err(|error| Fault::new(Exit::Usage, format!("`{}`: {error}", args.name)))?;
    let entry = entry(args)?;
    let path = args.metadata_dir.join("servers.yaml");
    let text = if path.exists() {
        metadata::read_text(&path)?
    } else {
        String::new()
    };
    let there = metadata::parse(&path, &text)?
        .servers
        .iter()
        .any(|other| other.name == args.name);
    if there && !args.force {
        return Err(Fault::new(
            Exit::Conflict,
            format!("{} describes `{}` already", path.display(), args.name),
        )
        .hint("edit it, or replace it with --force"));
    }
    let next = metadata::put_entry(&path, &text, &entry)?;
    let written = std::fs::create_dir_all(&args.metadata_dir).and_then(|()| std::fs::write(&path, next));
    written.map_err(|error| Fault::new(Exit::Failed, format!("writing {}", path.display())).caused_by(&error))?;
    let done = if there { "replaced in" } else { "added to" };
    render::document(output, &json!({ "name": args.name, "file": path }), |_| {
        format!("{} is {done} {}.", args.name, path.display())
    })?;
    if entry.tools.is_empty() {
        render::note("note: no tools are declared, so nothing can be granted by name; add them with --tool or --tool-spec");
    }
    Ok(Done::Well)
}

fn entry(args: &InitArgs) -> Result<Entry, Fault> {
    let mode = match args.policy_mode {
        Mode::AllowList => "allow-list",
        Mode::Observe => "observe",
    };
    let decision = match args.default_decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
    };
    Ok(Entry {
        name: args.name.clone(),
        description: Some(format!("{} MCP server", args.name)),
        image: Some(args.image.clone().unwrap_or_else(|| args.name.clone())),
        image_tag: Some(args.tag.clone()),
        scope: Some(args.scope),
        route: Some(format!("/{}/mcp", args.name)),
        port: Some(args.port),
        tools: tools(args)?,
        auth: Some(block::<AuthSpec>(json!({ "mode": "header" }))?),
        policy: Some(block::<PolicySpec>(json!({ "mode": mode, "defaultDecision": decision }))?),
        session: if args.session_required {
            Some(block::<SessionSpec>(json!({ "required": true }))?)
        } else {
            None
        },
        gateway: Some(GatewaySpec {
            enabled: true,
            ..GatewaySpec::default()
        }),
        ..Entry::default()
    })
}

fn block<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_json::from_value(value).map_err(|error| Fault::new(Exit::Failed, "writing the entry").caused_by(&error))
}

fn tools(args: &InitArgs) -> Result<Vec<ToolSpec>, Fault> {
    let mut tools: Vec<ToolSpec> = Vec::new();
    let plain = args.tools.iter().map(|name| (name.as_str(), "low", "read", false));
    let mut wishes: Vec<_> = plain.collect();
    for spec in &args.tool_specs {
        // From the right: names of tools may hold colons.
        let mut parts = spec.rsplitn(3, ':');
        let (Some(effect), Some(trust), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(
                Fault::new(Exit::Usage, format!("--tool-spec `{spec}` is not NAME:TRUST:SIDE_EFFECT"))
                    .hint("such as refund_invoice:high:destructive"),
            );
        };
        wishes.push((name, trust, effect, true));
    }
    for (name, trust, effect, is_spec) in wishes {
        if tools.iter().any(|tool| tool.name == name) {
            if is_spec {
                return Err(Fault::new(Exit::Usage, format!("the tool `{name}` is given twice")));
            }
            continue;
        }
        let mut tool =
            json!({ "name": name, "description": format!("{name} tool"), "requiredTrust": trust, "sideEffect": effect });
        if let Some(risk) = &args.tool_risk {
            tool["riskLevel"] = json!(risk);
        }
        let tool =
            serde_json::from_value(tool).map_err(|error| Fault::new(Exit::Usage, format!("the tool `{name}`: {error}")))?;
        tools.push(tool);
    }
    Ok(tools)
}
