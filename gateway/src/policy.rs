//! The policy in force for one server: the compiled document, who callers are named by, and when their sessions were last used.
//!
//! There is always a policy. [`Policy::observe`] is that of a server without a document: it judges nothing and lets everything pass.
//! [`PolicyCell`] is the place where it can be replaced while requests pass; what must outlast a document (revocations, last uses)
//! is kept there.

mod file;
mod intake;
mod source;
mod stream;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use domain::Timestamp;
use domain::policy::document::{Auth, SessionSettings};
use domain::policy::verdict::{ObjectName, Verdict};
use domain::policy::{AuthMode, Call, Document, Mode, Reason};
use http::{HeaderName, HeaderValue};
use tokio::sync::watch;

pub use source::{PolicyConfig, PolicyStreamArgs, watch_policy};
pub use stream::PolicyStreamConfig;

/// Most revocations that are remembered beyond the document that told them.
const REVOKED_MAX: usize = 65_536;

/// The rules of one server, ready to be asked.
#[derive(Debug)]
pub struct Policy {
    /// `None`: there is no document, and nothing is judged.
    rules: Option<domain::policy::Policy>,
    auth: Auth,
    headers: IdentityHeaders,
    /// Where access tokens come, if not in `Authorization`.
    token_header: Option<HeaderName>,
    /// When sessions were last used; empty when nobody asks.
    uses: HashMap<Arc<ObjectName>, Arc<LastUse>>,
}

/// Nanoseconds since 1970; 0 when never.
type LastUse = AtomicI64;

/// Headers that callers name themselves by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityHeaders {
    pub(crate) human: HeaderName,
    pub(crate) agent: HeaderName,
    pub(crate) team: HeaderName,
    pub(crate) session: HeaderName,
}

impl IdentityHeaders {
    fn new(auth: &Auth, session: &SessionSettings) -> Self {
        let named = |name: &str, usual: &'static str| {
            // A name that is no header could never be sent, so the usual one is the only one that can be.
            HeaderName::try_from(name.trim()).unwrap_or(HeaderName::from_static(usual))
        };
        let session = if auth.session_id_header.is_empty() {
            &session.header_name
        } else {
            &auth.session_id_header
        };
        Self {
            human: named(&auth.human_id_header, "x-mcp-human-id"),
            agent: named(&auth.agent_id_header, "x-mcp-agent-id"),
            team: named(&auth.team_id_header, "x-mcp-team-id"),
            session: named(session, "x-mcp-agent-session"),
        }
    }

    /// In the order of the words human, agent, team, session.
    pub(crate) fn all(&self) -> [&HeaderName; 4] {
        [&self.human, &self.agent, &self.team, &self.session]
    }
}

impl Policy {
    /// That of a server without a document: lets everything pass.
    pub fn observe() -> Self {
        Self::new(None, Auth::default(), &SessionSettings::default())
    }

    /// That of a server whose document cannot be had: refuses everything but handshakes.
    pub fn unavailable() -> Self {
        let rules = domain::policy::Policy::unavailable();
        Self::new(Some(rules), Auth::default(), &SessionSettings::default())
    }

    /// What a document says, without memory of an earlier one.
    pub fn of(document: &Document) -> Self {
        Self::after(document, &Self::observe())
    }

    fn new(rules: Option<domain::policy::Policy>, auth: Auth, session: &SessionSettings) -> Self {
        Self {
            rules,
            headers: IdentityHeaders::new(&auth, session),
            token_header: HeaderName::try_from(auth.token_header.trim())
                .ok()
                .filter(|name| auth.mode == Some(AuthMode::OAuth) && *name != http::header::AUTHORIZATION),
            auth,
            uses: HashMap::new(),
        }
    }

    fn after(document: &Document, before: &Self) -> Self {
        let session = document.session.clone().unwrap_or_default();
        let mut policy = Self::new(
            Some(domain::policy::Policy::compile(document)),
            document.auth.clone().unwrap_or_default(),
            &session,
        );
        if !session.idle_timeout.is_empty() {
            policy.uses = document
                .sessions
                .iter()
                .map(|session| before.last_use(session, document))
                .collect();
        }
        policy
    }

    /// The counter of a session, taken over from an earlier policy.
    fn last_use(&self, session: &domain::policy::document::Session, document: &Document) -> (Arc<ObjectName>, Arc<LastUse>) {
        let namespace = if session.namespace.is_empty() {
            &document.server.namespace
        } else {
            &session.namespace
        };
        let name = ObjectName {
            namespace: namespace.clone(),
            name: session.name.clone(),
        };
        let last_use = self.uses.get(&name).map(Arc::clone).unwrap_or_default();
        (Arc::new(name), last_use)
    }

