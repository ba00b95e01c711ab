//! Accepting connections, and each one's life.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::HttpLimits;
use super::metrics::ListenerMetrics;
use crate::error::Chain;
use crate::tasks::Shutdown;

/// Rest after the system could not accept, mostly for want of file descriptors: trying again at once would only burn the
/// processor that could close some.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// How long the listener still accepts, and then each connection is still read, after the request to stop. What the kernel
/// already holds reaches us only after a turn of the event loop.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// After this much silence the kernel asks whether the client still exists.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);

/// How long a client may leave sent data unread before the kernel gives it up: otherwise it would hold its connection, and the
/// answer, for good.
#[cfg(target_os = "linux")]
const UNREAD_MAX: Duration = Duration::from_mins(1);

/// The whole answer to a connection beyond the bound; made once, for there is no time to lose on it.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 81\r\n\r\n\
{\"error\":\"too_many_connections\",\"message\":\"this listener has no connection left\"}";

/// One listener's server.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    metrics: ListenerMetrics,
    slots: Arc<Semaphore>,
    builder: Builder,
    /// Open connections.
    open: TaskTracker,
    /// Ends when the server is dropped at the deadline, and the connections with it.
    cut_off: CancellationToken,
}

impl Server {
    pub(super) fn new(name: &'static str, limits: HttpLimits, metrics: ListenerMetrics) -> Self {
        let mut builder = Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_timeout)
            .max_header_size(limits.header_bytes_max);
        let slots = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
        Self {
            name,
            metrics,
            slots,
            builder,
            open: TaskTracker::new(),
            cut_off: CancellationToken::new(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// `open` makes of each accepted connection what is served on it, and by what.
    pub(super) async fn run<O, F, Io, S, B>(self, listener: TcpListener, open: O, shutdown: Shutdown) -> anyhow::Result<()>
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
        let _cut_off_when_dropped = self.cut_off.clone().drop_guard();
        while let Some(accepted) = shutdown.or(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => self.admit(stream, |stream| open(stream, peer), &shutdown),
                Err(error) => self.rest_after(&error, &shutdown).await,
            }
        }
        // The kernel has told the clients in its queue that they are connected; closing the listener would reset them.
        let last_look = Instant::now() + LAST_LOOK;
        while let Ok(Ok((stream, peer))) = timeout_at(last_look, listener.accept()).await {
            self.admit(stream, |stream| open(stream, peer), &shutdown);
        }
        drop(listener);
        self.open.close();
        tracing::debug!(
            listener = self.name,
            connections = self.open.len(),
            "listener closed; finishing requests"
        );
        self.open.wait().await;
        Ok(())
    }

    fn admit<F, Io, S, B>(&self, stream: TcpStream, open: impl FnOnce(TcpStream) -> F, shutdown: &Shutdown)
    where
        F: Future<Output = Option<(Io, S)>> + Send + 'static,
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => {
                tune(&stream);
                self.start(open(stream), slot, shutdown.clone());
            }
            Err(_full) => self.refuse(&stream),
        }
    }

    fn start<F, Io, S, B>(&self, opened: F, slot: OwnedSemaphorePermit, shutdown: Shutdown)
    where
        F: Future<Output = Option<(Io, S)>> + Send + 'static,
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.metrics.accepted.inc();
        let builder = self.builder.clone();
        let place = Place::take(self.metrics.clone(), slot);
        let cut_off = self.cut_off.clone();
        self.open.spawn(async move {
            let served = async {
                let Some((io, service)) = opened.await else {
                    return Ok(());
                };
                let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => ended,
                    () = shutdown.requested() => {
                        // Closing at once would reset a client whose request is already here.
                        if let Ok(ended) = timeout(LAST_LOOK, connection.as_mut()).await {
                            return ended;
                        }
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            };
            match cut_off.run_until_cancelled(served).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    place.metrics.broken(&error);
                    tracing::debug!(error = %Chain(&error), "connection ended by a fault");
                }
                None => place.metrics.cut_off_at_deadline(),
            }
        });
    }

    fn refuse(&self, stream: &TcpStream) {
        self.metrics.refused.inc();
        // An empty socket buffer takes these few bytes; if not, a closed connection says it as well.
        let _as_far_as_it_goes = stream.try_write(REFUSAL);
        tracing::debug!(listener = self.name, "connection refused at the bound");
    }

    async fn rest_after(&self, error: &io::Error, shutdown: &Shutdown) {
        self.metrics.accept_errors.inc();
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        ) {
            // That one client went away while it waited; the listener is fine.
            return;
        }
        tracing::warn!(listener = self.name, %error, "accepting a connection failed");
        let _stopping = shutdown.or(tokio::time::sleep(ACCEPT_REST)).await;
    }
}

/// A connection's place among the allowed ones; given back when dropped.
#[derive(Debug)]
struct Place {
    metrics: ListenerMetrics,
    _slot: OwnedSemaphorePermit,
}

impl Place {
    fn take(metrics: ListenerMetrics, slot: OwnedSemaphorePermit) -> Self {
        metrics.open.inc();
        Self { metrics, _slot: slot }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}

/// Small answers leave at once, and clients that vanish or stop reading are noticed. A connection works without, so failing is
/// fine.
fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER)))
        .and_then(|()| limit_unsent(&socket));
    if let Err(error) = tuned {
        tracing::debug!(%error, "setting socket options failed");
    }
}

#[cfg(target_os = "linux")]
fn limit_unsent(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(UNREAD_MAX))
}

/// Other systems keep such a connection until it is closed; the bound on connections still holds.
#[cfg(not(target_os = "linux"))]
fn limit_unsent(_socket: &SockRef<'_>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::REFUSAL;

    #[test]
    fn refusal_states_its_true_length() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.lines().any(|line| line == format!("content-length: {}", body.len())),
            "{head}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
