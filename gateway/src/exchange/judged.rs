//! What the policy said about a request.

use domain::Decision;
use domain::policy::Trust;
use domain::policy::verdict::Verdict;

use super::Exchange;
use crate::standing::Standing;

impl Exchange {
    pub(crate) fn notes_decision(&mut self, decision: Decision, reason: &str) {
        self.payload.decision = Some(decision);
        self.payload.reason = Some(reason.to_owned());
    }

    /// What would have been decided, had the policy been enforced.
    pub(crate) fn notes_shadow(&mut self, decision: Decision, reason: &str) {
        self.notes_decision(decision, reason);
        self.payload.attributes.insert("policy_mode".to_owned(), "observe".to_owned());
    }

    /// What the policy said, with whatever it rests on.
    pub(crate) fn notes_verdict(&mut self, verdict: &Verdict) {
        match verdict.shadow {
            Some(shadow) => self.notes_shadow(shadow.decision, shadow.reason.as_str()),
            None => self.notes_decision(verdict.decision, verdict.reason.as_str()),
        }
        let payload = &mut self.payload;
        let owned = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        payload.policy_version = owned(&verdict.policy_version);
        payload.policy_revision = owned(&verdict.policy_revision);
        if let Some(grant) = &verdict.matched_grant {
            payload.matched_grant = owned(&grant.name);
            payload.matched_grant_namespace = owned(&grant.namespace);
        }
        if let Some(session) = &verdict.matched_session {
            payload.matched_session = owned(&session.name);
            payload.matched_session_namespace = owned(&session.namespace);
        }
        let word = |trust: Option<Trust>| trust.map(|trust| trust.as_str().to_owned());
        payload.required_trust = word(verdict.required_trust);
        payload.admin_trust = word(verdict.admin_trust);
        payload.consented_trust = word(verdict.consented_trust);
        payload.effective_trust = word(verdict.effective_trust);
        payload.required_side_effect = verdict.required_side_effect.map(|effect| effect.as_str().to_owned());
        payload.risk_level = verdict.risk_level.map(|risk| risk.as_str().to_owned());
        payload.identity = Some(verdict.caller.identity);
        if verdict.caller.session.is_some() {
            // Who the session was made for is who calls; the claims agree with it or are refused.
            let who = verdict.caller.who(&self.caller.claims());
            let [human, agent, team] = [who.human, who.agent, who.team].map(owned);
            (self.caller.human, self.caller.agent, self.caller.team) = (human, agent, team);
            self.caller.is_verified = true;
        }
    }

    /// Name of the session that the policy knows the caller by.
    pub(crate) fn session_name(&self) -> Option<&str> {
        self.payload.matched_session.as_deref()
    }

    /// What an open stream needs to be judged again; `None` where nothing is judged.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.policy.judges().then(|| Standing {
            cell: self.site.route.policy.clone(),
            clock: self.shared.clock.clone(),
            caller: self.caller.clone(),
            method: self.payload.rpc_method.clone().unwrap_or_default(),
            name: self.payload.tool_name.clone().or_else(|| self.payload.prompt_name.clone()),
            uri: self.payload.resource_uri.clone(),
        })
    }

    /// Hash of the called tool's definition as last listed.
    pub(crate) fn definition(&self) -> Option<&str> {
        self.payload.tool_schema_hash.as_deref()
    }
}
