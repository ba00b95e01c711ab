//! From checked settings to a listening gateway.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use service_kit::http::HttpLimits;
use service_kit::tls::Tls;
use service_kit::{Stage, Tasks};
use tokio::net::TcpListener;

use crate::answer::AnswerBody;
use crate::args::Config;
use crate::delivery::deliver;
use crate::gateway::Gateway;
use crate::identify::Peer;
use crate::policy::watch_policy;
use crate::record::{Recorder, RecorderLimits};
use crate::route::RouteTable;

/// Starts a gateway for one server: listener, delivery of events, health and metrics. Gives the bound address.
pub async fn serve(config: Config, listener: TcpListener, admin: TcpListener, tasks: &Tasks) -> anyhow::Result<SocketAddr> {
    let routes = RouteTable::new(vec![config.route]).context("building the route")?;
    let recorder = if let Some(delivery) = config.delivery {
        let recorder = Recorder::new(config.recorder);
        deliver(recorder.clone(), delivery, tasks)
            .await
            .context("starting the delivery of events")?;
        recorder
    } else {
        tracing::warn!("no ingest address is set; events are counted and dropped. Set ANALYTICS_INGEST_URL to keep them");
        Recorder::new(RecorderLimits {
            events_max: 0,
            ..config.recorder
        })
    };
    let policies: Vec<_> = routes.routes().into_iter().map(|route| route.policy).collect();
    if let (Some(source), [policy]) = (config.policy, policies.as_slice()) {
        watch_policy(source, policy.clone(), tasks).await;
    }
    let admin_app = service_kit::health::routes(tasks).merge(crate::status::routes(&routes));
    service_kit::http::serve(
        "admin",
        admin,
        service_kit::problem::with_fallbacks(admin_app),
        HttpLimits::default(),
        tasks,
        Stage::Admin,
    )
    .context("serving health and metrics")?;
    let gateway = Gateway::new(routes, recorder, config.limits, tasks);
    if let Some(traces) = config.traces {
        gateway.trace(traces, tasks);
    }
    let address = match config.tls {
        None => listen(&gateway, listener, tasks),
        Some(files) => {
            let tls = Tls::watch(files, tasks).await.context("taking in the certificate files")?;
            listen_tls(&gateway, listener, tls, tasks)
        }
    };
    address.context("serving MCP clients")
}

/// Serves a gateway on a listener until its stage is drained, and gives the bound address.
pub fn listen(gateway: &Gateway, listener: TcpListener, tasks: &Tasks) -> io::Result<SocketAddr> {
    let gateway = gateway.clone();
    let make_service = move |peer: SocketAddr| service(gateway.clone(), peer.into());
    service_kit::http::serve_with("gateway", listener, make_service, limits(), tasks, Stage::Intake)
}

/// The same over TLS, where clients may show certificates.
pub fn listen_tls(gateway: &Gateway, listener: TcpListener, tls: Tls, tasks: &Tasks) -> io::Result<SocketAddr> {
    let gateway = gateway.clone();
    let make_service = move |address, certificate| service(gateway.clone(), Peer { address, certificate });
    service_kit::http::serve_tls_with("gateway", (listener, tls), make_service, limits(), tasks, Stage::Intake)
}

/// MCP clients pause while people think, so their idle connections are kept longer than elsewhere.
fn limits() -> HttpLimits {
    HttpLimits {
        header_read_timeout: std::time::Duration::from_mins(2),
        ..HttpLimits::default()
    }
}

/// What answers the requests of one connection.
fn service(
    gateway: Gateway,
    peer: Peer,
) -> impl Service<
    Request<Incoming>,
    Response = Response<AnswerBody>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<AnswerBody>, Infallible>> + Send,
> + Send {
    service_fn(move |request| {
        let (gateway, peer) = (gateway.clone(), peer.clone());
        async move { Ok(gateway.answer(peer, request).await) }
    })
}
