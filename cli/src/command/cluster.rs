//! `cluster`: what is wrong on a cluster, and what to try.

use clap::{Args, Subcommand};
use owo_colors::OwoColorize as _;
use serde::Serialize;
use serde_json::Value;

use crate::args::Output;
use crate::fault::Fault;
use crate::kubectl;
use crate::render::{self, Done};
use crate::text;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Look for what commonly goes wrong on a cluster, and say what to do about it; exit code 1 when something is
    #[command(
        after_help = "Examples:\n  mcp-runtime cluster doctor\n  mcp-runtime cluster doctor --operator-namespace mcp-runtime -o json"
    )]
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Namespace the operator runs in
    #[arg(long, default_value = "mcp-runtime", value_name = "NAME")]
    operator_namespace: String,
}

/// What was looked at, and what it came to.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Finding {
    what: String,
    ok: bool,
    said: String,
    /// What to try, when it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    fn well(what: &str, said: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            ok: true,
            said: said.into(),
            hint: None,
        }
    }

    fn bad(what: &str, said: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            ok: false,
            hint: Some(hint.into()),
            ..Self::well(what, said)
        }
    }
}

pub(crate) fn run(output: Output, command: &ClusterCommand) -> Result<Done, Fault> {
    let ClusterCommand::Doctor(args) = command;
    let findings = look(&args.operator_namespace);
    render::document(output, &findings, |findings| table(findings))?;
    let is_well = findings.iter().all(|finding| finding.ok);
    Ok(if is_well { Done::Well } else { Done::ButNotWell })
}

/// Asks the cluster, as far as each answer lets the next question make sense.
fn look(namespace: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    match kubectl::json(&["version"]) {
        Ok(version) => findings.push(reachable(&version)),
        Err(fault) => {
            findings.push(failed("cluster", &fault));
            return findings;
        }
    }
    let definitions = kubectl::json(&["get", "customresourcedefinitions"]).map(|found| defined(&found));
    findings.push(definitions.unwrap_or_else(|fault| failed("custom resources", &fault)));
    if findings.iter().any(|finding| !finding.ok) {
        return findings;
    }
    let lease = ["get", "lease", "-n", namespace, "mcp-runtime-operator.mcpruntime.org"];
    findings.push(kubectl::json(&lease).map_or_else(
        |fault| {
            let hint = format!("start the operator in namespace {namespace}, and look at its log");
            Finding::bad("operator", fault.parts().0, hint)
        },
        |lease| working(&lease, text::now().nanos()),
    ));
    match kubectl::json(&["get", "mcpservers", "--all-namespaces"]) {
        Ok(servers) => findings.extend(of_servers(&servers)),
        Err(fault) => findings.push(failed("servers", &fault)),
    }
    for (what, kind) in [("grants", "mcpaccessgrants"), ("sessions", "mcpagentsessions")] {
        match kubectl::json(&["get", kind, "--all-namespaces"]) {
            Ok(objects) => findings.extend(of_access(what, &objects)),
            Err(fault) => findings.push(failed(what, &fault)),
        }
    }
    findings
}

fn failed(what: &str, fault: &Fault) -> Finding {
    let (said, hint) = fault.parts();
    Finding::bad(what, said, hint.unwrap_or("see that your account may read this"))
}

/// Oldest minor version whose API servers check all rules of the definitions.
const MINOR_MIN: u64 = 30;

fn reachable(version: &Value) -> Finding {
    let shown = word(version, "/serverVersion/gitVersion");
    let minor = word(version, "/serverVersion/minor").trim_end_matches('+').parse::<u64>();
    match minor {
        Ok(minor) if minor < MINOR_MIN => Finding::bad(
            "cluster",
            format!("Kubernetes {shown}"),
            format!("upgrade to 1.{MINOR_MIN} or newer"),
        ),
        _ => Finding::well("cluster", format!("Kubernetes {shown}")),
    }
}

