//! What became of a server, and of the grants and sessions about it, as their status tells.
//!
//! Pure: it reads what objects and pods say. A statement keeps its time as long as it holds, so that an unchanged state gives an
//! equal status, and an equal status is not written again.

use crds::object::{Condition, ConditionStatus};
use crds::server::{McpServerStatus, PolicyStatus};
use serde_json::Value;

use crate::args::{RouteReadiness, Settings};
use crate::build::{base_url, canary_name};
use crate::feed::Acknowledgements;
use crate::object::{Kind, number, text};
use crate::policy::Policy;
use crate::validate::{Checked, Fault, Via};
use crate::world::Facts;

mod access;
mod acknowledged;

pub(crate) use access::seconds;
pub use access::{of_grant, of_session};

/// What one pass over a server came to.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The spec cannot be built.
    Invalid(&'a [Fault]),
    /// Everything that could be written is written.
    Applied {
        checked: &'a Checked,
        policy: Option<&'a Result<Policy, Fault>>,
        /// What the gateways say they run.
        said: &'a Acknowledgements,
        /// The first step that failed, in words for programs and for people.
        failed: Option<(&'static str, String)>,
    },
}

/// Reasons that do not pass by themselves: somebody has to change something.
const ERRORS: &[&str] = &[
    "NameTaken",
    "Refused",
    "RouteTaken",
    "RouteRefused",
    "PolicyTooLarge",
    "PolicyInvalid",
];

/// One statement, before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    kind: &'static str,
    holds: ConditionStatus,
    reason: &'static str,
    message: String,
}

impl Statement {
    fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds: ConditionStatus::True,
            reason,
            message: message.into(),
        }
    }

    fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: ConditionStatus::False,
            ..Self::yes(kind, reason, message)
        }
    }

    fn is_true(&self) -> bool {
        self.holds == ConditionStatus::True
    }
}

/// The status of a server. `facts` is what is known after the pass, `old` what was said before, `now` RFC 3339.
pub fn of_server(facts: &Facts, generation: i64, outcome: &Outcome<'_>, settings: &Settings, now: &str) -> McpServerStatus {
    let old = facts.server.as_ref().map(|server| server.status.clone()).unwrap_or_default();
    let (statements, mut status) = match outcome {
        Outcome::Invalid(faults) => invalid(faults, &old),
        Outcome::Applied {
            checked,
            policy,
            said,
            failed,
        } => applied(facts, checked, (*policy, said), failed.as_ref(), settings),
    };
    status.observed_generation = Some(generation);
    status.conditions = dated(&statements, &old.conditions, generation, now);
    status
}

fn invalid(faults: &[Fault], old: &McpServerStatus) -> (Vec<Statement>, McpServerStatus) {
    let message = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let reason = faults.first().map_or("InvalidSpec", |fault| fault.reason.as_str());
    let kinds = [
        "DeploymentReady",
        "ServiceReady",
        "IngressReady",
        "GatewayReady",
        "PolicyReady",
        "CanaryReady",
        "Reconciled",
    ];
    let statements = kinds
        .into_iter()
        .map(|kind| Statement::no(kind, reason, message.clone()))
        .collect();
    let status = McpServerStatus {
        phase: Some("Error".to_owned()),
        message: Some(message),
        url: old.url.clone(),
        image: old.image.clone(),
        policy: old.policy.clone(),
        ..McpServerStatus::default()
    };
    (statements, status)
}

