//! `access`: grants and sessions.

mod init;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use crds::Manifests;
use domain::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::args::{Global, Output};
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::metadata::read_text;
use crate::render::{self, Done};
use crate::text;

#[derive(Debug, Subcommand)]
pub(crate) enum AccessCommand {
    /// Who may call which tools of a server
    #[command(subcommand)]
    Grant(GrantCommand),
    /// What a person has consented to for an agent, for a while
    #[command(subcommand)]
    Session(SessionCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Write a manifest of a grant into the file that --output names (`grant.yaml` without it; `-` prints)
    #[command(
        after_help = "Example:\n  mcp-runtime access grant init cursor --server payments --agent-id cursor --tool list_invoices --tool-rule refund_invoice:allow:high --side-effect read --output grant.yaml"
    )]
    Init(Box<init::GrantArgs>),
    /// Make or replace what a file of manifests holds
    #[command(after_help = "Example:\n  mcp-runtime access grant apply --file grant.yaml")]
    Apply(ApplyArgs),
    /// List grants
    #[command(after_help = "Example:\n  mcp-runtime access grant list --server payments")]
    List(ListArgs),
    /// Show one grant, whole
    #[command(after_help = "Example:\n  mcp-runtime access grant get cursor -o yaml")]
    Get(NameArgs),
    /// Remove a grant
    #[command(after_help = "Example:\n  mcp-runtime access grant delete cursor")]
    Delete(NameArgs),
    /// Switch a grant on
    #[command(after_help = "Example:\n  mcp-runtime access grant enable cursor")]
    Enable(NameArgs),
    /// Switch a grant off
    #[command(after_help = "Example:\n  mcp-runtime access grant disable cursor")]
    Disable(NameArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Write a manifest of a session into the file that --output names (`session.yaml` without it; `-` prints)
    #[command(
        after_help = "Example:\n  mcp-runtime access session init cursor --server payments --human-id ada@example.com --agent-id cursor --trust medium --expires-in 1h --output session.yaml"
    )]
    Init(Box<init::SessionArgs>),
    /// Make or replace what a file of manifests holds (administrators; adapters get sessions by themselves)
    #[command(after_help = "Example:\n  mcp-runtime access session apply --file session.yaml")]
    Apply(ApplyArgs),
    /// List sessions
    #[command(after_help = "Example:\n  mcp-runtime access session list --server payments")]
    List(ListArgs),
    /// Show one session, whole
    #[command(after_help = "Example:\n  mcp-runtime access session get cursor -o yaml")]
    Get(NameArgs),
    /// Remove a session
    #[command(after_help = "Example:\n  mcp-runtime access session delete cursor")]
    Delete(NameArgs),
    /// End a session now, until that is undone
    #[command(after_help = "Example:\n  mcp-runtime access session revoke cursor")]
    Revoke(NameArgs),
    /// Undo a revocation
    #[command(after_help = "Example:\n  mcp-runtime access session unrevoke cursor")]
    Unrevoke(NameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Manifests; `-` for standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Check everything, but change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only in this namespace
    #[arg(long, short)]
    namespace: Option<String>,
    /// Only of this server
    #[arg(long)]
    server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Its name
    name: String,
    /// Its namespace [default: wherever there is only one of that name]
    #[arg(long, short)]
    namespace: Option<String>,
}

/// What of the two kinds is meant.
#[derive(Debug, Clone, Copy)]
struct Kind {
    word: &'static str,
    path: &'static str,
}

const GRANT: Kind = Kind {
    word: "grant",
    path: "/api/v1/runtime/grants",
};
const SESSION: Kind = Kind {
    word: "session",
    path: "/api/v1/runtime/sessions",
};

/// A grant or session as the API tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    name: String,
    namespace: String,
    phase: String,
    age: Timestamp,
    server_ref: ServerRef,
    subject: Map<String, Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ServerRef {
    name: String,
}

#[derive(Debug, Serialize)]
struct Applied {
    applied: Vec<Object>,
}

