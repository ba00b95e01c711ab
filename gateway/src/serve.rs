//! From checked settings to a listening gateway.

use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use hyper::service::service_fn;
use service_kit::http::HttpLimits;
use service_kit::{Stage, Tasks};
use tokio::net::TcpListener;

use crate::args::Config;
use crate::delivery::deliver;
use crate::gateway::Gateway;
use crate::policy::watch_file;
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
    if let (Some(file), [policy]) = (config.policy, policies.as_slice()) {
        watch_file(file, policy.clone(), tasks).await;
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
    listen(&gateway, listener, tasks).context("serving MCP clients")
}

/// Serves a gateway on a listener until its stage is drained, and gives the bound address.
pub fn listen(gateway: &Gateway, listener: TcpListener, tasks: &Tasks) -> io::Result<SocketAddr> {
    let gateway = gateway.clone();
    let make_service = move |peer| {
        let gateway = gateway.clone();
        service_fn(move |request| {
            let gateway = gateway.clone();
            async move { Ok::<_, std::convert::Infallible>(gateway.answer(peer, request).await) }
        })
    };
    // MCP clients pause while people think, so their idle connections are kept longer than elsewhere.
    let limits = HttpLimits {
        header_read_timeout: std::time::Duration::from_mins(2),
        ..HttpLimits::default()
    };
    service_kit::http::serve_with("gateway", listener, make_service, limits, tasks, Stage::Intake)
}