fn defined(found: &Value) -> Finding {
    let is_there = |plural: &str| {
        let name = format!("{plural}.{}", crds::GROUP);
        let mut items = list(found, "/items");
        items.any(|item| word(item, "/metadata/name") == name && holds(item, "Established"))
    };
    let missing: Vec<&str> = ["mcpservers", "mcpaccessgrants", "mcpagentsessions"]
        .into_iter()
        .filter(|plural| !is_there(plural))
        .collect();
    if missing.is_empty() {
        return Finding::well("custom resources", "all three are there");
    }
    Finding::bad(
        "custom resources",
        format!("not there: {}", missing.join(", ")),
        "mcp-operator crds | kubectl apply --server-side -f -",
    )
}

/// A holder that has not renewed for this long is gone.
const LEASE_SECONDS: i64 = 60;

fn working(lease: &Value, now: i64) -> Finding {
    let holder = word(lease, "/spec/holderIdentity");
    let renewed = domain::Timestamp::parse(&word(lease, "/spec/renewTime"));
    let age = renewed.map(|renewed| (now - renewed.nanos()) / 1_000_000_000);
    match age {
        Ok(age) if holder != "-" && !holder.is_empty() && age <= LEASE_SECONDS => {
            Finding::well("operator", format!("{holder} is at work"))
        }
        Ok(age) if holder != "-" && !holder.is_empty() => Finding::bad(
            "operator",
            format!("{holder} was last at work {age} seconds ago"),
            "see whether its pods run, and look at their logs",
        ),
        _ => Finding::bad(
            "operator",
            "none is at work",
            "see whether its pods run, and look at their logs",
        ),
    }
}

fn of_servers(servers: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut well = 0;
    for server in list(servers, "/items") {
        let name = format!("{}/{}", word(server, "/metadata/namespace"), word(server, "/metadata/name"));
        let what = format!("server {name}");
        let bad = list(server, "/status/conditions").find(|condition| {
            word(condition, "/reason") == "GatewaysBehind"
                || (word(server, "/status/phase") != "Ready" && word(condition, "/message") == word(server, "/status/message"))
        });
        match (word(server, "/status/phase").as_str(), bad) {
            ("-", _) => findings.push(Finding::bad(
                &what,
                "it has no status",
                "the operator has not seen it: look at the operator's log",
            )),
            (_, Some(condition)) => findings.push(Finding::bad(
                &what,
                word(condition, "/message"),
                remedy(&word(condition, "/reason"), &name),
            )),
            ("Ready", None) => well += 1,
            _ => findings.push(Finding::bad(
                &what,
                word(server, "/status/message"),
                format!("kubectl describe mcps {}", name.replace('/', " -n ")),
            )),
        }
    }
    findings.insert(0, Finding::well("servers", format!("{well} are ready")));
    findings
}

/// What to try about a condition's reason.
fn remedy(reason: &str, name: &str) -> String {
    let (namespace, own) = name.split_once('/').unwrap_or(("default", name));
    match reason {
        "ImagePullFailed" => "check spec.image, spec.imageTag and the pull secret".to_owned(),
        "ContainerCrashing" | "RolloutStuck" | "RollingOut" => {
            format!("mcp-runtime server logs {own} --namespace {namespace} --use-kube")
        }
        "Unschedulable" | "PodsRefused" => "look at nodes, quotas and admission policies".to_owned(),
        "RouteTaken" | "RouteRefused" => "choose another spec.publicPathPrefix or spec.ingressHost".to_owned(),
        "WaitingForIngressController" => {
            "check spec.ingressClass, or start the operator with --ingress-readiness permissive".to_owned()
        }
        "PolicyTooLarge" => "delete grants and sessions that are not needed".to_owned(),
        "GatewaysBehind" => format!(
            "see that the pods reach the operator's port 9443, and that Secret mcp-operator-tls is as it was: kubectl logs -n {namespace} deployment/{own} -c mcp-gateway"
        ),
        _ => format!("kubectl describe mcps -n {namespace} {own}"),
    }
}

