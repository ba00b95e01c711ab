//! From checked settings to a working operator.

use std::sync::Arc;

use anyhow::Context as _;
use kube::Client;
use service_kit::{Stage, Tasks};
use tokio::net::TcpListener;

use crate::args::{Config, Settings};
use crate::controller::Controller;
use crate::lease::{Lease, Patience};
use crate::metrics::OperatorMetrics;
use crate::object::Kind;
use crate::queue::Queue;
use crate::watch::{SharedWorld, Synced, follow};
use crate::world::World;

/// Starts the operator: watches, and passes once it holds the lease and knows everything. Ready when it knows everything.
pub fn serve(config: Config, client: &Client, admin: TcpListener, tasks: &Tasks) -> anyhow::Result<()> {
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
    let controller = Controller {
        client: client.clone(),
        world,
        queue,
        settings: Arc::new(config.settings),
        metrics: Arc::clone(&metrics),
        clock: tasks.clock().clone(),
    };
    let lease = config
        .lease
        .map(|lease| Lease::new(client, lease, Patience::default(), tasks.clock().clone()));
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
        metrics.is_leader.set(1);
        if work.or(synced.wait()).await.is_some() {
            tracing::info!("every kind is known; working");
            controller.run(config.concurrency, &work).await;
        }
        metrics.is_leader.set(0);
        Ok(())
    });
    Ok(())
}

/// What is watched. Without the Gateway API there is nothing to watch of it.
fn kinds(settings: &Settings) -> Vec<Kind> {
    let read = [Kind::Server, Kind::Grant, Kind::Session, Kind::Pod];
    let owned = Kind::OWNED
        .into_iter()
        .filter(|kind| settings.gateway_api || *kind != Kind::HttpRoute);
    read.into_iter().chain(owned).collect()
}
