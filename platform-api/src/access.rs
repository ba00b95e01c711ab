//! Who calls, and what they may see.
//!
//! [`Access`] is the seam: [`StaticAccess`] knows the keys of a file and callers from this machine; accounts, logins and keys of the
//! database are known to `control::ControlAccess`, which asks it about everybody else. A request that names nobody is refused, never
//! let through.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderMap, header};
use sentinel_store::query::Scope;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::identity::keys::Key;
use crate::identity::{ORG_NAMESPACE, PUBLIC_NAMESPACE, Principal, Right, Role, SHARED_NAMESPACE, TeamRole};

/// Longest credential we look at, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 8_192;

/// Name of callers from this machine who bring no key.
pub(crate) const LOCAL: &str = "local";

/// Names of this machine that no other machine can make a browser send in `Host`.
const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Headers that say somebody else's request was passed on to us: then its peer tells nothing about its sender.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Someone who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For logs.
    pub name: String,
    /// Whose events they may see.
    pub scope: Scope,
    /// Whether they may see and change the system itself.
    pub admin: bool,
    /// What the credential may be used for.
    pub rights: Vec<Right>,
    /// Where the credential works; everywhere its holder may when absent.
    pub namespaces: Option<Vec<String>>,
    /// The account, when it is a person's.
    pub principal: Option<Arc<Principal>>,
}

/// What a caller is to a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nothing: whether the namespace exists is not told.
    Stranger,
    /// May see what is published there.
    Reader,
    /// May publish there, and change what is their own.
    Member,
    /// May change everything there.
    Owner,
}

impl Caller {
    fn fixed(name: impl Into<String>, scope: Scope, admin: bool) -> Self {
        Self {
            name: name.into(),
            // A key of a file that is no administrator's was made for looking at events, and goes on to do just that.
            rights: if admin {
                vec![Right::Write, Right::Pull, Right::Push]
            } else {
                vec![Right::Read]
            },
            scope,
            admin,
            namespaces: None,
            principal: None,
        }
    }

    /// Somebody who is logged in.
    pub(crate) fn of_principal(principal: Principal) -> Self {
        let admin = principal.account.role == Role::Admin;
        let scope = if admin {
            Scope::All
        } else {
            Scope::Only {
                namespaces: principal.teams.iter().map(|team| team.namespace.clone()).collect(),
                teams: Vec::new(),
            }
        };
        Self {
            name: principal.account.id.clone(),
            scope,
            admin,
            rights: vec![Right::Write, Right::Adapter, Right::Pull, Right::Push],
            namespaces: None,
            principal: Some(Arc::new(principal)),
        }
    }

    /// Somebody's key: it may at most what they may.
    pub(crate) fn of_key(principal: Principal, key: &Key) -> Self {
        let caller = Self::of_principal(principal);
        let rights = key.rights.clone();
        if key.namespaces.is_empty() {
            return Self { rights, ..caller };
        }
        let seen = |namespace: &&String| match &caller.scope {
            Scope::All => true,
            Scope::Only { namespaces, .. } => namespaces.contains(namespace),
        };
        let within: Vec<_> = key.namespaces.iter().filter(seen).cloned().collect();
        Self {
            scope: Scope::Only {
                namespaces: within,
                teams: Vec::new(),
            },
            // A key that is confined cannot change what concerns everybody.
            admin: false,
            namespaces: Some(key.namespaces.clone()),
            rights,
            ..caller
        }
    }

    /// A program's key: a member of its namespaces, or an administrator when it is confined to none.
    pub(crate) fn of_service_key(key: &Key) -> Self {
        let admin = key.namespaces.is_empty();
        let scope = if admin {
            Scope::All
        } else {
            Scope::Only {
                namespaces: key.namespaces.clone(),
                teams: Vec::new(),
            }
        };
        Self {
            name: format!("service:{}", key.name),
            scope,
            admin,
            rights: key.rights.clone(),
            namespaces: (!admin).then(|| key.namespaces.clone()),
            principal: None,
        }
    }

    pub(crate) fn has(&self, right: Right) -> bool {
        // Who may change may also ask.
        self.rights.contains(&right)
            || (right == Right::Read && (self.rights.contains(&Right::Write) || self.rights.contains(&Right::Adapter)))
    }