pub(crate) async fn run(global: &Global, command: AccessCommand) -> Result<Done, Fault> {
    match &command {
        AccessCommand::Grant(GrantCommand::Init(args)) => return init::grant(global, args),
        AccessCommand::Session(SessionCommand::Init(args)) => return init::session(global, args),
        _ => {}
    }
    let output = global.form()?;
    match command {
        AccessCommand::Grant(command) => {
            let client = Client::new(global)?;
            match command {
                GrantCommand::Init(_) => Ok(Done::Well),
                GrantCommand::Apply(args) => apply(&client, output, &args).await,
                GrantCommand::List(args) => list(&client, output, GRANT, &args).await,
                GrantCommand::Get(args) => get(&client, output, GRANT, &args).await,
                GrantCommand::Delete(args) => delete(&client, output, GRANT, &args).await,
                GrantCommand::Enable(args) => switch(&client, output, GRANT, &args, "enable").await,
                GrantCommand::Disable(args) => switch(&client, output, GRANT, &args, "disable").await,
            }
        }
        AccessCommand::Session(command) => {
            let client = Client::new(global)?;
            match command {
                SessionCommand::Init(_) => Ok(Done::Well),
                SessionCommand::Apply(args) => apply(&client, output, &args).await,
                SessionCommand::List(args) => list(&client, output, SESSION, &args).await,
                SessionCommand::Get(args) => get(&client, output, SESSION, &args).await,
                SessionCommand::Delete(args) => delete(&client, output, SESSION, &args).await,
                SessionCommand::Revoke(args) => switch(&client, output, SESSION, &args, "revoke").await,
                SessionCommand::Unrevoke(args) => switch(&client, output, SESSION, &args, "unrevoke").await,
            }
        }
    }
}

/// Applies every grant and session of a file. Nothing is sent when anything in it cannot be read.
async fn apply(client: &Client, output: Output, args: &ApplyArgs) -> Result<Done, Fault> {
    let text = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
            .map_err(|error| Fault::new(Exit::Failed, "reading standard input").caused_by(&error))?
    } else {
        read_text(&args.file)?
    };
    let mut manifests = Manifests::default();
    manifests.take(&args.file, &text);
    if let Some(fault) = manifests.faults.first() {
        return Err(Fault::new(Exit::Usage, fault.to_string()));
    }
    let mut bodies: Vec<(Kind, Value)> = Vec::new();
    for grant in &manifests.grants {
        bodies.push((GRANT, body(&grant.metadata, &grant.spec)?));
    }
    for session in &manifests.sessions {
        bodies.push((SESSION, body(&session.metadata, &session.spec)?));
    }
    if bodies.is_empty() {
        return Err(Fault::new(
            Exit::Usage,
            format!("{} holds neither a grant nor a session", args.file.display()),
        ));
    }
    let mut applied = Applied { applied: Vec::new() };
    for (kind, body) in bodies {
        let path = if args.dry_run {
            format!("{}?dryRun=true", kind.path)
        } else {
            kind.path.to_owned()
        };
        let answer: Map<String, Value> = client.send(Method::POST, &path, Some(&body)).await?;
        applied.applied.push(inner(answer, kind)?);
    }
    let done = if args.dry_run { "would be applied" } else { "is applied" };
    render::document(output, &applied, |applied| {
        let lines: Vec<_> = applied
            .applied
            .iter()
            .map(|object| format!("{} in {} {done}.", object.name, object.namespace))
            .collect();
        lines.join("\n")
    })?;
    Ok(Done::Well)
}

fn body<N: Serialize, T: Serialize>(metadata: &crds::Metadata<N>, spec: &T) -> Result<Value, Fault> {
    let unwritable = |error: serde_json::Error| Fault::new(Exit::Failed, "writing the request").caused_by(&error);
    let mut body = serde_json::to_value(spec).map_err(unwritable)?;
    if let Value::Object(fields) = &mut body {
        fields.insert("name".to_owned(), serde_json::to_value(&metadata.name).map_err(unwritable)?);
        fields.insert("namespace".to_owned(), Value::from(metadata.namespace.as_str()));
    }
    Ok(body)
}

fn inner(mut answer: Map<String, Value>, kind: Kind) -> Result<Object, Fault> {
    let value = answer.remove(kind.word).unwrap_or_default();
    serde_json::from_value(value).map_err(|error| Fault::new(Exit::Failed, "reading the answer").caused_by(&error))
}

async fn read(client: &Client, kind: Kind, namespace: Option<&String>, server: Option<&String>) -> Result<Vec<Object>, Fault> {
    let mut all: Vec<Object> = Vec::new();
    loop {
        let mut parameters = vec![("limit", "500".to_owned())];
        parameters.extend(namespace.map(|namespace| ("namespace", namespace.clone())));
        parameters.extend(server.map(|server| ("server", server.clone())));
        parameters.extend(all.last().map(|last| ("after", format!("{}/{}", last.namespace, last.name))));
        let mut page: Map<String, Value> = client.get(kind.path, &parameters).await?;
        let rows = page.remove(&format!("{}s", kind.word)).unwrap_or_default();
        let rows: Vec<Object> =
            serde_json::from_value(rows).map_err(|error| Fault::new(Exit::Failed, "reading the answer").caused_by(&error))?;
        all.extend(rows);
        if !page.contains_key("next") {
            return Ok(all);
        }
    }
}