#[expect(
    clippy::too_many_lines,
    reason = "one statement after the other, and what they come to together"
)]
fn applied(
    facts: &Facts,
    checked: &Checked,
    (policy, said): (Option<&Result<Policy, Fault>>, &Acknowledgements),
    failed: Option<&(&'static str, String)>,
    settings: &Settings,
) -> (Vec<Statement>, McpServerStatus) {
    let stable = Pods {
        kind: "DeploymentReady",
        name: checked.key.name.clone(),
        track: "stable",
        replicas: checked.stable.replicas,
    };
    let deployment = deployment(facts, &stable);
    let canary = match &checked.canary {
        Some(canary) => self::deployment(
            facts,
            &Pods {
                kind: "CanaryReady",
                name: canary_name(&checked.key.name),
                track: "canary",
                replicas: canary.replicas,
            },
        ),
        None => Statement::no("CanaryReady", "NoCanary", "no canary is asked for"),
    };
    let gateway = gateway(checked, &deployment);
    let service = service(facts, checked);
    let (ingress, address) = route(facts, checked, settings);
    let policy_said = policy_statement(facts, policy);
    let reconciled = match failed {
        Some((reason, message)) => Statement::no("Reconciled", reason, message.clone()),
        None => Statement::yes("Reconciled", "Converged", "every object is as it should be"),
    };
    let (governed, has_canary) = (checked.gateway.is_some(), checked.canary.is_some());
    let mut needed = vec![&reconciled, &deployment, &service, &ingress];
    if governed {
        needed.extend([&policy_said, &gateway]);
    }
    if has_canary {
        needed.push(&canary);
    }
    let is_error = |statement: &&&Statement| ERRORS.contains(&statement.reason);
    // What will not pass by itself is told first.
    let lacking: Vec<&&Statement> = needed.iter().filter(|statement| !statement.is_true()).collect();
    let worst = lacking
        .iter()
        .copied()
        .find(|statement| is_error(statement))
        .or(lacking.first().copied());
    let phase = match worst {
        None => "Ready",
        Some(statement) if is_error(&statement) => "Error",
        // Everything written and nothing running yet is no partial readiness.
        Some(_) if deployment.is_true() => "PartiallyReady",
        Some(_) => "Pending",
    };
    let rendered = policy.and_then(|policy| policy.as_ref().ok());
    let asked = rendered.filter(|_| settings.policy_url.is_some());
    let acknowledged = asked.map(|policy| acknowledged::statement(facts, policy, said));
    let status = McpServerStatus {
        phase: Some(phase.to_owned()),
        message: Some(worst.map_or_else(|| "the server is ready".to_owned(), |statement| statement.message.clone())),
        url: url(checked, address.as_deref(), settings),
        image: Some(checked.stable.image.clone()),
        policy: rendered.map(|policy| PolicyStatus {
            revision: Some(policy.revision.clone()),
            active_replicas: asked.map(|policy| acknowledged::active(policy, said)),
            grants: policy.grants,
            sessions: policy.sessions,
        }),
        deployment_ready: deployment.is_true(),
        service_ready: service.is_true(),
        ingress_ready: ingress.is_true(),
        gateway_ready: gateway.is_true(),
        policy_ready: policy_said.is_true(),
        canary_ready: canary.is_true(),
        ..McpServerStatus::default()
    };
    let mut statements = vec![deployment, service, ingress, gateway, policy_said, canary, reconciled];
    statements.extend(acknowledged);
    (statements, status)
}

/// Whose pods a statement is about.
struct Pods {
    kind: &'static str,
    name: String,
    track: &'static str,
    replicas: Option<u32>,
}

/// What a Deployment and its pods say. A rollout counts once all wanted pods are of the newest revision.
fn deployment(facts: &Facts, pods: &Pods) -> Statement {
    let (kind, name) = (pods.kind, &pods.name);
    let Some(live) = facts.live.get(&(Kind::Deployment, name.clone())) else {
        return Statement::no(kind, "NotCreated", format!("Deployment {name} is not there yet"));
    };
    let asked = || live.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let wanted = pods.replicas.map_or_else(asked, i64::from);
    let (ready, updated) = (number(live, "/status/readyReplicas"), number(live, "/status/updatedReplicas"));
    let is_seen = number(live, "/status/observedGeneration") >= number(live, "/metadata/generation");
    if !is_seen && let Some(old) = unchanged(facts, kind) {
        return old;
    }
    let total = number(live, "/status/replicas");
    if is_seen && ready >= wanted && updated >= wanted && total == wanted {
        return match wanted {
            0 => Statement::yes(kind, "ScaledToZero", "no pods are asked for"),
            _ => Statement::yes(kind, "AllReplicasReady", format!("{wanted} of {wanted} pods are ready")),
        };
    }
    if let Some(trouble) = trouble(facts, live, pods) {
        return trouble;
    }
    // The exact count of ready pods changes with each pod; it is told, since each step is news.
    Statement::no(
        kind,
        "RollingOut",
        format!("{updated} of {wanted} pods are updated, {ready} are ready"),
    )
}

/// What was said before, while the Deployment's controller has yet to look at a change that nobody asked the operator for: an
/// annotation by somebody else makes a new generation too, and must not make a running server unready for a blink.
fn unchanged(facts: &Facts, kind: &'static str) -> Option<Statement> {
    let server = facts.server.as_ref()?;
    if server.status.observed_generation != Some(server.generation) {
        return None;
    }
    let old = server
        .status
        .conditions
        .iter()
        .find(|old| old.kind == kind && old.status == ConditionStatus::True)?;
    let reason = ["AllReplicasReady", "ScaledToZero"]
        .into_iter()
        .find(|reason| *reason == old.reason)?;
    Some(Statement::yes(kind, reason, old.message.clone()))
}

/// What keeps pods from being there, in their own words or in those of whoever makes them.
fn trouble(facts: &Facts, live: &Value, pods: &Pods) -> Option<Statement> {
    let of_track = facts.pods.iter().filter(|pod| pod.track == pods.track);
    let of_pods = of_track.filter_map(|pod| {
        let trouble = pod.trouble.as_ref()?;
        Some(Statement::no(
            pods.kind,
            trouble.reason,
            format!("pod {}: {}", pod.name, trouble.message),
        ))
    });
    let conditions = live
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let of_deployment = conditions.filter_map(|condition| {
        let (what, holds, reason) = (
            text(condition, "/type"),
            text(condition, "/status"),
            text(condition, "/reason"),
        );
        match (what, holds, reason) {
            ("ReplicaFailure", "True", _) => Some(Statement::no(pods.kind, "PodsRefused", text(condition, "/message"))),
            ("Progressing", _, "ProgressDeadlineExceeded") => Some(Statement::no(
                pods.kind,
                "RolloutStuck",
                "no pod has become ready for too long; see the pods' logs",
            )),
            _ => None,
        }
    });
    of_pods.chain(of_deployment).next()
}

fn gateway(checked: &Checked, deployment: &Statement) -> Statement {
    match (&checked.gateway, deployment.is_true()) {
        (None, _) => Statement::no(
            "GatewayReady",
            "NotGoverned",
            "spec.gateway.enabled is not set; calls are neither judged nor recorded",
        ),
        // A pod is ready when its sidecar is, so the Deployment speaks for both.
        (Some(_), true) => Statement::yes("GatewayReady", "GatewaysReady", "every pod's gateway is ready"),
        (Some(_), false) => Statement::no("GatewayReady", deployment.reason, deployment.message.clone()),
    }
}

fn service(facts: &Facts, checked: &Checked) -> Statement {
    let name = &checked.key.name;
    match facts.live.get(&(Kind::Service, name.clone())) {
        Some(live) if !text(live, "/spec/clusterIP").is_empty() => {
            Statement::yes("ServiceReady", "AddressAssigned", format!("Service {name} has an address"))
        }
        Some(_) => Statement::no("ServiceReady", "NoAddress", format!("Service {name} has no address yet")),
        None => Statement::no("ServiceReady", "NotCreated", format!("Service {name} is not there yet")),
    }
}

/// What the route says, and the address under which it is reached when it has no host.
fn route(facts: &Facts, checked: &Checked, settings: &Settings) -> (Statement, Option<String>) {
    const KIND: &str = "IngressReady";
    let route = match &checked.route {
        Ok(route) => route,
        Err(fault) => return (Statement::no(KIND, fault.reason.as_str(), fault.message.clone()), None),
    };
    let (kind, name) = match route.via {
        Via::Ingress { .. } => (Kind::Ingress, &checked.key.name),
        Via::HttpRoute { .. } => (Kind::HttpRoute, &checked.key.name),
    };
    let Some(live) = facts.live.get(&(kind, name.clone())) else {
        return (
            Statement::no(KIND, "NotCreated", format!("{kind} {name} is not there yet")),
            None,
        );
    };
    if kind == Kind::HttpRoute {
        return (http_route(live, name), None);
    }
    let balancer = live.pointer("/status/loadBalancer/ingress/0");
    let address = balancer.map(|at| {
        [text(at, "/hostname"), text(at, "/ip")]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_owned()
    });
    let statement = match (&address, settings.route_readiness) {
        (Some(_), _) => Statement::yes(KIND, "Admitted", format!("the ingress controller serves {}", route.path)),
        (None, RouteReadiness::Permissive) => Statement::yes(
            KIND,
            "Created",
            format!("Ingress {name} is there; its controller reports no address"),
        ),
        (None, RouteReadiness::Strict) => Statement::no(
            KIND,
            "WaitingForIngressController",
            format!(
                "no ingress controller has taken up Ingress {name}; check spec.ingressClass, or run the operator with --ingress-readiness permissive"
            ),
        ),
    };
    (statement, address.filter(|address| !address.is_empty()))
}

fn http_route(live: &Value, name: &str) -> Statement {
    let parents = live
        .pointer("/status/parents")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let conditions = parents.filter_map(|parent| parent.get("conditions")?.as_array()).flatten();
    let accepted: Vec<&Value> = conditions
        .filter(|condition| text(condition, "/type") == "Accepted")
        .collect();
    if accepted.iter().any(|condition| text(condition, "/status") == "True") {
        return Statement::yes("IngressReady", "Accepted", format!("a Gateway serves HTTPRoute {name}"));
    }
    match accepted.first() {
        Some(refused) => Statement::no("IngressReady", "NotAccepted", text(refused, "/message")),
        None => Statement::no(
            "IngressReady",
            "WaitingForGateway",
            format!("no Gateway has taken up HTTPRoute {name}; check spec.httpRoute.parentRefs"),
        ),
    }
}

fn policy_statement(facts: &Facts, policy: Option<&Result<Policy, Fault>>) -> Statement {
    const KIND: &str = "PolicyReady";
    match policy {
        None => Statement::no(KIND, "NotGoverned", "spec.gateway.enabled is not set; there is no policy"),
        Some(Err(fault)) => Statement::no(KIND, fault.reason.as_str(), fault.message.clone()),
        Some(Ok(policy)) => {
            let name = crate::build::policy_name(&facts.key.name);
            let is_there = facts
                .live
                .get(&(Kind::ConfigMap, name.clone()))
                .is_some_and(|live| crate::object::annotation(live, crate::POLICY_REVISION) == policy.revision);
            if is_there {
                Statement::yes(
                    KIND,
                    "Published",
                    format!("{} grants and {} sessions are published", policy.grants, policy.sessions),
                )
            } else {
                Statement::no(
                    KIND,
                    "NotPublished",
                    format!("ConfigMap {name} does not hold the newest policy yet"),
                )
            }
        }
    }
}

fn url(checked: &Checked, address: Option<&str>, settings: &Settings) -> Option<String> {
    let route = checked.route.as_ref().ok()?;
    let base = base_url(checked, settings).or_else(|| {
        let scheme = if settings.ingress_tls { "https" } else { "http" };
        address.map(|address| format!("{scheme}://{address}"))
    })?;
    Some(format!("{base}{}", route.path))
}

/// Gives statements their time: that of the old one while it says the same.
fn dated(statements: &[Statement], old: &[Condition], generation: i64, now: &str) -> Vec<Condition> {
    let date = |statement: &Statement| {
        let same = old
            .iter()
            .find(|old| old.kind == statement.kind && old.status == statement.holds);
        Condition {
            kind: statement.kind.to_owned(),
            status: statement.holds,
            reason: statement.reason.to_owned(),
            message: statement.message.clone(),
            last_transition_time: same.map_or_else(|| now.to_owned(), |old| old.last_transition_time.clone()),
            observed_generation: Some(generation),
        }
    };
    statements.iter().map(date).collect()
}

#[cfg(test)]
mod tests;