    pub(crate) fn standing(&self, namespace: &str) -> Standing {
        if let Some(within) = &self.namespaces
            && !within.iter().any(|own| own == namespace)
        {
            return Standing::Stranger;
        }
        if self.admin {
            return Standing::Owner;
        }
        if let Some(team) = self.principal.as_ref().and_then(|principal| principal.team_of(namespace)) {
            return match team.role {
                TeamRole::Owner => Standing::Owner,
                TeamRole::Member => Standing::Member,
            };
        }
        match (namespace, &self.principal) {
            // An administrator's key that is confined to a namespace keeps their standing within it.
            (_, Some(principal)) if principal.account.role == Role::Admin => Standing::Owner,
            (ORG_NAMESPACE | PUBLIC_NAMESPACE, Some(_)) => Standing::Member,
            (SHARED_NAMESPACE, Some(_)) => Standing::Reader,
            (_, Some(_)) => Standing::Stranger,
            (_, None) if !self.sees(namespace) => Standing::Stranger,
            (_, None) if self.has(Right::Write) => Standing::Owner,
            (_, None) => Standing::Reader,
        }
    }

    fn sees(&self, namespace: &str) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Only { namespaces, .. } => namespaces.iter().any(|own| own == namespace),
        }
    }

    /// The namespaces whose objects they may see; all when absent.
    pub(crate) fn visible_namespaces(&self) -> Option<Vec<String>> {
        if self.admin {
            return None;
        }
        let mut visible: Vec<String> = match (&self.scope, &self.principal) {
            (_, Some(principal)) => {
                let shared = [SHARED_NAMESPACE, ORG_NAMESPACE, PUBLIC_NAMESPACE].map(str::to_owned);
                let teams = principal.teams.iter().map(|team| team.namespace.clone());
                teams.chain(shared).collect()
            }
            (Scope::Only { namespaces, .. }, None) => namespaces.clone(),
            (Scope::All, None) => return None,
        };
        if let Some(within) = &self.namespaces {
            visible.clone_from(within);
        }
        visible.retain(|namespace| self.standing(namespace) > Standing::Stranger);
        Some(visible)
    }

    /// For facts: an address in words.
    pub(crate) fn email(&self) -> Option<&str> {
        self.principal.as_ref().map(|principal| principal.account.email.as_str())
    }
}

/// What a request tells about its sender.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    pub headers: &'a HeaderMap,
    /// The other end of the connection; absent when unknown, which is never trusted.
    pub peer: Option<SocketAddr>,
}

/// Why nobody was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credential came with the request.
    Missing,
    /// The credential is not known.
    Unknown,
    /// The request was made for another host than this machine, as a page that rebinds its name would.
    ForeignHost,
    /// A page of another origin sent the request.
    ForeignOrigin,
    /// Credentials cannot be checked for now.
    Unavailable,
}

/// Names the caller of a request.
pub trait Access: fmt::Debug + Send + Sync + 'static {
    fn caller<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Caller, Denied>>;
}

/// What callers from this machine without a key are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpenLoopback {
    /// Administrators.
    Yes,
    /// Whoever is on this machine sees everything; changes need a credential.
    Reading,
    /// Nobody.
    #[default]
    No,
}

/// A key of a program, kept as a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceKey {
    /// For logs.
    pub name: String,
    /// SHA-256 of the key. Keys are long and random, so that a slow hash would only cost time.
    pub sha256: [u8; 32],
    pub scope: Scope,
    pub admin: bool,
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKey")
            .field("name", &self.name)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// A line that is no service key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceKeyError {
    #[error("expected a name, `sha256:` with 64 hex digits, and `admin` or `namespaces=…` or `teams=…`")]
    Shape,
    #[error("expected `sha256:` with 64 hex digits; make it with `printf %s KEY | sha256sum`")]
    Hash,
    #[error("expected `admin`, `namespaces=a,b` or `teams=t1,t2` after the hash; a key that may see nothing is of no use")]
    Scope,
}

impl ServiceKey {
    /// A key given in the clear.
    pub fn of_secret(name: impl Into<String>, secret: &str, scope: Scope, admin: bool) -> Self {
        Self {
            name: name.into(),
            sha256: Sha256::digest(secret).into(),
            scope,
            admin,
        }
    }

