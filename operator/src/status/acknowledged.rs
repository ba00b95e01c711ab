//! Which gateways run the policy that is published.

use super::Statement;
use crate::feed::{Acknowledgements, BEHIND_AFTER};
use crate::policy::Policy;
use crate::world::Facts;

const KIND: &str = "PolicyAcknowledged";
/// Most pods named in a message.
const NAMED_MAX: usize = 5;

/// How many gateways run this policy.
pub(super) fn active(policy: &Policy, said: &Acknowledgements) -> u32 {
    let active = said.revisions.values().filter(|revision| ***revision == *policy.revision);
    u32::try_from(active.count()).unwrap_or(u32::MAX)
}

/// Whether every gateway runs this policy; if not, which ones do not.
pub(super) fn statement(facts: &Facts, policy: &Policy, said: &Acknowledgements) -> Statement {
    let pods = facts.pods.iter().filter(|pod| pod.is_ready);
    let (mut wanted, mut behind) = (0, Vec::new());
    for pod in pods {
        wanted += 1;
        match said.revisions.get(&pod.name) {
            Some(revision) if **revision == *policy.revision => {}
            Some(_) => behind.push(format!("{} runs an older one", pod.name)),
            None => behind.push(format!("{} has not said", pod.name)),
        }
    }
    if wanted == 0 {
        return Statement::no(KIND, "NoGateways", "no gateway is ready yet");
    }
    if behind.is_empty() {
        return Statement::yes(
            KIND,
            "AllAcknowledged",
            format!("every gateway of {wanted} runs the newest policy"),
        );
    }
    // Taking it in needs a moment; only who does not is worth a name.
    if said.age.is_none_or(|age| age < BEHIND_AFTER) {
        return Statement::no(
            KIND,
            "Acknowledging",
            format!("{} of {wanted} gateways have yet to take in the newest policy", behind.len()),
        );
    }
    let more = behind.len().saturating_sub(NAMED_MAX);
    behind.truncate(NAMED_MAX);
    let more = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    Statement::no(
        KIND,
        "GatewaysBehind",
        format!(
            "gateways without the newest policy: {}{more}. They get it from the mounted ConfigMap within minutes; look at their logs, and whether they reach the operator",
            behind.join(", ")
        ),
    )
}
