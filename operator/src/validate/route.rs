//! How clients reach a server: which host and path it claims, and what carries the route.

use crds::McpServer;
use crds::server::HttpRouteSpec;
use crds::word::AuthMode;

use super::{Fault, Parent, Reason, Route, Via, annotation};
use crate::args::Settings;
use crate::world::Facts;

/// The host a server claims; empty means every host.
pub fn host<'a>(server: &'a McpServer, default: &'a str) -> &'a str {
    server
        .spec
        .ingress_host
        .as_deref()
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .unwrap_or(default)
}

/// The path a server claims.
pub fn path(server: &McpServer) -> String {
    format!("/{}/mcp", server.prefix())
}

pub(super) fn route(facts: &Facts, server: &McpServer, settings: &Settings) -> Result<Route, Fault> {
    let spec = &server.spec;
    let (host, path) = (host(server, &settings.ingress_host).to_owned(), path(server));
    // `/a/mcp` also catches what is below it, so `/a/mcp/b/mcp` would be carved out of another server's route.
    if server.prefix().split('/').skip(1).any(|segment| segment == "mcp") {
        return Err(Fault::new(
            Reason::RouteRefused,
            "spec.publicPathPrefix must not lie below the route of another prefix, such as a/mcp/b",
        ));
    }
    if let Some(holder) = &facts.route_holder {
        let shown = if host.is_empty() { "every host" } else { &host };
        return Err(Fault::new(
            Reason::RouteTaken,
            format!(
                "route {path} on {shown} belongs to MCPServer {holder}, which claimed it first; set spec.publicPathPrefix or spec.ingressHost"
            ),
        ));
    }
    let via = match &spec.http_route {
        Some(wish) => Via::HttpRoute {
            parents: parents(wish, settings)?,
        },
        None => Via::Ingress {
            class: spec.ingress_class().to_owned(),
            annotations: annotation::allowed(&spec.ingress_annotations, &settings.annotations_allowed)?,
            tls_secret: spec.ingress_tls_secret.clone().filter(|name| !name.is_empty()),
        },
    };
    let is_oauth = spec.is_governed() && spec.auth.as_ref().is_some_and(|auth| auth.mode() == AuthMode::Oauth);
    Ok(Route {
        host,
        path,
        is_oauth,
        via,
    })
}

fn parents(wish: &HttpRouteSpec, settings: &Settings) -> Result<Vec<Parent>, Fault> {
    if !settings.gateway_api {
        return Err(Fault::new(
            Reason::RouteRefused,
            "spec.httpRoute needs the Gateway API, which this operator is not told of; remove it, or start the operator with --gateway-api",
        ));
    }
    let named = wish.parent_refs.iter().map(|parent| Parent {
        namespace: parent.namespace.clone(),
        name: parent.name.clone(),
        section: parent.section_name.clone(),
    });
    let mut parents: Vec<Parent> = named.collect();
    if parents.is_empty() {
        let (namespace, name) = settings.default_gateway.clone().ok_or_else(|| {
            Fault::new(
                Reason::RouteRefused,
                "spec.httpRoute.parentRefs names no Gateway, and the operator has no default one",
            )
        })?;
        parents.push(Parent {
            namespace: Some(namespace),
            name,
            section: None,
        });
    }
    Ok(parents)
}
