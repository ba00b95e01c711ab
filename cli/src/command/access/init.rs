//! Writing manifests of grants and sessions.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use crds::Manifests;
use serde_json::{Value, json};

use crate::args::Global;
use crate::fault::{Exit, Fault};
use crate::render::{self, Done};
use crate::text;

/// What grants and sessions have in common.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Its name
    name: String,
    /// Namespace of the server, where it belongs
    #[arg(long, short, default_value = "mcp-servers")]
    namespace: String,
    /// The server
    #[arg(long)]
    server: String,
    /// Person: id or e-mail address of an account
    #[arg(long, value_name = "ID")]
    human_id: Option<String>,
    /// Agent
    #[arg(long, value_name = "ID")]
    agent_id: Option<String>,
    /// Team: id or slug
    #[arg(long, value_name = "ID")]
    team_id: Option<String>,
    /// Trust: low, medium or high
    #[arg(long, default_value = "low", value_name = "LEVEL")]
    trust: String,
    /// Name of this version, which events carry
    #[arg(long, default_value = "v1", value_name = "TEXT")]
    policy_version: String,
    /// Replace the file
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GrantArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// What granted calls may do: read, write or destructive; again for more [default: read]
    #[arg(long = "side-effect", value_name = "EFFECT")]
    side_effects: Vec<String>,
    /// A tool that may be called at --trust; again for more
    #[arg(long = "tool", value_name = "NAME")]
    tools: Vec<String>,
    /// A rule for a tool; again for more
    #[arg(long = "tool-rule", value_name = "NAME:allow|deny:low|medium|high")]
    tool_rules: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Ends after this time (1h, 7d)
    #[arg(long, value_name = "TIME", value_parser = text::duration, conflicts_with = "expires_at")]
    expires_in: Option<Duration>,
    /// Ends at this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// Already ended
    #[arg(long)]
    revoked: bool,
    /// Make no token: the session is known by its name, which only servers with `session.verification: name` accept
    #[arg(long)]
    no_token: bool,
    /// Secret with a credential for the server
    #[arg(long, value_name = "NAME")]
    upstream_token_secret: Option<String>,
    /// Key within that Secret
    #[arg(long, default_value = "token", value_name = "KEY")]
    upstream_token_key: String,
}

fn subject(args: &CommonArgs) -> Result<Value, Fault> {
    let named = [
        ("humanID", &args.human_id),
        ("agentID", &args.agent_id),
        ("teamID", &args.team_id),
    ];
    let named: serde_json::Map<String, Value> = named
        .into_iter()
        .filter_map(|(name, id)| Some((name.to_owned(), Value::from(id.clone()?))))
        .collect();
    if named.is_empty() {
        return Err(Fault::new(Exit::Usage, "nobody is named").hint("give --human-id, --agent-id or --team-id"));
    }
    Ok(Value::Object(named))
}

fn manifest(kind: &str, args: &CommonArgs, spec: &Value) -> Value {
    json!({
        "apiVersion": crds::API_VERSION,
        "kind": kind,
        "metadata": { "name": args.name, "namespace": args.namespace },
        "spec": spec,
    })
}

pub(super) fn grant(global: &Global, args: &GrantArgs) -> Result<Done, Fault> {
    let mut rules: Vec<Value> = args
        .tools
        .iter()
        .map(|name| json!({ "name": name, "decision": "allow", "requiredTrust": args.common.trust }))
        .collect();
    for rule in &args.tool_rules {
        let mut parts = rule.rsplitn(3, ':');
        let (Some(trust), Some(decision), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(
                Fault::new(Exit::Usage, format!("--tool-rule `{rule}` is not NAME:DECISION:TRUST"))
                    .hint("such as refund_invoice:allow:high"),
            );
        };
        rules.push(json!({ "name": name, "decision": decision, "requiredTrust": trust }));
    }
    if rules.is_empty() {
        render::note("note: no tools are named, so the grant is for every tool within its trust and side effects");
    }
    let effects = if args.side_effects.is_empty() {
        vec!["read".to_owned()]
    } else {
        args.side_effects.clone()
    };
    let spec = json!({
        "serverRef": { "name": args.common.server },
        "subject": subject(&args.common)?,
        "maxTrust": args.common.trust,
        "allowedSideEffects": effects,
        "policyVersion": args.common.policy_version,
        "toolRules": rules,
    });
    let manifest = manifest("MCPAccessGrant", &args.common, &spec);
    write(global, "grant.yaml", args.common.force, &manifest, None)
}

pub(super) fn session(global: &Global, args: &SessionArgs) -> Result<Done, Fault> {
    let mut spec = json!({
        "serverRef": { "name": args.common.server },
        "subject": subject(&args.common)?,
        "consentedTrust": args.common.trust,
        "policyVersion": args.common.policy_version,
    });
    let ends = args
        .expires_in
        .map(|time| text::now().plus(time).to_string())
        .or_else(|| args.expires_at.clone());
    if let Some(ends) = ends {
        spec["expiresAt"] = json!(ends);
    }
    if args.revoked {
        spec["revoked"] = json!(true);
    }
    if let Some(secret) = &args.upstream_token_secret {
        spec["upstreamTokenSecretRef"] = json!({ "name": secret, "key": args.upstream_token_key });
    }
    let token = if args.no_token { None } else { Some(fresh_token()?) };
    if let Some(token) = &token {
        spec["tokenHash"] = json!(domain::policy::token_hash(token));
    }
    let manifest = manifest("MCPAgentSession", &args.common, &spec);
    write(global, "session.yaml", args.common.force, &manifest, token.as_deref())
}

/// What proves that a caller holds the session: known to them alone, the manifest has its hash.
fn fresh_token() -> Result<String, Fault> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Fault::new(Exit::Failed, "making a token").caused_by(&error))?;
    let mut token = "mcpa_".to_owned();
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ignored = write!(token, "{byte:02x}");
    }
    Ok(token)
}

/// Writes a manifest that can be read back: words that nobody knows are told now, not when it is applied.
fn write(global: &Global, usual: &str, force: bool, manifest: &Value, token: Option<&str>) -> Result<Done, Fault> {
    let (output, path) = global.form_and_file();
    let path = path.unwrap_or(Path::new(usual));
    let text = serde_saphyr::to_string(manifest)
        .map_err(|error| Fault::new(Exit::Failed, "writing the manifest").caused_by(&error))?;
    let mut read = Manifests::default();
    read.take(path, &text);
    if let Some(fault) = read.faults.first() {
        return Err(Fault::new(Exit::Usage, fault.to_string()));
    }
    if path.as_os_str() == "-" {
        if let Some(token) = token {
            render::note(&kept_once(token));
        }
        return render::text(&text).map(|()| Done::Well);
    }
    if path.exists() && !force {
        return Err(Fault::new(Exit::Conflict, format!("{} is there already", path.display()))
            .hint("replace it with --force, or name another with --output"));
    }
    std::fs::write(path, text)
        .map_err(|error| Fault::new(Exit::Failed, format!("writing {}", path.display())).caused_by(&error))?;
    let mut written = json!({ "file": path });
    if let Some(token) = token {
        written["token"] = json!(token);
    }
    render::document(output, &written, |_| {
        let kept = token.map_or_else(String::new, |token| format!("\n{}", kept_once(token)));
        format!("Written to {}.{kept}", path.display())
    })?;
    Ok(Done::Well)
}

fn kept_once(token: &str) -> String {
    format!(
        "The session's token, which callers send as {}; keep it now, it is not shown again:\n\n  {token}\n",
        crds::server::DEFAULT_SESSION_ID_HEADER
    )
}