    /// `observe` or `enforce`.
    pub fn mode(&self) -> &'static str {
        if self.enforces() { "enforce" } else { "observe" }
    }

    /// Whether refusals are enforced.
    pub(crate) fn enforces(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.mode() == Mode::AllowList)
    }

    /// Whether calls are judged at all, be it only for the record.
    pub(crate) fn judges(&self) -> bool {
        self.rules.is_some()
    }

    pub(crate) fn filters_lists(&self) -> bool {
        self.rules.as_ref().is_some_and(domain::policy::Policy::filters_lists)
    }

    /// Revision of the document; empty when there is none.
    pub fn revision(&self) -> &str {
        self.rules.as_ref().map_or("", domain::policy::Policy::revision)
    }

    /// How many grants and sessions it holds.
    pub fn size(&self) -> (usize, usize) {
        self.rules.as_ref().map_or((0, 0), domain::policy::Policy::size)
    }

    pub(crate) fn auth_mode(&self) -> AuthMode {
        self.auth.mode.unwrap_or(AuthMode::Header)
    }

    /// How callers say who they are, for those who check it.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// What a caller who is not known must do.
    pub(crate) fn challenge(&self, server: &str) -> HeaderValue {
        let names = self.headers.all().map(HeaderName::as_str).join(" ");
        let text = format!("MCP-Session realm=\"{server}\", headers=\"{names}\"");
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("MCP-Session"))
    }

    pub(crate) fn token_header(&self) -> Option<&HeaderName> {
        self.token_header.as_ref()
    }

    pub(crate) fn headers(&self) -> &IdentityHeaders {
        &self.headers
    }

    /// Judges a call, and remembers that its session was used. `None` without a document.
    pub(crate) fn decide(&self, call: Call<'_>, now: Timestamp) -> Option<Verdict> {
        let rules = self.rules.as_ref()?;
        let last_use = (!self.uses.is_empty())
            .then(|| self.uses.get(rules.session(&call.presented)?))
            .flatten();
        let Some(last_use) = last_use else {
            return Some(rules.decide(&call, now));
        };
        let nanos = last_use.load(Ordering::Relaxed);
        let call = Call {
            last_used: (nanos != 0).then(|| Timestamp::from_nanos(nanos)),
            ..call
        };
        let verdict = rules.decide(&call, now);
        // A session that has been idle for too long stays so, however often it is tried.
        let reason = verdict.shadow.map_or(verdict.reason, |shadow| shadow.reason);
        if reason != Reason::SessionIdle {
            last_use.fetch_max(now.nanos(), Ordering::Relaxed);
        }
        Some(verdict)
    }

    /// Judges without remembering that a session was used.
    pub(crate) fn look(&self, call: &Call<'_>, now: Timestamp) -> Option<Verdict> {
        self.rules.as_ref().map(|rules| rules.decide(call, now))
    }

    /// Whether a list may show this to the caller.
    pub(crate) fn may_list(&self, call: &Call<'_>, now: Timestamp) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.may_list(call, now))
    }
}

/// A place for the policy in force. Clones share it; replacing it is atomic and takes effect with the next request, and with open
/// streams at once.
#[derive(Debug, Clone)]
pub struct PolicyCell(Arc<Cell>);

#[derive(Debug)]
struct Cell {
    current: ArcSwap<Policy>,
    /// Counts replacements, for those who must look again.
    changes: watch::Sender<u64>,
    /// Sessions that were revoked once. No later document brings them back.
    revoked: Mutex<HashSet<String>>,
}

impl PolicyCell {
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(Cell {
            current: ArcSwap::from_pointee(policy),
            changes: watch::Sender::new(0),
            revoked: Mutex::default(),
        }))
    }

    /// Puts a document in force. Sessions that an earlier one called revoked stay revoked.
    pub fn apply(&self, mut document: Document) {
        self.remember_revoked(&mut document);
        let policy = Policy::after(&document, &self.0.current.load());
        self.replace(policy);
    }

    pub fn replace(&self, policy: Policy) {
        self.0.current.store(Arc::new(policy));
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    /// The policy in force now.
    pub fn current(&self) -> Arc<Policy> {
        self.0.current.load_full()
    }

    pub fn mode(&self) -> &'static str {
        self.0.current.load().mode()
    }

    /// Tells when the policy is replaced.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn remember_revoked(&self, document: &mut Document) {
        let mut known = self.0.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        for session in &mut document.sessions {
            let key = if session.token_hash.is_empty() {
                format!("{}/{}", session.namespace, session.name)
            } else {
                session.token_hash.clone()
            };
            if session.revoked {
                if known.len() < REVOKED_MAX {
                    known.insert(key);
                }
            } else if known.contains(&key) {
                tracing::warn!(
                    session = session.name,
                    namespace = session.namespace,
                    "a revoked session stays revoked; make a new one"
                );
                session.revoked = true;
            }
        }
    }
}

impl Default for PolicyCell {
    fn default() -> Self {
        Self::new(Policy::observe())
    }
}

#[cfg(test)]
mod tests;
