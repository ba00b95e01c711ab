//! `server validate`: what is wrong with metadata, and with grants and sessions that speak of it.

use std::path::PathBuf;

use clap::Args;
use crds::word::{PolicyDecision, ToolSideEffect, TrustLevel};
use crds::{Manifests, McpAccessGrant, McpAgentSession};
use serde::Serialize;

use super::MetadataArgs;
use crate::args::Output;
use crate::fault::{Exit, Fault};
use crate::metadata::{Entry, Found, read_text};
use crate::render::{self, Done};

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    metadata: MetadataArgs,
    /// A file of grants to check against it; again for more
    #[arg(long = "grant-file", value_name = "FILE")]
    grant_files: Vec<PathBuf>,
    /// A file of sessions to check against it; again for more
    #[arg(long = "session-file", value_name = "FILE")]
    session_files: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    servers: usize,
    grants: usize,
    sessions: usize,
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl Report {
    fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }
}

pub(super) fn run(output: Output, args: &ValidateArgs) -> Result<Done, Fault> {
    let found = args.metadata.read()?;
    let mut manifests = Manifests::default();
    for path in args.grant_files.iter().chain(&args.session_files) {
        manifests.take(path, &read_text(path)?);
    }
    let mut report = Report {
        servers: found.len(),
        grants: manifests.grants.len(),
        sessions: manifests.sessions.len(),
        faults: manifests.faults.iter().map(ToString::to_string).collect(),
        warnings: Vec::new(),
    };
    for found in &found {
        check_server(found, &mut report);
    }
    let entry = |name: &str| found.iter().map(|found| &found.entry).find(|entry| entry.name == name);
    for grant in &manifests.grants {
        check_grant(grant, entry(&grant.spec.server_ref.name), &mut report);
    }
    for session in &manifests.sessions {
        check_session(session, entry(&session.spec.server_ref.name), &mut report);
    }
    render::document(output, &report, table)?;
    if report.faults.is_empty() {
        Ok(Done::Well)
    } else {
        Err(Fault::new(Exit::Failed, format!("{} faults were found", report.faults.len())))
    }
}

fn table(report: &Report) -> String {
    let faults = report.faults.iter().map(|text| format!("fault:   {text}"));
    let warnings = report.warnings.iter().map(|text| format!("warning: {text}"));
    let mut lines: Vec<String> = faults.chain(warnings).collect();
    lines.push(format!(
        "{} servers, {} grants, {} sessions checked.",
        report.servers, report.grants, report.sessions
    ));
    lines.join("\n")
}

fn check_server(Found { path, entry }: &Found, report: &mut Report) {
    let place = format!("{}: {}", path.display(), entry.name);
    if let Err(error) = domain::ServerName::parse(&entry.name) {
        report.fault(format!("{place}: {error}"));
    }
    if entry.tools.is_empty() {
        report.warn(format!("{place}: no tools are declared, so no grant can name one"));
    }
    for (at, tool) in entry.tools.iter().enumerate() {
        if tool.name.trim().is_empty() {
            report.fault(format!("{place}: tool {} has no name", at + 1));
        }
        if entry.tools.iter().take(at).any(|other| other.name == tool.name) {
            report.fault(format!("{place}: the tool {} is declared twice", tool.name));
        }
        let least = match (tool.side_effect, tool.required_trust()) {
            (ToolSideEffect::Destructive, _) | (_, TrustLevel::High) => "high",
            (ToolSideEffect::Write, _) | (_, TrustLevel::Medium) => "medium",
            (ToolSideEffect::Read, TrustLevel::Low) => "low",
        };
        if tool.risk_level.is_some_and(|declared| rank(declared.as_str()) < rank(least)) {
            report.warn(format!(
                "{place}: the tool {} is declared less risky than its trust and side effect say ({least})",
                tool.name
            ));
        }
    }
}

fn rank(word: &str) -> usize {
    ["low", "medium", "high"].iter().position(|known| *known == word).unwrap_or(0)
}

fn check_grant(grant: &McpAccessGrant, entry: Option<&Entry>, report: &mut Report) {
    let place = format!("grant {}", grant.metadata.name);
    let spec = &grant.spec;
    if spec.subject.is_empty() {
        report.warn(format!("{place}: names nobody, so it is for every identified caller"));
    }
    let Some(entry) = entry else {
        report.warn(format!("{place}: metadata has no server {}", spec.server_ref.name));
        return;
    };
    for rule in spec.tool_rules.iter().filter(|rule| !rule.name.contains('*')) {
        let Some(tool) = entry.tools.iter().find(|tool| tool.name == rule.name) else {
            report.fault(format!("{place}: the server {} declares no tool {}", entry.name, rule.name));
            continue;
        };
        if rule.decision == PolicyDecision::Deny {
            continue;
        }
        if !spec.allowed_side_effects.contains(&tool.side_effect) {
            report.fault(format!(
                "{place}: {} is {}, which allowedSideEffects does not hold, so it stays refused",
                tool.name, tool.side_effect
            ));
        }
        let needed = tool.required_trust().max(rule.required_trust());
        if spec.max_trust() < needed {
            report.fault(format!(
                "{place}: {} needs trust {needed}, and maxTrust is {}, so it stays refused",
                tool.name,
                spec.max_trust()
            ));
        }
    }
}

fn check_session(session: &McpAgentSession, entry: Option<&Entry>, report: &mut Report) {
    let place = format!("session {}", session.metadata.name);
    if session.spec.subject.is_empty() {
        report.fault(format!("{place}: names nobody"));
    }
    let Some(entry) = entry else {
        report.warn(format!("{place}: metadata has no server {}", session.spec.server_ref.name));
        return;
    };
    let above: Vec<_> = entry
        .tools
        .iter()
        .filter(|tool| tool.required_trust() > session.spec.consented_trust())
        .map(|tool| tool.name.as_str())
        .collect();
    if !above.is_empty() {
        report.warn(format!(
            "{place}: consents to trust {}, which is too little for {}",
            session.spec.consented_trust(),
            above.join(", ")
        ));
    }
}
