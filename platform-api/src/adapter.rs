//! Which grant an agent's session stands on, and how long it lasts: pure, so that every rule has a test.

use std::time::Duration;

use crds::text::DurationText;
use crds::word::TrustLevel;
use crds::{McpAccessGrant, McpServer};
use domain::Timestamp;

/// Life of a session when none is asked for.
pub(crate) const LIFE: Duration = Duration::from_hours(1);
/// Longest time until a session must be refreshed, and the longest life where the server names none.
pub(crate) const LIFE_MAX: Duration = Duration::from_hours(24);

/// Who asks for a session.
#[derive(Clone, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) human: &'a str,
    pub(crate) agent: &'a str,
    /// Ids of the teams they are in.
    pub(crate) teams: Vec<&'a str>,
    /// Whether they count as a member of every team.
    pub(crate) admin: bool,
    /// Whether they may see the server anyway. Others need a grant that names them or their team.
    pub(crate) is_inside: bool,
}

/// What a session stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footing {
    pub(crate) grant: String,
    /// The team the session counts for.
    pub(crate) team: Option<String>,
    pub(crate) trust_max: TrustLevel,
    pub(crate) policy_version: Option<String>,
}

impl Asker<'_> {
    fn is_in(&self, team: &str) -> bool {
        self.admin || self.teams.contains(&team)
    }

    fn is_meant(&self, grant: &McpAccessGrant, now: Timestamp) -> bool {
        let spec = &grant.spec;
        let names_them = spec.subject.human().is_some() || spec.subject.team().is_some_and(|team| self.teams.contains(&team));
        !spec.disabled
            && spec.valid_until.is_none_or(|end| end > now)
            && spec.subject.human().is_none_or(|human| human == self.human)
            && spec.subject.agent().is_none_or(|agent| agent == self.agent)
            && spec.subject.team().is_none_or(|team| self.is_in(team))
            && (self.is_inside || names_them)
    }
}

/// The grant that gives most trust, the oldest among equals. `None`: nothing was granted to this person and agent.
pub(crate) fn footing(server: &McpServer, grants: &[McpAccessGrant], asker: &Asker<'_>, now: Timestamp) -> Option<Footing> {
    let meant = grants.iter().filter(|grant| asker.is_meant(grant, now));
    let chosen = meant.max_by(|one, other| {
        let age = other.metadata.created.cmp(&one.metadata.created);
        let name = other.metadata.name.cmp(&one.metadata.name);
        one.spec.max_trust().cmp(&other.spec.max_trust()).then(age).then(name)
    })?;
    let own = || server.spec.team().filter(|team| asker.is_in(team));
    let sole = || match asker.teams.as_slice() {
        [only] => Some(*only),
        _ => None,
    };
    Some(Footing {
        grant: chosen.metadata.name.to_string(),
        team: chosen.spec.subject.team().or_else(own).or_else(sole).map(str::to_owned),
        trust_max: chosen.spec.max_trust(),
        policy_version: chosen.spec.policy_version.clone(),
    })
}

/// Until when a session can be refreshed: gateways count the longest life from when it was issued. Then the agent asks for another.
pub(crate) fn renewable_until(server: &McpServer, issued: Timestamp) -> Timestamp {
    let own = server.spec.session.as_ref().and_then(|session| session.max_lifetime.as_ref());
    issued.plus(own.map_or(LIFE_MAX, DurationText::duration))
}

/// When a session made or refreshed now ends.
pub(crate) fn ends(server: &McpServer, issued: Timestamp, wished: Option<Duration>, now: Timestamp) -> Timestamp {
    let life = wished.unwrap_or(LIFE).min(LIFE_MAX);
    now.plus(life)
        .min(renewable_until(server, issued))
        .floor(Duration::from_secs(1))
}

#[cfg(test)]
mod tests;
