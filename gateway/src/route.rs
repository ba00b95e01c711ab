//! Which server a path belongs to. A sidecar has one server that owns every path; a shared listener has many, each at
//! `/<prefix>/mcp`.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use http::{HeaderValue, Uri, uri};

use service_kit::error::Chain;

use crate::metrics::SiteMetrics;
use crate::policy::PolicyCell;
use crate::tools::Definitions;
use crate::upstream::Upstream;

/// Paths that legacy servers name for posting to are reached below this one.
const ANNOUNCED: &str = "/.endpoint";

/// Most of those paths that are remembered for one server. Servers name one, and tell sessions apart by the query.
const ANNOUNCED_MAX: usize = 16;

/// Whether the requests to a server become events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recording {
    #[default]
    On,
    /// They are counted in metrics only.
    Off,
}

/// One MCP server behind the gateway.
#[derive(Debug, Clone)]
pub struct Route {
    /// First segment of the path; empty when the server owns every path.
    pub prefix: String,
    pub server: String,
    pub namespace: String,
    pub cluster: Option<String>,
    /// Team that owns the server.
    pub team_id: Option<String>,
    /// Where the server is: `http` or `https`, with an authority. `/<prefix>/mcp` is mapped to its path.
    pub upstream: Uri,
    /// What is cut off the front of paths on their way to a server that owns every path, such as `/payments`; empty for nothing.
    pub strip_prefix: String,
    /// Who the events say they are from; `<server>-gateway` when absent.
    pub source: Option<String>,
    /// What requests are recorded as; `mcp.request` when absent.
    pub event_type: Option<String>,
    pub recording: Recording,
    /// What is allowed.
    pub policy: PolicyCell,
}

impl Route {
    /// A server that owns every path of its listener.
    pub fn new(server: impl Into<String>, namespace: impl Into<String>, upstream: Uri) -> Self {
        Self {
            prefix: String::new(),
            server: server.into(),
            namespace: namespace.into(),
            cluster: None,
            team_id: None,
            upstream,
            strip_prefix: String::new(),
            source: None,
            event_type: None,
            recording: Recording::On,
            policy: PolicyCell::default(),
        }
    }

    /// The same server at `/<prefix>/mcp`.
    #[must_use]
    pub fn at(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// What makes it the same route as another of an earlier table.
    fn key(&self) -> (&str, &str, &str, &Uri) {
        (&self.prefix, &self.namespace, &self.server, &self.upstream)
    }
}

/// Why routes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RouteFault {
    #[error("the upstream of server `{server}` must be an http:// or https:// address with a host, got `{upstream}`")]
    Upstream { server: String, upstream: String },
    #[error("the prefix `{prefix}` of server `{server}` must be one path segment of letters, digits, `.`, `_` and `-`")]
    Prefix { server: String, prefix: String },
    #[error("the prefix to strip `{strip_prefix}` of server `{server}` must be a path that begins with `/`")]
    StripPrefix { server: String, strip_prefix: String },
    #[error("two servers have the prefix `{prefix}`: `{first}` and `{second}`")]
    Twice { prefix: String, first: String, second: String },
}

/// The routes in force. Clones share them; replacing them is atomic, and requests in flight keep the route they began with.
#[derive(Debug, Clone)]
pub struct RouteTable(Arc<ArcSwap<Routes>>);

#[derive(Debug, Default)]
struct Routes {
    by_prefix: HashMap<String, Arc<Site>>,
    whole: Option<Arc<Site>>,
}

/// A route, with everything that can be worked out beforehand.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) route: Route,
    pub(crate) source: String,
    pub(crate) event_type: String,
    pub(crate) authority: HeaderValue,
    pub(crate) metrics: OnceLock<SiteMetrics>,
    pub(crate) state: Arc<SiteState>,
    /// Path of the upstream without a final slash.
    upstream_path: String,
    /// What is cut off the front of a path.
    mount: String,
}

/// What is known of a server beyond its route; it outlasts the table.
#[derive(Debug)]
pub(crate) struct SiteState {
    pub(crate) upstream: Arc<Upstream>,
    /// The server could not be asked when it was last tried.
    away: AtomicBool,
    /// Paths that the server named for posting to.
    announced: Mutex<VecDeque<String>>,
    pub(crate) definitions: Definitions,
}

