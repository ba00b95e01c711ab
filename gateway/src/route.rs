//! Which server a path belongs to. A sidecar has one server that owns every path; a shared listener has many, each at
//! `/<prefix>/mcp`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::{HeaderValue, Uri, uri};

use crate::metrics::SiteMetrics;
use crate::policy::PolicyCell;

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
    /// Who the events say they are from; `<server>-gateway` when absent.
    pub source: Option<String>,
    /// What requests are recorded as; `mcp.request` when absent.
    pub event_type: Option<String>,
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
            source: None,
            event_type: None,
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
}

/// Why routes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RouteFault {
    #[error("the upstream of server `{server}` must be an http:// or https:// address with a host, got `{upstream}`")]
    Upstream { server: String, upstream: String },
    #[error("the prefix `{prefix}` of server `{server}` must be one path segment of letters, digits, `.`, `_` and `-`")]
    Prefix { server: String, prefix: String },
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
    scheme: uri::Scheme,
    upstream_authority: uri::Authority,
    /// Path of the upstream without a final slash.
    upstream_path: String,
    /// What is cut off the front of a path.
    mount: String,
}

impl RouteTable {
    pub fn new(routes: Vec<Route>) -> Result<Self, RouteFault> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Routes::build(routes)?))))
    }

    /// Puts other routes in force, or says why not and leaves those there are.
    pub fn replace(&self, routes: Vec<Route>) -> Result<(), RouteFault> {
        self.0.store(Arc::new(Routes::build(routes)?));
        Ok(())
    }

    /// The routes in force, for status pages.
    pub fn routes(&self) -> Vec<Route> {
        let routes = self.0.load();
        let mut all: Vec<_> = routes
            .by_prefix
            .values()
            .chain(&routes.whole)
            .map(|site| site.route.clone())
            .collect();
        all.sort_by(|left, right| left.prefix.cmp(&right.prefix));
        all
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

impl Routes {
    fn build(routes: Vec<Route>) -> Result<Self, RouteFault> {
        let mut built = Self::default();
        for route in routes {
            let site = Arc::new(Site::build(route)?);
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
    fn build(route: Route) -> Result<Self, RouteFault> {
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
        let mount = if route.prefix.is_empty() {
            String::new()
        } else {
            format!("/{}/mcp", route.prefix)
        };
        Ok(Self {
            source: route.source.clone().unwrap_or_else(|| format!("{}-gateway", route.server)),
            event_type: route.event_type.clone().unwrap_or_else(|| "mcp.request".to_owned()),
            authority,
            metrics: OnceLock::new(),
            scheme,
            upstream_authority,
            upstream_path: route.upstream.path().trim_end_matches('/').to_owned(),
            mount,
            route,
        })
    }

    /// What follows the mount in a path: nothing, or something that begins with a slash.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.mount.as_str())
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Where the upstream has what the client asks for.
    pub(crate) fn target(&self, asked: &Uri) -> Option<Uri> {
        let rest = self.rest(asked.path())?;
        let path_and_query = if self.mount.is_empty() && self.upstream_path.is_empty() {
            asked
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| uri::PathAndQuery::from_static("/"))
        } else {
            let mut text = String::with_capacity(self.upstream_path.len() + rest.len() + 1);
            text.push_str(&self.upstream_path);
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
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.upstream_authority.clone());
        parts.path_and_query = Some(path_and_query);
        Uri::from_parts(parts).ok()
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
