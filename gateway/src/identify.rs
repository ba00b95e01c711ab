//! The second step: who calls, before the body is read. What a header says is a claim; the policy decides what it is worth.
//!
//! Each mode of a policy has its way. A mode whose way is not built in refuses, for letting pass unchecked would be the worse fault.

use domain::Identity;
use domain::policy::{AuthMode, Claims, Presented};
use http::{HeaderMap, HeaderName, HeaderValue};
use service_kit::Problem;

use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::text::header_text;

/// Written by meshes that checked a certificate; whoever else sends it lies.
pub(crate) const VERIFIED_SPIFFE: HeaderName = HeaderName::from_static("x-mcp-verified-spiffe-id");

/// Who the request says it is from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    pub(crate) human: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) team: Option<String>,
    /// The session header: a credential, so it is marked as one and never shown.
    pub(crate) session: Option<HeaderValue>,
    /// Namespace and name of a session that a certificate proves.
    pub(crate) certified: Option<Box<(String, String)>>,
    /// Whether a credential proves it.
    pub(crate) is_verified: bool,
    /// Scopes of the access token, separated by blanks.
    pub(crate) scopes: Option<Box<str>>,
}

impl Caller {
    pub(crate) fn identity(&self) -> Identity {
        let anybody = self.human.is_some() || self.agent.is_some() || self.team.is_some();
        match (anybody, self.is_verified) {
            (false, _) => Identity::None,
            (true, true) => Identity::Verified,
            (true, false) => Identity::Asserted,
        }
    }

    pub(crate) fn claims(&self) -> Claims<'_> {
        Claims {
            human: self.human.as_deref().unwrap_or_default(),
            agent: self.agent.as_deref().unwrap_or_default(),
            team: self.team.as_deref().unwrap_or_default(),
            identity: self.identity(),
            scopes: self.scopes.as_deref(),
        }
    }

    pub(crate) fn presented(&self) -> Presented<'_> {
        if let Some(certified) = &self.certified {
            let (namespace, name) = certified.as_ref();
            return Presented::Certified { namespace, name };
        }
        match self.session.as_ref().map(|value| value.to_str()) {
            None => Presented::Nothing,
            // What is no text is no credential of ours, but it was presented.
            Some(text) => Presented::Header(text.unwrap_or("\u{fffd}").trim()),
        }
    }
}

/// Establishes who calls by the way of the policy.
pub(crate) fn identify(policy: &Policy, headers: &HeaderMap) -> Result<Caller, Box<Refusal>> {
    match policy.auth_mode() {
        AuthMode::Header => by_headers(policy, headers),
        AuthMode::None => Ok(Caller::default()),
        AuthMode::OAuth | AuthMode::Mtls => {
            let problem = Problem::unavailable(
                "this gateway cannot check callers in the way that its policy asks for",
                std::time::Duration::from_mins(1),
            );
            Err(Refusal::denied("identity_unsupported", problem))
        }
    }
}

fn by_headers(policy: &Policy, headers: &HeaderMap) -> Result<Caller, Box<Refusal>> {
    let names = policy.headers();
    if policy.enforces() {
        let is_twice = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
        if let Some(name) = names.all().into_iter().find(is_twice) {
            // Which of them counts is for two programs to disagree about.
            let problem = Problem::bad_request(format!("the header `{name}` is given twice")).with_hint("send it once");
            return Err(Refusal::denied("identity_mismatch", problem));
        }
    }
    let text = |name: &HeaderName| headers.get(name).and_then(header_text);
    let mut session = headers
        .get(&names.session)
        .filter(|value| !value.as_bytes().trim_ascii().is_empty())
        .cloned();
    if let Some(session) = &mut session {
        session.set_sensitive(true);
    }
    Ok(Caller {
        human: text(&names.human),
        agent: text(&names.agent),
        team: text(&names.team),
        session,
        ..Caller::default()
    })
}

/// Puts what was established in place of what the caller sent, so that the server can rely on it. Credentials go no further.
pub(crate) fn replace_headers(policy: &Policy, caller: &Caller, session: Option<&str>, headers: &mut HeaderMap) {
    headers.remove(VERIFIED_SPIFFE);
    if !policy.judges() {
        return;
    }
    let names = policy.headers();
    let told = [
        caller.human.as_deref(),
        caller.agent.as_deref(),
        caller.team.as_deref(),
        session,
    ];
    for (name, told) in names.all().into_iter().zip(told) {
        match told.and_then(|told| HeaderValue::try_from(told).ok()) {
            Some(told) => drop(headers.insert(name, told)),
            None => drop(headers.remove(name)),
        }
    }
}