impl RouteTable {
    pub fn new(routes: Vec<Route>) -> Result<Self, RouteFault> {
        let table = Self(Arc::default());
        table.replace(routes)?;
        Ok(table)
    }

    /// Puts other routes in force, or says why not and leaves those there are.
    pub fn replace(&self, routes: Vec<Route>) -> Result<(), RouteFault> {
        let routes = Arc::new(Routes::build(routes, &self.0.load())?);
        let before = self.0.swap(Arc::clone(&routes));
        tell_changes(&before, &routes);
        Ok(())
    }

    /// The routes in force, for status pages.
    pub fn routes(&self) -> Vec<Route> {
        let mut all: Vec<_> = self.0.load().sites().map(|site| site.route.clone()).collect();
        all.sort_by(|left, right| left.prefix.cmp(&right.prefix));
        all
    }

    pub(crate) fn sites(&self) -> Vec<Arc<Site>> {
        self.0.load().sites().map(Arc::clone).collect()
    }

    pub(crate) fn find(&self, path: &str) -> Option<Arc<Site>> {
        let routes = self.0.load();
        let site = first_segment(path).and_then(|prefix| routes.by_prefix.get(prefix));
        let site = site.filter(|site| site.rest(path).is_some()).or(routes.whole.as_ref());
        site.map(Arc::clone)
    }
}

fn first_segment(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split('/').next()
}

/// Operators see in the log which servers there are.
fn tell_changes(before: &Routes, after: &Routes) {
    let missing_in = |routes: &Routes, route: &Route| !routes.sites().any(|other| other.route.key() == route.key());
    for Site { route, .. } in before
        .sites()
        .map(AsRef::as_ref)
        .filter(|site| missing_in(after, &site.route))
    {
        tracing::info!(server = route.server, namespace = route.namespace, prefix = route.prefix, upstream = %route.upstream, "route removed");
    }
    for Site { route, .. } in after
        .sites()
        .map(AsRef::as_ref)
        .filter(|site| missing_in(before, &site.route))
    {
        tracing::info!(server = route.server, namespace = route.namespace, prefix = route.prefix, upstream = %route.upstream, mode = route.policy.mode(), "route added");
    }
}

impl Routes {
    fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.by_prefix.values().chain(&self.whole)
    }

    fn build(routes: Vec<Route>, before: &Self) -> Result<Self, RouteFault> {
        let mut built = Self::default();
        for route in routes {
            let known = before.sites().find(|site| site.route.key() == route.key());
            let site = Arc::new(Site::build(route, known.map(|site| &site.state))?);
            let prefix = site.route.prefix.clone();
            let before = if prefix.is_empty() {
                built.whole.replace(Arc::clone(&site))
            } else {
                built.by_prefix.insert(prefix.clone(), Arc::clone(&site))
            };
            if let Some(first) = before {
                return Err(RouteFault::Twice {
                    prefix,
                    first: first.route.server.clone(),
                    second: site.route.server.clone(),
                });
            }
        }
        Ok(built)
    }
}

