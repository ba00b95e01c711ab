//! Serves a router by TLS, with whatever certificate is held when a client connects.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use service_kit::error::Chain;
use service_kit::http::{App, HttpLimits};
use service_kit::{Shutdown, Stage, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::authority::Held;

/// Longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Rest after the system could not accept, mostly for want of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(200);

struct Server {
    app: App,
    held: watch::Receiver<Option<Held>>,
    slots: Arc<Semaphore>,
    builder: Builder,
}

/// Serves as a task of `stage`, and gives the bound address. Until a certificate is held, connections are closed.
pub(crate) fn serve(
    listener: TcpListener,
    app: App,
    held: watch::Receiver<Option<Held>>,
    limits: HttpLimits,
    tasks: &Tasks,
) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_header_size(limits.header_bytes_max);
    let server = Server {
        app,
        held,
        slots: Arc::new(Semaphore::new(limits.connections_max)),
        builder,
    };
    tracing::info!(listener = "tls", %address, "listening");
    tasks.spawn(Stage::Query, "tls", server.run(listener, tasks.shutdown(Stage::Query)));
    Ok(address)
}

impl Server {
    async fn run(self, listener: TcpListener, stop: Shutdown) -> anyhow::Result<()> {
        let mut open = JoinSet::new();
        while let Some(accepted) = stop.or(listener.accept()).await {
            while open.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    let held = self.held.borrow().clone();
                    let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
                    if let (Some(held), Some(slot)) = (held, slot) {
                        open.spawn(self.connection(stream, peer, held, slot, stop.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    let _stopping = stop.or(tokio::time::sleep(ACCEPT_REST)).await;
                }
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
        Ok(())
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        held: Held,
        slot: OwnedSemaphorePermit,
        stop: Shutdown,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (builder, service) = (self.builder.clone(), self.app.service(peer));
        async move {
            let _slot = slot;
            let _unimportant = stream.set_nodelay(true);
            let acceptor = TlsAcceptor::from(held.server);
            let stream = match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "a handshake failed"),
                Err(_elapsed) => return tracing::debug!(%peer, "a handshake took too long"),
            };
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.requested() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error = %Chain(&error), "connection ended by a fault");
            }
        }
    }
}
