//! Connections to one server. A request takes the one that was used last; an answer gives it back when its last byte has come.
//!
//! A request that could not be written because the connection had just closed goes by another one; it is never sent twice, since only
//! what hyper hands back unsent is tried again. The lock guards a push or a pop and is never held while anything waits.

use std::error::Error;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::Executor as _;
use hyper::service::Service as _;
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;

use crate::forward::Connector;

/// Common servers close idle connections after five seconds. We let go before them, since a request that meets a closing
/// connection may fail and is not sent again.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(4);
/// Most connections that wait for work.
const IDLE_COUNT_MAX: usize = 256;

type Body = Full<Bytes>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskFault {
    #[error("connecting to the server")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    #[error("asking the server")]
    Ask(#[source] hyper::Error),
}

/// The connections to one server.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Scheme and authority.
    address: Uri,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A connection in use.
#[derive(Debug)]
pub(crate) struct Lease {
    upstream: Arc<Upstream>,
    sender: Option<SendRequest<Body>>,
}

impl Upstream {
    pub(crate) fn new(address: Uri) -> Self {
        Self {
            address,
            idle: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn address(&self) -> &Uri {
        &self.address
    }

    /// Asks the server. The request has a path only, and a `Host`.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        connector: &Connector,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Lease), AskFault> {
        while let Some(mut sender) = self.take() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.lease(sender))),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(AskFault::Ask(failed.into_error())),
                },
            }
        }
        let mut sender = self.connect(connector).await?;
        let response = sender.send_request(request).await.map_err(AskFault::Ask)?;
        Ok((response, self.lease(sender)))
    }

    fn lease(self: &Arc<Self>, sender: SendRequest<Body>) -> Lease {
        Lease {
            upstream: Arc::clone(self),
            sender: Some(sender),
        }
    }

    async fn connect(&self, connector: &Connector) -> Result<SendRequest<Body>, AskFault> {
        let service = TowerToHyperService::new(connector.clone());
        let stream = service.call(self.address.clone()).await.map_err(AskFault::Connect)?;
        let (sender, connection) = Builder::new().handshake(stream).await.map_err(AskFault::Ask)?;
        TokioExecutor::new().execute(async move {
            // Whoever waits for an answer on it is told the fault.
            drop(connection.await);
        });
        Ok(sender)
    }

    /// The connection that was used last, if one is fit for use.
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.lock();
        while let Some(last) = idle.pop() {
            if last.since.elapsed() > IDLE_MAX {
                // The others have waited for longer still.
                idle.clear();
                return None;
            }
            if last.sender.is_ready() {
                return Some(last.sender);
            }
        }
        None
    }

    fn give_back(&self, sender: SendRequest<Body>) {
        let mut idle = self.lock();
        if idle.len() < IDLE_COUNT_MAX {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Closes the connections that nobody needed for a while.
    pub(crate) fn let_go(&self) {
        self.lock()
            .retain(|idle| idle.since.elapsed() <= IDLE_MAX && !idle.sender.is_closed());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The answer has come as a whole: the connection is free for the next request. Not calling this closes it.
    pub(crate) fn done(&mut self) {
        let Some(mut sender) = self.sender.take() else { return };
        if sender.is_ready() {
            return self.upstream.give_back(sender);
        }
        if sender.is_closed() {
            return;
        }
        // Its task has not noticed the end of the answer yet.
        let upstream = Arc::clone(&self.upstream);
        TokioExecutor::new().execute(async move {
            if poll_fn(|context| sender.poll_ready(context)).await.is_ok() {
                upstream.give_back(sender);
            }
        });
    }
}
