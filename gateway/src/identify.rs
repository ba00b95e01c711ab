//! The second step: who calls, before the body is read. What a header says is a claim; a session, a token or a certificate proves it, and
//! the policy decides what each is worth.
//!
//! Each mode of a policy has its way. A policy that only observes lets callers pass who could not prove who they are, as nobody.

mod certificate;
mod token;

use std::fmt;
use std::net::SocketAddr;

use domain::policy::{AuthMode, Claims, Presented};
use domain::{Identity, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, header, request};
use service_kit::Problem;
use service_kit::tls::PeerCertificate;

use crate::exchange::Exchange;
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::text::header_text;

pub(crate) use token::{Issuers, challenge, metadata, metadata_url};

/// Written by meshes that checked a certificate; whoever else sends it lies.
pub(crate) const VERIFIED_SPIFFE: HeaderName = HeaderName::from_static("x-mcp-verified-spiffe-id");

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// Shown and proven, on a listener that asks for certificates.
    pub certificate: Option<PeerCertificate>,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            certificate: None,
        }
    }
}

/// What is believed of callers, whatever a policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityRules {
    /// Where clients reach this listener, such as `https://mcp.example.com`; without it, by the host they name.
    pub external_base_url: Option<String>,
    /// SPIFFE id of the proxy that may say whose certificate it checked.
    pub trusted_proxy: Option<String>,
}

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
    /// When the proof ends.
    pub(crate) expires_at: Option<Timestamp>,
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
pub(crate) async fn identify(exchange: &Exchange, head: &request::Parts, peer: &Peer) -> Result<Caller, Box<Refusal>> {
    let policy = &exchange.policy;
    match policy.auth_mode() {
        AuthMode::Header => by_headers(policy, &head.headers),
        AuthMode::None => Ok(Caller::default()),
        AuthMode::OAuth => token::identify(exchange, head).await,
        AuthMode::Mtls => certificate::identify(exchange, &head.headers, peer.certificate.as_ref()),
    }
}

/// The session that the request presents, whoever presents it.
fn session(policy: &Policy, headers: &HeaderMap) -> Option<HeaderValue> {
    let session = headers.get(&policy.headers().session);
    let mut session = session.filter(|value| !value.as_bytes().trim_ascii().is_empty()).cloned()?;
    session.set_sensitive(true);
    Some(session)
}

/// A refusal for want of proof, with what the caller must do.
fn unproven(reason: &'static str, message: impl fmt::Display, hint: &'static str) -> Box<Refusal> {
    Refusal::denied(reason, Problem::unauthorized(message.to_string()).with_hint(hint))
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
    Ok(Caller {
        human: text(&names.human),
        agent: text(&names.agent),
        team: text(&names.team),
        session: session(policy, headers),
        ..Caller::default()
    })
}

/// Puts what was established in place of what the caller sent, so that the server can rely on it. Credentials go no further.
pub(crate) fn replace_headers(policy: &Policy, caller: &Caller, session: Option<&str>, headers: &mut HeaderMap) {
    headers.remove(VERIFIED_SPIFFE);
    if !policy.judges() {
        return;
    }
    // A token says who calls; it is no way to call on their behalf.
    if policy.auth_mode() == AuthMode::OAuth {
        headers.remove(policy.token_header().unwrap_or(&header::AUTHORIZATION));
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
