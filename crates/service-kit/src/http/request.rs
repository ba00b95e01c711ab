//! What [`serve`](super::serve) adds to each request: span, trace context, client address, metrics.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use ::http::Request;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::time::Instant;
use tower::ServiceExt as _;
use tracing::{Instrument as _, field};

use super::body::IdleTimeout;
use super::metrics::ListenerMetrics;
use crate::error::panic_text;
use crate::problem::Problem;
use crate::trace::{self, TraceContext};

/// A router and what its requests share.
#[derive(Clone, Debug)]
pub struct App {
    router: Router,
    body_idle_timeout: Duration,
    metrics: ListenerMetrics,
}

impl App {
    pub(super) fn new(router: Router, body_idle_timeout: Duration, metrics: ListenerMetrics) -> Self {
        Self {
            router,
            body_idle_timeout,
            metrics,
        }
    }

    /// Serves the connection of one client.
    pub fn service(&self, peer: SocketAddr) -> AppService {
        AppService { app: self.clone(), peer }
    }
}

/// One connection's view of the router.
#[derive(Clone, Debug)]
pub struct AppService {
    app: App,
    peer: SocketAddr,
}

impl Service<Request<Incoming>> for AppService {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let started = Instant::now();
        let context = TraceContext::accept(request.headers());
        request.extensions_mut().insert(context);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let span = tracing::info_span!(
            "request",
            method = %request.method(),
            path = request.uri().path(),
            trace_id = %context.trace_id,
            status = field::Empty,
            latency_us = field::Empty,
        );
        let method = request.method().clone();
        let App {
            router,
            body_idle_timeout,
            metrics,
        } = self.app.clone();
        let request = request.map(|body| IdleTimeout::new(body, body_idle_timeout));
        let recorded = span.clone();
        let answer = async move {
            let response = trace::scope(context, answer_of(router, request)).await;
            let (status, latency) = (response.status(), started.elapsed());
            metrics.answered(&method, status, latency);
            recorded.record("status", status.as_u16());
            recorded.record("latency_us", u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            tracing::debug!("request answered");
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

/// A handler that panics spoils its own request and no other: the client gets an answer, and its connection lives on.
async fn answer_of(router: Router, request: Request<IdleTimeout<Incoming>>) -> axum::response::Response {
    match AssertUnwindSafe(router.oneshot(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            let text = panic_text(&*panic);
            Problem::internal(anyhow::anyhow!("the handler panicked: {text}")).into_response()
        }
    }
}
