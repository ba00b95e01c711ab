//! `server policy`: what a policy says, why it says so, whether it says what is expected, and what a change would mean.

mod source;
mod view;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use domain::Timestamp;
use domain::policy::table::Table;
use domain::policy::{Arguments, Call, Claims, Policy, Presented, Target};
use domain::{Decision, Identity};
use reqwest::Method;
use serde_json::{Value, json};

use super::{PlaceArgs, find};
use crate::args::{Global, Output};
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::metadata::read_text;
use crate::render::{self, Done};
use crate::text;
use source::{Inspected, Source};
use view::Explained;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show the policy of a server as its gateway gets it
    #[command(
        after_help = "Examples:\n  mcp-runtime server policy inspect payments\n  mcp-runtime server policy inspect payments --manifests manifests/\n  mcp-runtime server policy inspect --gateway http://127.0.0.1:9103"
    )]
    Inspect(InspectArgs),
    /// Say why a call is allowed or refused, check by check, and which grant came nearest
    #[command(
        after_help = "Examples:\n  mcp-runtime server policy explain payments --agent cursor --tool refund_invoice\n  mcp-runtime server policy explain payments --manifests manifests/ --human ada --agent cursor --tool pay --args '{\"amount\":5}'"
    )]
    Explain(ExplainArgs),
    /// Run a table of expected decisions; exit code 1 when one is another
    #[command(
        after_help = "Examples:\n  mcp-runtime server policy test expected.yaml --manifests manifests/\n  mcp-runtime server policy test expected.yaml --file policy.json"
    )]
    Test(TestArgs),
    /// Say who gains and who loses when one policy takes the place of another; exit code 1 when anybody does
    #[command(
        after_help = "Examples:\n  mcp-runtime server policy diff payments --after manifests/\n  mcp-runtime server policy diff --before old/policy.json --after new/policy.json"
    )]
    Diff(DiffArgs),
}

/// Whose policy.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Name of the server
    name: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Read a policy document instead of asking the platform
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    file: Option<PathBuf>,
    /// Read a folder of manifests instead
    #[arg(long, value_name = "FOLDER")]
    manifests: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Ask a running gateway, at its admin address, what it has in force
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "manifests"])]
    gateway: Option<reqwest::Url>,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Person who calls [default: you, where the platform is asked]
    #[arg(long, alias = "human-id", value_name = "ID")]
    human: Option<String>,
    /// Agent that calls
    #[arg(long, alias = "agent-id", value_name = "ID")]
    agent: Option<String>,
    /// Team they call for
    #[arg(long = "as-team", value_name = "ID")]
    as_team: Option<String>,
    /// Session they show, by its name
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Tool that is called
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Prompt that is asked for
    #[arg(long, value_name = "NAME", conflicts_with = "tool")]
    prompt: Option<String>,
    /// Resource that is read
    #[arg(long, value_name = "URI", conflicts_with_all = ["tool", "prompt"])]
    resource: Option<String>,
    /// Any other method
    #[arg(long, value_name = "METHOD", conflicts_with_all = ["tool", "prompt", "resource"])]
    method: Option<String>,
    /// Arguments of the call, as JSON [default: any; conditions count in the caller's favour]
    #[arg(long, value_name = "JSON", value_parser = json_text)]
    args: Option<Value>,
    /// When the call is made [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// File with the table
    table: PathBuf,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Name of the server
    name: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
    /// The policy now: a document or a folder of manifests [default: what the platform has]
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
    /// The policy that is to take its place: a document or a folder of manifests
    #[arg(long, value_name = "PATH")]
    after: PathBuf,
}

fn json_text(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("expected JSON: {error}"))
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

pub(super) async fn run(global: &Global, command: PolicyCommand) -> Result<Done, Fault> {
    let output = global.form()?;
    match command {
        PolicyCommand::Inspect(args) => inspect(global, output, &args).await,
        PolicyCommand::Explain(args) => explain(global, output, &args).await,
        PolicyCommand::Test(args) => test(global, output, &args).await,
        PolicyCommand::Diff(args) => diff(global, output, &args).await,
    }
}

impl SourceArgs {
    fn source(&self) -> Option<Source<'_>> {
        match (&self.file, &self.manifests) {
            (Some(file), _) => Some(Source::File(file)),
            (None, Some(folder)) => Some(Source::Manifests(folder, self.name.as_deref())),
            (None, None) => None,
        }
    }

    /// The name, where only the platform can tell the rest.
    fn asked(&self) -> Result<&str, Fault> {
        named(self.name.as_deref())
    }

    async fn read(&self, global: &Global) -> Result<Inspected, Fault> {
        match self.source() {
            Some(source) => source.read(),
            None => source::of_platform(&Client::new(global)?, self.asked()?, &self.place).await,
        }
    }
}

fn named(name: Option<&str>) -> Result<&str, Fault> {
    name.ok_or_else(|| {
        Fault::new(Exit::Usage, "no server is named").hint("name it, or give --file policy.json or --manifests FOLDER")
    })
}

async fn inspect(global: &Global, output: Output, args: &InspectArgs) -> Result<Done, Fault> {
    if let Some(gateway) = &args.gateway {
        let client = Client::at(gateway.as_str(), None)?;
        let mut governed: Vec<view::InForce> = client.get("/config/status", &[]).await?;
        governed.retain(|one| args.source.name.as_ref().is_none_or(|name| *name == one.server));
        render::document(output, &governed, |governed| view::in_force(governed))?;
        return Ok(Done::Well);
    }
    let inspected = args.source.read(global).await?;
    render::document(output, &inspected, view::inspected)?;
    Ok(Done::Well)
}