    /// Reads a line such as `grafana sha256:9f86… namespaces=acme,globex`.
    pub fn parse(line: &str) -> Result<Self, ServiceKeyError> {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(hash)) = (words.next(), words.next()) else {
            return Err(ServiceKeyError::Shape);
        };
        let mut sha256 = [0; 32];
        let digits = hash.strip_prefix("sha256:").ok_or(ServiceKeyError::Hash)?;
        hex::decode_to_slice(digits, &mut sha256).map_err(|_| ServiceKeyError::Hash)?;
        let (mut admin, mut namespaces, mut teams) = (false, Vec::new(), Vec::new());
        let names =
            |list: &str| -> Vec<String> { list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect() };
        for word in words {
            match word.split_once('=') {
                None if word == "admin" => admin = true,
                Some(("namespaces", list)) => namespaces.extend(names(list)),
                Some(("teams", list)) => teams.extend(names(list)),
                _ => return Err(ServiceKeyError::Scope),
            }
        }
        let scope = match (admin, namespaces.is_empty() && teams.is_empty()) {
            (true, true) => Scope::All,
            (false, false) => Scope::Only { namespaces, teams },
            // An administrator of some namespaces does not exist yet, and guessing would let somebody see too much.
            _ => return Err(ServiceKeyError::Scope),
        };
        Ok(Self {
            name: name.to_owned(),
            sha256,
            scope,
            admin,
        })
    }
}

/// Service keys, and callers from this machine when that is allowed.
#[derive(Clone, Debug, Default)]
pub struct StaticAccess {
    keys: Vec<ServiceKey>,
    open_loopback: OpenLoopback,
    origins_allowed: Vec<String>,
}

impl StaticAccess {
    pub fn new(keys: Vec<ServiceKey>, open_loopback: OpenLoopback, origins_allowed: Vec<String>) -> Self {
        Self {
            keys,
            open_loopback,
            origins_allowed,
        }
    }

    fn decide(&self, credentials: Credentials<'_>) -> Result<Caller, Denied> {
        self.check_page(credentials.headers)?;
        match secret(credentials.headers) {
            Some(secret) => self.holder(secret).ok_or(Denied::Unknown),
            None if self.is_local(credentials) => Ok(self.local()),
            None => Err(Denied::Missing),
        }
    }

    /// Keeps pages of other origins away from an API that lets this machine in without a key.
    pub(crate) fn check_page(&self, headers: &HeaderMap) -> Result<(), Denied> {
        match self.open_loopback {
            OpenLoopback::Yes | OpenLoopback::Reading => self.check_browser(headers),
            OpenLoopback::No => Ok(()),
        }
    }

    /// Compares with every key, so that time does not tell which ones exist.
    fn holder(&self, secret: &[u8]) -> Option<Caller> {
        let sha256: [u8; 32] = Sha256::digest(secret).into();
        let mut holder = None;
        for key in &self.keys {
            if bool::from(key.sha256.ct_eq(&sha256)) {
                holder = Some(Caller::fixed(key.name.clone(), key.scope.clone(), key.admin));
            }
        }
        holder
    }

    fn local(&self) -> Caller {
        let caller = Caller::fixed(LOCAL, Scope::All, true);
        match self.open_loopback {
            OpenLoopback::Reading => Caller {
                rights: vec![Right::Read],
                ..caller
            },
            OpenLoopback::Yes | OpenLoopback::No => caller,
        }
    }

    fn is_local(&self, credentials: Credentials<'_>) -> bool {
        self.open_loopback != OpenLoopback::No
            && credentials.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
            && FORWARDED.iter().all(|name| !credentials.headers.contains_key(*name))
    }

    /// A browser on this machine speaks for whichever page it shows: only pages of our own may ask.
    fn check_browser(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Denied::ForeignHost);
        };
        let host = host.to_str().map_err(|_| Denied::ForeignHost)?;
        if !is_loopback_host(host) {
            return Err(Denied::ForeignHost);
        }
        let own = |origin: &str| {
            origin
                .strip_prefix("http://")
                .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        };
        let allowed = |origin: &str| own(origin) || self.origins_allowed.iter().any(|known| known == origin);
        let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
        let fine = if origins.peek().is_some() {
            origins.all(|origin| origin.to_str().is_ok_and(allowed))
        } else {
            // Images and scripts of other pages are asked for without an origin, but browsers tell where they come from.
            let site = headers.get("sec-fetch-site");
            site.is_none_or(|site| site == "same-origin" || site == "none")
        };
        if fine { Ok(()) } else { Err(Denied::ForeignOrigin) }
    }
}

impl Access for StaticAccess {
    fn caller<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Caller, Denied>> {
        Box::pin(std::future::ready(self.decide(credentials)))
    }
}

/// `x-api-key`, or the token of `Authorization: Bearer`. Anything else in these headers is a credential nobody has.
pub(crate) fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    let value = if let Some(key) = headers.get("x-api-key") {
        key.as_bytes()
    } else {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        match value.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
            _ => value,
        }
    };
    let value = value.trim_ascii();
    Some(value.get(..CREDENTIAL_BYTES_MAX).unwrap_or(value))
}

/// Whether a `Host` names this machine, with or without a port.
fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    LOOPBACK_HOSTS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests;
