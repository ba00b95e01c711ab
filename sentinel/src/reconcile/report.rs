//! What is told about a server: its status, from what was found. Pure.

use crds::object::{Condition, ConditionStatus};
use crds::server::{McpServerStatus, PolicyStatus};
use domain::Timestamp;

use super::launch::Launch;
use super::runner::{Phase, State};
use super::wanted::Wanted;

/// What was found about a server.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) wanted: &'a Wanted,
    /// Where clients reach it.
    pub(crate) url: String,
    pub(crate) generation: i64,
    /// How it runs; absent when it cannot.
    pub(crate) state: Option<&'a State>,
    /// What is in force.
    pub(crate) policy: Option<PolicyStatus>,
}

/// One statement.
struct Statement {
    kind: &'static str,
    holds: ConditionStatus,
    reason: &'static str,
    message: String,
}

impl Statement {
    fn new(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds: if holds {
                ConditionStatus::True
            } else {
                ConditionStatus::False
            },
            reason,
            message: message.into(),
        }
    }

    fn is_true(&self) -> bool {
        self.holds == ConditionStatus::True
    }
}

/// The status of a server. What has not changed since `before` keeps the time of its last change.
pub(crate) fn status(found: &Found<'_>, before: Option<&McpServerStatus>, now: Timestamp) -> McpServerStatus {
    let running = running(found);
    let route = match &found.wanted.route {
        Ok(()) => Statement::new("IngressReady", true, "Routed", format!("clients connect to {}", found.url)),
        Err(why) => Statement::new("IngressReady", false, "RouteRefused", why.clone()),
    };
    let policy = policy(found);
    let lacking = [&running, &route].into_iter().find(|statement| !statement.is_true());
    let phase = match lacking {
        None => "Ready",
        Some(statement) if statement.reason == "Starting" => "Pending",
        Some(_) => "Error",
    };
    let image = match &found.wanted.launch {
        Ok(Launch::Image(image)) => Some(image.reference.clone()),
        _ => None,
    };
    McpServerStatus {
        observed_generation: Some(found.generation),
        phase: Some(phase.to_owned()),
        message: Some(lacking.unwrap_or(&running).message.clone()),
        url: Some(found.url.clone()),
        image,
        policy: found.policy.clone(),
        deployment_ready: running.is_true(),
        service_ready: running.is_true(),
        ingress_ready: route.is_true(),
        gateway_ready: route.is_true(),
        policy_ready: policy.is_true(),
        canary_ready: false,
        conditions: [running, route, policy]
            .into_iter()
            .map(|statement| condition(statement, found.generation, before, now))
            .collect(),
    }
}

fn running(found: &Found<'_>) -> Statement {
    let kind = "DeploymentReady";
    match (&found.wanted.launch, found.state) {
        (Err(why), _) => Statement::new(kind, false, "CannotRun", why.clone()),
        (Ok(_), None) => Statement::new(kind, false, "Starting", "it is being started"),
        (Ok(_), Some(state)) => match state.phase {
            Phase::Up => Statement::new(kind, true, "Answers", state.message.clone()),
            Phase::Starting => Statement::new(kind, false, "Starting", state.message.clone()),
            Phase::Failing if state.restarts > 0 => Statement::new(
                kind,
                false,
                "Restarting",
                format!("{} (started again {} times)", state.message, state.restarts),
            ),
            Phase::Failing => Statement::new(kind, false, "DoesNotAnswer", state.message.clone()),
        },
    }
}

fn policy(found: &Found<'_>) -> Statement {
    let kind = "PolicyReady";
    match &found.policy {
        Some(policy) => Statement::new(
            kind,
            true,
            "InForce",
            format!("{} grants and {} sessions are in force", policy.grants, policy.sessions),
        ),
        None => Statement::new(
            kind,
            false,
            "NotGoverned",
            "calls pass without being judged; set `gateway.enabled: true`",
        ),
    }
}

fn condition(statement: Statement, generation: i64, before: Option<&McpServerStatus>, now: Timestamp) -> Condition {
    let earlier = before
        .and_then(|before| before.conditions.iter().find(|condition| condition.kind == statement.kind))
        .filter(|earlier| earlier.status == statement.holds);
    Condition {
        kind: statement.kind.to_owned(),
        status: statement.holds,
        reason: statement.reason.to_owned(),
        message: statement.message,
        last_transition_time: earlier.map_or_else(|| now.to_string(), |earlier| earlier.last_transition_time.clone()),
        observed_generation: Some(generation),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use domain::Namespace;

    use super::super::wanted::{Kept, wishes};
    use super::*;
    use crate::args::ServerArg;

    fn wanted() -> Wanted {
        let given = [ServerArg {
            name: domain::ServerName::parse("payments").unwrap(),
            upstream: "http://127.0.0.1:1/mcp".parse().unwrap(),
        }];
        let namespace = Namespace::parse("acme").unwrap();
        let all = wishes(
            (&given, &namespace),
            &crds::Manifests::default(),
            &Kept::default(),
            Path::new("/"),
        );
        all.servers.into_iter().next().unwrap()
    }

    fn told(wanted: &Wanted, phase: Option<Phase>, before: Option<&McpServerStatus>, at: i64) -> McpServerStatus {
        let state = phase.map(|phase| State {
            phase,
            upstream: None,
            message: format!("it is {phase:?}"),
            restarts: 0,
        });
        let found = Found {
            wanted,
            url: "http://127.0.0.1:8080/payments/mcp".to_owned(),
            generation: 3,
            state: state.as_ref(),
            policy: None,
        };
        status(&found, before, Timestamp::from_seconds(at))
    }

    #[test]
    fn a_status_says_what_is_so_and_since_when() {
        let wanted = wanted();
        let starting = told(&wanted, Some(Phase::Starting), None, 1);
        assert_eq!(
            (starting.phase.as_deref(), starting.deployment_ready),
            (Some("Pending"), false)
        );
        let up = told(&wanted, Some(Phase::Up), Some(&starting), 2);
        assert_eq!(
            (up.phase.as_deref(), up.message.as_deref()),
            (Some("Ready"), Some("it is Up"))
        );
        assert_eq!((up.observed_generation, up.policy_ready), (Some(3), false));
        let later = told(&wanted, Some(Phase::Up), Some(&up), 9);
        assert_eq!(later, up, "nothing changed, so no time does");
        let down = told(&wanted, Some(Phase::Failing), Some(&up), 10);
        assert_eq!(
            (down.phase.as_deref(), down.message.as_deref()),
            (Some("Error"), Some("it is Failing"))
        );
        let times: Vec<_> = down
            .conditions
            .iter()
            .map(|condition| condition.last_transition_time.clone())
            .collect();
        let (old, new) = (
            Timestamp::from_seconds(1).to_string(),
            Timestamp::from_seconds(10).to_string(),
        );
        assert_eq!(times, [new, old.clone(), old]);
    }

    #[test]
    fn what_cannot_run_or_has_no_route_is_an_error_that_says_why() {
        let mut wanted = wanted();
        wanted.route = Err("/payments/mcp belongs to server acme/other".to_owned());
        let status = told(&wanted, Some(Phase::Up), None, 1);
        assert_eq!(status.phase.as_deref(), Some("Error"));
        assert_eq!(status.message.as_deref(), Some("/payments/mcp belongs to server acme/other"));
        wanted.launch = Err("nothing says what to run".to_owned());
        assert_eq!(
            told(&wanted, None, None, 1).message.as_deref(),
            Some("nothing says what to run")
        );
    }
}
