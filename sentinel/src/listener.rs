//! The one listener: our own routes to the router, every other path to the gateway.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use axum::body::Body;
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use gateway::Gateway;
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use service_kit::http::{App, AppService, HttpLimits, serve_with};
use service_kit::{Stage, Tasks};
use tokio::net::TcpListener;

use crate::args::RESERVED;

/// Name of the listener in logs and metrics.
pub(crate) const NAME: &str = "mcp-runtime";

/// Serves both until the process stops, and gives the bound address.
pub(crate) fn serve(
    listener: TcpListener,
    app: App,
    gateway: Gateway,
    limits: HttpLimits,
    tasks: &Tasks,
) -> io::Result<SocketAddr> {
    let split = move |peer| Split {
        app: app.service(peer),
        gateway: gateway.clone(),
        peer,
    };
    serve_with(NAME, listener, split, limits, tasks, Stage::Intake)
}

/// One connection's view.
#[derive(Debug, Clone)]
struct Split {
    app: AppService,
    gateway: Gateway,
    peer: SocketAddr,
}

impl Service<Request<Incoming>> for Split {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if is_ours(request.uri().path()) {
            return self.app.call(request);
        }
        let (gateway, peer) = (self.gateway.clone(), self.peer);
        async move { Ok(gateway.answer(peer, request).await.map(Body::new)) }.boxed()
    }
}

/// Where the gateway tells clients which identity provider a server's tokens come from (RFC 9728); the server's path follows.
const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource/";

/// Whether a path belongs to us and not to a server: by its first segment, so that nothing below a server's prefix is shadowed.
fn is_ours(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let is_told_by_gateway = path.starts_with(RESOURCE_METADATA);
    first.is_empty() || RESERVED.contains(&first) || first == ".well-known" && !is_told_by_gateway
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_below_a_servers_prefix_is_shadowed() {
        for ours in [
            "/",
            "",
            "/api/v1/events",
            "/events",
            "/ready",
            "//ready",
            "/.well-known/security.txt",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for servers in [
            "/payments/mcp",
            "/payments/ready",
            "/payments/events",
            "/eventsx/mcp",
            "/.well-known/oauth-protected-resource/payments/mcp",
            "/apis",
        ] {
            assert!(!is_ours(servers), "{servers}");
        }
    }
}