async fn list(client: &Client, output: Output, kind: Kind, args: &ListArgs) -> Result<Done, Fault> {
    let found = read(client, kind, args.namespace.as_ref(), args.server.as_ref()).await?;
    let mut body = Map::new();
    body.insert(format!("{}s", kind.word), serde_json::to_value(&found).unwrap_or_default());
    render::document(output, &body, |_| table(kind, &found))?;
    Ok(Done::Well)
}

fn table(kind: Kind, found: &[Object]) -> String {
    if found.is_empty() {
        return format!("No {}s that you may see.", kind.word);
    }
    let rows = found.iter().map(|object| {
        let word = |name: &str| {
            object
                .rest
                .get(name)
                .and_then(Value::as_str)
                .map_or_else(|| "-".to_owned(), text::safe)
        };
        let subject: Vec<_> = object
            .subject
            .iter()
            .filter_map(|(name, value)| Some(format!("{}={}", name.trim_end_matches("ID"), text::safe(value.as_str()?))))
            .collect();
        let (trust, more) = if kind.word == "grant" {
            let rules = object.rest.get("toolRules").and_then(Value::as_array).map_or(0, Vec::len);
            (
                word("maxTrust"),
                if rules == 0 {
                    "any tool".to_owned()
                } else {
                    format!("{rules} rules")
                },
            )
        } else {
            (word("consentedTrust"), word("expiresAt"))
        };
        vec![
            object.name.clone(),
            object.namespace.clone(),
            object.server_ref.name.clone(),
            subject.join(" "),
            trust,
            more,
            object.phase.clone(),
            text::age(object.age),
        ]
    });
    let more = if kind.word == "grant" { "TOOLS" } else { "ENDS" };
    render::table(
        &["NAME", "NAMESPACE", "SERVER", "SUBJECT", "TRUST", more, "STATE", "AGE"],
        rows,
    )
}

/// The one object of a name, wherever the caller may look.
async fn find(client: &Client, kind: Kind, args: &NameArgs) -> Result<Object, Fault> {
    if let Some(namespace) = &args.namespace {
        let answer: Map<String, Value> = client.get(&format!("{}/{namespace}/{}", kind.path, args.name), &[]).await?;
        return inner(answer, kind);
    }
    let mut found = read(client, kind, None, None).await?;
    found.retain(|object| object.name == args.name);
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Fault::new(
            Exit::NotFound,
            format!("there is no {} `{}` that you may see", kind.word, args.name),
        )
        .hint(format!("list them: mcp-runtime access {} list", kind.word))),
        _ => Err(
            Fault::new(Exit::Usage, format!("there are several {}s `{}`", kind.word, args.name))
                .hint("name one with --namespace"),
        ),
    }
}

async fn get(client: &Client, output: Output, kind: Kind, args: &NameArgs) -> Result<Done, Fault> {
    let object = find(client, kind, args).await?;
    render::document(output, &object, |object| {
        serde_saphyr::to_string(object).unwrap_or_default().trim_end().to_owned()
    })?;
    Ok(Done::Well)
}

async fn delete(client: &Client, output: Output, kind: Kind, args: &NameArgs) -> Result<Done, Fault> {
    let object = find(client, kind, args).await?;
    let removed: Value = client
        .send(
            Method::DELETE,
            &format!("{}/{}/{}", kind.path, object.namespace, object.name),
            None,
        )
        .await?;
    render::document(output, &removed, |_| {
        format!("The {} {} in {} is removed.", kind.word, object.name, object.namespace)
    })?;
    Ok(Done::Well)
}

async fn switch(client: &Client, output: Output, kind: Kind, args: &NameArgs, verb: &str) -> Result<Done, Fault> {
    let object = find(client, kind, args).await?;
    let path = format!("{}/{}/{}/{verb}", kind.path, object.namespace, object.name);
    let answer: Map<String, Value> = client.send(Method::POST, &path, None).await?;
    let object = inner(answer, kind)?;
    render::document(output, &object, |object| {
        format!(
            "The {} {} in {} is {}.",
            kind.word,
            object.name,
            object.namespace,
            object.phase.to_lowercase()
        )
    })?;
    Ok(Done::Well)
}