fn of_access(what: &str, objects: &Value) -> Vec<Finding> {
    let bad = list(objects, "/items").filter(|object| word(object, "/status/phase") == "Error");
    let mut findings: Vec<Finding> = bad
        .map(|object| {
            let name = format!("{}/{}", word(object, "/metadata/namespace"), word(object, "/metadata/name"));
            Finding::bad(
                &format!("{} {name}", what.trim_end_matches('s')),
                word(object, "/status/message"),
                "correct it, or delete it",
            )
        })
        .collect();
    let all = list(objects, "/items").count();
    findings.insert(
        0,
        Finding::well(what, format!("{} of {all} can be used", all - findings.len())),
    );
    findings
}

fn table(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| {
        let mark = if finding.ok {
            "ok".green().to_string()
        } else {
            "not ok".red().to_string()
        };
        let head = format!("{mark}  {}: {}", finding.what, finding.said);
        match &finding.hint {
            Some(hint) => format!("{head}\n        try: {hint}"),
            None => head,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn holds(object: &Value, kind: &str) -> bool {
    list(object, "/status/conditions").any(|condition| word(condition, "/type") == kind && word(condition, "/status") == "True")
}

fn word(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .map_or_else(|| "-".to_owned(), text::safe)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(phase: &str, reason: &str) -> Value {
        json!({
            "metadata": { "name": "payments", "namespace": "acme" },
            "status": {
                "phase": phase, "message": "why",
                "conditions": [{ "type": "DeploymentReady", "status": "False", "reason": reason, "message": "why" }],
            },
        })
    }

    #[test]
    fn each_trouble_has_its_remedy() {
        let found = |phase: &str, reason: &str| of_servers(&json!({ "items": [server(phase, reason)] })).remove(1);
        let crash = found("Pending", "ContainerCrashing");
        assert_eq!((crash.what.as_str(), crash.said.as_str()), ("server acme/payments", "why"));
        assert_eq!(
            crash.hint.as_deref(),
            Some("mcp-runtime server logs payments --namespace acme --use-kube")
        );
        assert!(
            found("Ready", "GatewaysBehind").hint.unwrap().contains("9443"),
            "a server can be ready and behind"
        );
        assert_eq!(
            of_servers(&json!({ "items": [server("Ready", "AllReplicasReady")] })),
            [Finding::well("servers", "1 are ready")]
        );
        let unseen = json!({ "items": [{ "metadata": { "name": "a", "namespace": "b" } }] });
        assert_eq!(of_servers(&unseen)[1].said, "it has no status");
    }

    #[test]
    fn an_operator_is_at_work_while_it_renews() {
        let now = domain::Timestamp::parse("2026-11-22T00:01:00Z").unwrap().nanos();
        let lease = |renewed: &str| json!({ "spec": { "holderIdentity": "op-1", "renewTime": renewed } });
        assert!(working(&lease("2026-11-22T00:00:58.000000Z"), now).ok);
        assert!(!working(&lease("2026-11-21T23:00:00.000000Z"), now).ok);
        assert!(!working(&json!({ "spec": { "holderIdentity": "" } }), now).ok);
    }

    #[test]
    fn what_is_not_defined_is_named() {
        let definition = |name: &str| json!({ "metadata": { "name": name }, "status": { "conditions": [{ "type": "Established", "status": "True" }] } });
        let found = json!({ "items": [definition("mcpservers.mcpruntime.org"), definition("mcpaccessgrants.mcpruntime.org")] });
        assert_eq!(defined(&found).said, "not there: mcpagentsessions");
        assert!(!reachable(&json!({ "serverVersion": { "gitVersion": "v1.29.0", "minor": "29" } })).ok);
        assert!(reachable(&json!({ "serverVersion": { "gitVersion": "v1.35.1", "minor": "35+" } })).ok);
    }

    #[test]
    fn grants_that_cannot_be_used_are_told_one_by_one() {
        let grant = |name: &str, phase: &str| json!({ "metadata": { "name": name, "namespace": "acme" }, "status": { "phase": phase, "message": "there is no MCPServer acme/x" } });
        let findings = of_access("grants", &json!({ "items": [grant("a", "Active"), grant("b", "Error")] }));
        assert_eq!(findings[0].said, "1 of 2 can be used");
        assert_eq!(findings[1].what, "grant acme/b");
    }
}
