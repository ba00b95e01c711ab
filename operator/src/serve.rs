//! From checked settings to a working operator.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use service_kit::http::HttpLimits;
use service_kit::tls::Tls;
use service_kit::{Stage, Tasks};
use tokio::net::TcpListener;

use crate::args::{Config, Settings};
use crate::authority::Authority;
use crate::controller::Controller;
use crate::feed::{Feed, TokenReviews};
use crate::lease::{Lease, Patience};
use crate::metrics::OperatorMetrics;
use crate::object::Kind;
use crate::queue::Queue;
use crate::watch::{SharedWorld, Synced, follow};
use crate::world::World;

/// Gateways that wait for their policy, each with a connection.
const GATEWAYS_MAX: usize = 16_384;
/// Gateways keep their connection between two requests.
const GATEWAY_IDLE_MAX: Duration = Duration::from_mins(2);

/// Starts the operator: watches, and passes once it holds the lease and knows everything. Ready when it knows everything.
pub fn serve(config: Config, client: &Client, admin: TcpListener, tls: TcpListener, tasks: &Tasks) -> anyhow::Result<()> {
    service_kit::health::serve_admin(admin, tasks).context("serving health and metrics")?;
    let metrics = OperatorMetrics::shared(tasks.metrics());
    let world = SharedWorld::new(World::new(&config.settings.ingress_host));
    let queue = Arc::new(Queue::default());
    let kinds = kinds(&config.settings);
    let synced = Arc::new(Synced::new(kinds.len(), tasks.readiness("watches")));
    for kind in kinds {
        let (client, world, queue, synced) = (client.clone(), world.clone(), Arc::clone(&queue), Arc::clone(&synced));
        let stop = tasks.shutdown(Stage::Query);
        tasks.spawn(Stage::Query, format!("watch {kind}"), async move {
            follow(client, kind, world, queue, synced, stop).await;
            Ok(())
        });
    }
    let feed = Feed::new(Arc::clone(&queue));
    let authority = Authority::new(client, &config.tls.namespace, config.tls.names, tasks.clock().clone());
    let held = authority.held();
    let settings = Arc::new(config.settings);
    let mut routes = crate::webhook::routes(world.clone(), Arc::clone(&settings), tasks.clock().clone());
    if settings.policy_url.is_some() {
        routes = routes.merge(crate::feed::routes(
            feed.clone(),
            TokenReviews::new(client),
            world.clone(),
            Arc::clone(&metrics),
            tasks.shutdown(Stage::Query),
        ));
        feed.watch_silence(tasks);
    }
    serve_tls(client, tls, authority, routes, tasks);
    let controller = Controller {
        client: client.clone(),
        world,
        queue,
        settings,
        metrics: Arc::clone(&metrics),
        clock: tasks.clock().clone(),
        feed,
        held,
    };
    let lease = config
        .lease
        .map(|lease| Lease::new(client, lease, Patience::default(), tasks.clock().clone()));
    start_passes(controller, lease, synced, config.concurrency, tasks);
    Ok(())
}

fn serve_tls(client: &Client, listener: TcpListener, authority: Authority, routes: axum::Router, tasks: &Tasks) {
    let (mut held, stop) = (authority.held(), tasks.shutdown(Stage::Query));
    tasks.spawn(
        Stage::Query,
        "webhooks",
        named(crate::webhook::trust(client.clone(), authority.held(), stop.clone())),
    );
    tasks.spawn(Stage::Query, "certificate", named(authority.keep(stop.clone())));
    let limits = HttpLimits {
        connections_max: GATEWAYS_MAX,
        header_read_timeout: GATEWAY_IDLE_MAX,
        // A review carries the object twice.
        body_bytes_max: 8 << 20,
        ..HttpLimits::default()
    };
    let app = service_kit::http::routed("tls", service_kit::problem::with_fallbacks(routes), limits, tasks);
    let starter = tasks.clone();
    tasks.spawn(Stage::Query, "tls", async move {
        // Until there is a certificate, clients wait in the listener's queue.
        let Some(Ok(first)) = stop
            .or(held.wait_for(Option::is_some))
            .await
            .map(|held| held.map(|held| held.clone()))
        else {
            return Ok(());
        };
        let Some(first) = first else { return Ok(()) };
        let tls = Tls::of(first.server);
        let make_service = move |peer, _certificate| app.service(peer);
        service_kit::http::serve_tls_with("tls", (listener, tls.clone()), make_service, limits, &starter, Stage::Query)
            .context("serving policies and webhooks")?;
        while let Some(Ok(())) = stop.or(held.changed()).await {
            if let Some(held) = held.borrow_and_update().as_ref() {
                tls.replace(Arc::clone(&held.server));
            }
        }
        Ok(())
    });
}

/// A task that cannot fail.
async fn named(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}

fn start_passes(controller: Controller, lease: Option<Lease>, synced: Arc<Synced>, concurrency: usize, tasks: &Tasks) {
    let (work, hold, starter) = (tasks.shutdown(Stage::Intake), tasks.shutdown(Stage::Pipeline), tasks.clone());
    tasks.spawn(Stage::Intake, "passes", async move {
        if let Some(mut lease) = lease {
            tracing::info!(identity = lease.identity(), "waiting for the lease");
            if !lease.acquire(&work).await {
                return Ok(());
            }
            // The lease outlives the passes: it is given up only when the last one is done.
            starter.spawn(Stage::Pipeline, "lease", async move {
                lease.hold(hold).await.context("holding the lease")
            });
        }
        controller.metrics.is_leader.set(1);
        if work.or(synced.wait()).await.is_some() && has_certificate(&controller, &work).await {
            tracing::info!("every kind is known; working");
            controller.feed.set_working(true);
            controller.run(concurrency, &work).await;
            controller.feed.set_working(false);
        }
        controller.metrics.is_leader.set(0);
        Ok(())
    });
}

/// Waits for the certificate where gateways need it: without, every policy would be written twice. `false` when shutdown came first.
async fn has_certificate(controller: &Controller, work: &service_kit::Shutdown) -> bool {
    if controller.settings.policy_url.is_none() {
        return true;
    }
    let mut held = controller.held.clone();
    // What cannot be had is logged by whoever looks after it; policies do not wait for it for ever.
    let wait = tokio::time::timeout(CERTIFICATE_WITHIN, held.wait_for(Option::is_some));
    work.or(wait).await.is_some()
}

/// How long the first pass waits for the certificate.
const CERTIFICATE_WITHIN: Duration = Duration::from_secs(10);

/// What is watched. Without the Gateway API there is nothing to watch of it.
fn kinds(settings: &Settings) -> Vec<Kind> {
    let read = [Kind::Server, Kind::Grant, Kind::Session, Kind::Pod];
    let owned = Kind::OWNED
        .into_iter()
        .filter(|kind| settings.gateway_api || *kind != Kind::HttpRoute);
    read.into_iter().chain(owned).collect()
}
