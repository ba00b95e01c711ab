//! HTTP/1.1 listeners: bounded in connections, headers and time, drained without cutting off requests.
//!
//! [`serve`] is for axum routers and adds a span, a trace context and metrics to each request. [`serve_with`] is for hyper
//! services that bring their own and pay for nothing else. Both start a task in a stage and return the bound address; when the
//! stage is asked to stop, they close the listener, let requests in flight finish, and close idle connections.

mod body;
mod connection;
mod metrics;
mod request;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::{Request, Response};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub use body::{BodyIdle, IdleTimeout};

use crate::tasks::{Stage, Tasks};
use metrics::HttpMetrics;
pub use request::{App, AppService};

/// Connections the kernel holds while we have not yet accepted them.
const BACKLOG: u32 = 4_096;

/// What a listener puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Open connections; further ones are refused with 503 and counted.
    pub connections_max: usize,
    /// Bytes of one request's line and headers together; more gets 431.
    pub header_bytes_max: usize,
    /// Time for a request's headers to arrive, counted from the end of the request before it: an idle connection is closed after
    /// this time, too. Clients that keep connections should let go of them earlier.
    pub header_read_timeout: Duration,
    /// Bytes of a request body that axum extractors read; more gets 413. Not applied by [`serve_with`].
    pub body_bytes_max: usize,
    /// Longest pause within a request body while it is being read; then reading fails. Not applied by [`serve_with`].
    pub body_idle_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            header_bytes_max: 64 << 10,
            header_read_timeout: Duration::from_secs(30),
            body_bytes_max: 2 << 20,
            body_idle_timeout: Duration::from_secs(30),
        }
    }
}

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address}")]
struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Listens on an address; port 0 takes a free one. The address is in the error, of the same kind as the cause.
///
/// Needs a tokio runtime around it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address).map_err(|source| io::Error::new(source.kind(), BindError { address, source }))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted process must get its port back although old connections linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves an axum router as a task of `stage`, and gives the bound address.
///
/// Each request runs in a span `request` with method, path, status, latency and trace id, and within
/// [`trace::scope`](crate::trace::scope), so that [`Problem`](crate::problem::Problem) answers carry the trace id. Handlers may
/// extract `ConnectInfo<SocketAddr>` and [`TraceContext`](crate::trace::TraceContext) (as an extension).
pub fn serve(
    name: &'static str,
    listener: TcpListener,
    app: Router,
    limits: HttpLimits,
    tasks: &Tasks,
    stage: Stage,
) -> io::Result<SocketAddr> {
    let app = routed(name, app, limits, tasks);
    serve_with(name, listener, move |peer| app.service(peer), limits, tasks, stage)
}

/// A router as [`serve`] runs it, for a listener that serves a router and something else by [`serve_with`].
pub fn routed(name: &'static str, app: Router, limits: HttpLimits, tasks: &Tasks) -> App {
    let app = app.layer(DefaultBodyLimit::max(limits.body_bytes_max));
    let metrics = HttpMetrics::shared(tasks.metrics()).of_listener(name);
    App::new(app, limits.body_idle_timeout, metrics)
}

/// Serves what `make_service` makes for each connection (it is given the client's address), as a task of `stage`, and gives the
/// bound address. Nothing is added to requests or answers.
///
/// A service whose answers stream without end watches the shutdown of its stage and ends them itself; otherwise they last until
/// the deadline and are cut off then.
pub fn serve_with<M, S, B>(
    name: &'static str,
    listener: TcpListener,
    make_service: M,
    limits: HttpLimits,
    tasks: &Tasks,
    stage: Stage,
) -> io::Result<SocketAddr>
where
    M: Fn(SocketAddr) -> S + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let metrics = HttpMetrics::shared(tasks.metrics()).of_listener(name);
    let open = move |stream, peer| std::future::ready(Some((stream, make_service(peer))));
    run(connection::Server::new(name, limits, metrics), listener, open, tasks, stage)
}

/// The same over TLS: `make_service` is given the client's certificate, too, if it showed one.
#[cfg(feature = "tls")]
pub fn serve_tls_with<M, S, B>(
    name: &'static str,
    (listener, tls): (TcpListener, crate::tls::Tls),
    make_service: M,
    limits: HttpLimits,
    tasks: &Tasks,
    stage: Stage,
) -> io::Result<SocketAddr>
where
    M: Fn(SocketAddr, Option<crate::tls::PeerCertificate>) -> S + Clone + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let metrics = HttpMetrics::shared(tasks.metrics()).of_listener(name);
    let server = connection::Server::new(name, limits, metrics.clone());
    let open = move |stream, peer| {
        let (tls, make_service, metrics) = (tls.clone(), make_service.clone(), metrics.clone());
        async move {
            match tls.accept(stream).await {
                Ok((stream, certificate)) => Some((stream, make_service(peer, certificate))),
                Err(fault) => {
                    metrics.handshake_failed();
                    tracing::debug!(listener = name, error = %crate::error::Chain(&fault), "connection ended before it began");
                    None
                }
            }
        }
    };
    run(server, listener, open, tasks, stage)
}

fn run<O, F, Io, S, B>(
    server: connection::Server,
    listener: TcpListener,
    open: O,
    tasks: &Tasks,
    stage: Stage,
) -> io::Result<SocketAddr>
where
    O: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    F: Future<Output = Option<(Io, S)>> + Send + 'static,
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let address = listener.local_addr()?;
    let name = server.name();
    tracing::info!(listener = name, %address, "listening");
    tasks.spawn(
        stage,
        format!("http {name}"),
        server.run(listener, open, tasks.shutdown(stage)),
    );
    Ok(address)
}

#[cfg(test)]
mod tests;