impl Site {
    fn build(route: Route, earlier: Option<&Arc<SiteState>>) -> Result<Self, RouteFault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !route.prefix.bytes().all(plain) || route.prefix == "." || route.prefix == ".." {
            return Err(RouteFault::Prefix {
                server: route.server,
                prefix: route.prefix,
            });
        }
        let parts = route.upstream.clone().into_parts();
        let (Some(scheme), Some(upstream_authority)) = (parts.scheme, parts.authority) else {
            return Err(upstream_fault(&route));
        };
        let host = upstream_authority.as_str().rsplit('@').next().unwrap_or_default().to_owned();
        let known = scheme == uri::Scheme::HTTP || scheme == uri::Scheme::HTTPS;
        let (true, Ok(authority)) = (known && !host.is_empty(), HeaderValue::try_from(host)) else {
            return Err(upstream_fault(&route));
        };
        let address = uri::Builder::new()
            .scheme(scheme)
            .authority(upstream_authority)
            .path_and_query("/");
        let Ok(address) = address.build() else {
            return Err(upstream_fault(&route));
        };
        let strip = route.strip_prefix.trim_end_matches('/');
        if !strip.is_empty() && (!strip.starts_with('/') || !strip.bytes().all(|byte| byte == b'/' || plain(byte))) {
            return Err(RouteFault::StripPrefix {
                strip_prefix: route.strip_prefix,
                server: route.server,
            });
        }
        let mount = if route.prefix.is_empty() {
            strip.to_owned()
        } else {
            format!("/{}/mcp", route.prefix)
        };
        Ok(Self {
            source: route.source.clone().unwrap_or_else(|| format!("{}-gateway", route.server)),
            event_type: route.event_type.clone().unwrap_or_else(|| "mcp.request".to_owned()),
            authority,
            metrics: OnceLock::new(),
            state: earlier.map_or_else(|| Arc::new(SiteState::new(address)), Arc::clone),
            upstream_path: route.upstream.path().trim_end_matches('/').to_owned(),
            mount,
            route,
        })
    }

    /// The server answered; the log tells when it had not before.
    pub(crate) fn is_back(&self) {
        if self.state.away.load(Ordering::Relaxed) && self.state.away.swap(false, Ordering::Relaxed) {
            tracing::info!(
                server = self.route.server,
                namespace = self.route.namespace,
                "the server answers again"
            );
        }
    }

    /// The server could not be asked; the log tells it once.
    pub(crate) fn is_away(&self, error: &(dyn Error + 'static)) {
        if !self.state.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(server = self.route.server, namespace = self.route.namespace, upstream = %self.route.upstream, error = %Chain(error), "the server cannot be asked");
        }
    }

    /// The path of ours for a path that the server named as its endpoint, which thereby becomes one that may be called.
    pub(crate) fn announce(&self, path: &str) -> String {
        let below = path
            .strip_prefix(self.upstream_path.as_str())
            .filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let mut announced = self.announced();
        if !announced.iter().any(|known| known == path) {
            announced.truncate(ANNOUNCED_MAX - 1);
            announced.push_front(path.to_owned());
        }
        match below {
            Some(rest) => format!("{}{rest}", self.mount),
            None => format!("{}{ANNOUNCED}{path}", self.mount),
        }
    }

    /// Whether what is posted there is answered on another stream.
    pub(crate) fn is_announced(&self, asked: &str) -> bool {
        let Some(rest) = self.rest(asked) else { return false };
        let announced = self.announced();
        announced.iter().any(|path| {
            rest.strip_prefix(ANNOUNCED) == Some(path) || path.strip_prefix(self.upstream_path.as_str()) == Some(rest)
        })
    }

    fn announced(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.state.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What follows the mount in a path: nothing, or something that begins with a slash.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path
            .strip_prefix(self.mount.as_str())
            .filter(|rest| rest.is_empty() || rest.starts_with('/'));
        // A server that owns every path owns those without its prefix, too.
        rest.or_else(|| self.route.prefix.is_empty().then_some(path))
    }

    /// The part of the path that is this server's alone on its host; empty when it is not known to share one.
    pub(crate) fn mount(&self) -> &str {
        &self.mount
    }

    /// Where the upstream has what the client asks for.
    pub(crate) fn target(&self, asked: &Uri) -> Option<Uri> {
        let rest = self.rest(asked.path())?;
        // Only what the server named itself can be reached outside of its own path.
        let named = rest.strip_prefix(ANNOUNCED).filter(|_| self.is_announced(asked.path()));
        let (base, rest) = named.map_or((self.upstream_path.as_str(), rest), |path| ("", path));
        let path_and_query = if named.is_none() && self.mount.is_empty() && self.upstream_path.is_empty() {
            asked
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| uri::PathAndQuery::from_static("/"))
        } else {
            let mut text = String::with_capacity(base.len() + rest.len() + 1);
            text.push_str(base);
            text.push_str(rest);
            if text.is_empty() {
                text.push('/');
            }
            if let Some(query) = asked.query() {
                text.push('?');
                text.push_str(query);
            }
            uri::PathAndQuery::try_from(text).ok()?
        };
        Some(Uri::from(path_and_query))
    }
}

impl SiteState {
    fn new(address: Uri) -> Self {
        Self {
            upstream: Arc::new(Upstream::new(address)),
            away: AtomicBool::new(false),
            announced: Mutex::default(),
            definitions: Definitions::default(),
        }
    }
}

fn upstream_fault(route: &Route) -> RouteFault {
    RouteFault::Upstream {
        server: route.server.clone(),
        upstream: route.upstream.to_string(),
    }
}

#[cfg(test)]
mod tests;