async fn explain(global: &Global, output: Output, args: &ExplainArgs) -> Result<Done, Fault> {
    let about = [&args.tool, &args.prompt, &args.resource, &args.method];
    if about.iter().all(|about| about.is_none()) {
        return Err(Fault::new(Exit::Usage, "nothing is called")
            .hint("say what: --tool NAME, --prompt NAME, --resource URI or --method METHOD"));
    }
    let explained = match args.source.source() {
        Some(source) => locally(&source.read()?, args)?,
        None => by_platform(&Client::new(global)?, args).await?,
    };
    render::document(output, &explained, view::explained)?;
    Ok(Done::Well)
}

fn locally(inspected: &Inspected, args: &ExplainArgs) -> Result<Explained, Fault> {
    let document = &inspected.policy;
    let session = match &args.session {
        None => None,
        Some(name) => {
            let found = document.sessions.iter().find(|session| session.name == *name);
            let found = found.ok_or_else(|| Fault::new(Exit::NotFound, format!("the policy knows no session `{name}`")))?;
            let own = Some(found.namespace.as_str()).filter(|namespace| !namespace.is_empty());
            Some((own.unwrap_or(&document.server.namespace), found.name.as_str()))
        }
    };
    let target = match (&args.tool, &args.prompt, &args.resource, &args.method) {
        (Some(tool), ..) => Target::Tool(tool),
        (_, Some(prompt), ..) => Target::Prompt(prompt),
        (_, _, Some(uri), _) => Target::Resource(uri),
        (.., method) => Target::of(method.as_deref().unwrap_or_default(), None, None),
    };
    let arguments = args.args.as_ref().map(Value::to_string);
    let (human, agent, team) = (
        text_of(args.human.as_ref()),
        text_of(args.agent.as_ref()),
        text_of(args.as_team.as_ref()),
    );
    let call = Call {
        arguments: arguments.as_deref().map_or(Arguments::Any, Arguments::Json),
        claims: Claims {
            human,
            agent,
            team,
            identity: if human.is_empty() && agent.is_empty() && team.is_empty() {
                Identity::None
            } else {
                Identity::Asserted
            },
            scopes: None,
        },
        presented: session.map_or(Presented::Nothing, |(namespace, name)| Presented::Certified {
            namespace,
            name,
        }),
        ..Call::of(target)
    };
    let explanation = domain::policy::explain(document, &call, args.at.unwrap_or_else(text::now));
    Ok(Explained::of(
        explanation,
        (human, agent, team),
        session.map(|(_, name)| name),
    ))
}

fn text_of(text: Option<&String>) -> &str {
    text.map_or("", String::as_str)
}

async fn by_platform(client: &Client, args: &ExplainArgs) -> Result<Explained, Fault> {
    let server = find(client, args.source.asked()?, &args.source.place).await?;
    let question = json!({
        "namespace": server.namespace, "server": server.name,
        "human": args.human, "agent": args.agent, "team": args.as_team, "session": args.session,
        "tool": args.tool, "prompt": args.prompt, "resource": args.resource, "method": args.method,
        "arguments": args.args, "at": args.at,
    });
    client
        .send(Method::POST, "/api/v1/runtime/policy/explain", Some(&question))
        .await
}

async fn test(global: &Global, output: Output, args: &TestArgs) -> Result<Done, Fault> {
    let place = args.table.display();
    let table: Table = serde_saphyr::from_str(&read_text(&args.table)?)
        .map_err(|error| Fault::new(Exit::Usage, format!("reading the table {place}")).caused_by(&error))?;
    let document = match &table.document {
        Some(document) => source::parse(&document.to_string(), &args.table)?,
        None => args.source.read(global).await?,
    };
    let policy = Policy::compile(&document.policy);
    let now = table.at.unwrap_or_else(text::now);
    let cases: Vec<view::Tested> = table
        .cases
        .iter()
        .map(|case| view::Tested::of(case, &case.run(&policy, now)))
        .collect();
    let failed = cases.iter().filter(|case| !case.passed).count();
    render::document(output, &cases, |cases| view::tested(cases))?;
    Ok(if failed == 0 { Done::Well } else { Done::ButNotWell })
}

async fn diff(global: &Global, output: Output, args: &DiffArgs) -> Result<Done, Fault> {
    let before = match &args.before {
        Some(path) => Source::of_path(path, args.name.as_deref()).read()?,
        None => source::of_platform(&Client::new(global)?, named(args.name.as_deref())?, &args.place).await?,
    };
    let after = Source::of_path(&args.after, args.name.as_deref().or(Some(&before.policy.server.name))).read()?;
    let difference = domain::policy::diff(&before.policy, &after.policy, text::now());
    let changed = view::Compared::of(&difference);
    render::document(output, &changed, view::compared)?;
    Ok(if changed.changes.is_empty() {
        Done::Well
    } else {
        Done::ButNotWell
    })
}

/// How a decision is written everywhere.
fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
    }
}

/// A path as people see it.
fn shown(path: &Path) -> String {
    text::safe(&path.display().to_string())
}

#[cfg(test)]
mod tests;
