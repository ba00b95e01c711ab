//! The adapter on standard input and output: lines of the client become requests, answers and streams become lines.
//!
//! Requests run side by side. What must keep its order does: nothing overtakes `initialize` and `notifications/initialized`, and
//! notifications and answers of the client go out one after the other. Standard output holds messages and nothing else.

mod cache;
mod carry;
mod frame;
mod legacy;
mod listen;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use service_kit::{Stage, Tasks};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::message::{Kind, Message};
use crate::params::Schemas;
use crate::reply::Refusal;
use crate::upstream::{Outgoing, Repeat, Upstream};
use cache::ToolsCache;
use frame::Line;
use legacy::Legacy;

/// Requests in flight; further ones are refused and counted.
const IN_FLIGHT_MAX: usize = 512;
/// Lines that wait for standard output. When it is full, streams are read no further.
const LINES_MAX: usize = 256;
/// Notifications and answers of the client that wait to be sent.
const LANE_MAX: usize = 256;
/// Longest time that ending the session at the server may take on exit.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Methods of an anonymous adapter when none are named.
pub const ANONYMOUS_METHODS: [&str; 7] = [
    "initialize",
    "notifications/initialized",
    "ping",
    "server/discover",
    "tools/list",
    "resources/list",
    "prompts/list",
];

/// How the adapter on standard input and output behaves.
#[derive(Debug, Clone)]
pub struct StdioConfig {
    /// How long a list of tools is answered from memory; not at all without it.
    pub tools_cache_ttl: Option<Duration>,
    /// The only methods that pass; all without it.
    pub methods: Option<Vec<String>>,
    /// How long requests in flight are waited for when the client has closed its side.
    pub exit_wait: Duration,
    /// Longest line, in bytes.
    pub line_bytes_max: usize,
    /// Longest answer or event of the server, in bytes.
    pub answer_bytes_max: usize,
}

impl Default for StdioConfig {
    fn default() -> Self {
        Self {
            tools_cache_ttl: None,
            methods: None,
            exit_wait: Duration::from_secs(1),
            line_bytes_max: 16 << 20,
            answer_bytes_max: 32 << 20,
        }
    }
}

/// Why the adapter stopped before its client did.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    #[error("reading standard input")]
    Input(#[source] std::io::Error),
    #[error("writing to standard output")]
    Output(#[source] std::io::Error),
}

/// A client on lines and a server behind its gateway.
#[derive(Debug)]
struct Bridge {
    upstream: Upstream,
    config: StdioConfig,
    out: mpsc::Sender<Bytes>,
    lane: mpsc::Sender<Message>,
    legacy: Legacy,
    cache: ToolsCache,
    schemas: Mutex<Schemas>,
    /// Requests in flight by the raw text of their id.
    open: Mutex<HashMap<String, CancellationToken>>,
    places: Arc<Semaphore>,
    /// Cancelled when nothing is read any more.
    closing: CancellationToken,
    tasks: Tasks,
}

/// Where a client writes to, and reads from.
#[derive(Debug)]
pub struct Lines<R, W> {
    pub input: R,
    pub output: W,
}

/// Carries messages until the client closes its side or `stop` resolves, then ends what is open.
pub async fn serve<R, W>(
    upstream: Upstream,
    config: StdioConfig,
    client: Lines<R, W>,
    stop: impl Future<Output = ()>,
    tasks: &Tasks,
) -> Result<(), StdioError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (out, lines) = mpsc::channel(LINES_MAX);
    let (lane, queued) = mpsc::channel(LANE_MAX);
    let bridge = Arc::new(Bridge {
        upstream,
        out,
        lane,
        legacy: Legacy::default(),
        cache: ToolsCache::new(config.tools_cache_ttl),
        config,
        schemas: Mutex::default(),
        open: Mutex::default(),
        places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        closing: CancellationToken::new(),
        tasks: tasks.clone(),
    });
    let printing = frame::write_lines(client.output, lines);
    let working = async {
        let mut sending = std::pin::pin!(Arc::clone(&bridge).send_in_order(queued));
        let read = tokio::select! {
            read = bridge.read(BufReader::new(client.input)) => read,
            () = &mut sending => Ok(()),
            () = stop => Ok(()),
        };
        bridge.leave(sending).await;
        drop(bridge);
        read
    };
    let mut printing = std::pin::pin!(printing);
    tokio::select! {
        read = working => {
            // Whoever still holds a line to write is being stopped; what was written stays whole.
            let written = timeout(FAREWELL_MAX, printing).await.unwrap_or(Ok(()));
            read.and(written.map_err(StdioError::Output))
        }
        // Nobody reads any more, so there is nobody to work for.
        written = &mut printing => written.map_err(StdioError::Output),
    }
}

impl Bridge {
    async fn read<R: AsyncRead + Unpin>(self: &Arc<Self>, mut input: BufReader<R>) -> Result<(), StdioError> {
        loop {
            let line = frame::next_line(&mut input, self.config.line_bytes_max).await;
            match line.map_err(StdioError::Input)? {
                Line::End => return Ok(()),
                Line::TooLong => {
                    self.upstream.metrics().unreadable.inc();
                    let bytes_max = self.config.line_bytes_max;
                    self.refuse(
                        "null",
                        &Refusal::new(-32600, "too_large", format!("a message is longer than {bytes_max} bytes")),
                    )
                    .await;
                }
                Line::Text(bytes) => match Message::parse(bytes) {
                    Ok(message) => self.take(message).await,
                    Err(error) => {
                        self.upstream.metrics().unreadable.inc();
                        let code = match error {
                            crate::message::NotAMessage::Json(_) => -32700,
                            crate::message::NotAMessage::Shape => -32600,
                        };
                        let text = service_kit::error::Chain(&error).to_string();
                        self.refuse("null", &Refusal::new(code, "unreadable", text)).await;
                    }
                },
            }
        }
    }

    /// Deals with one message of the client.
    async fn take(self: &Arc<Self>, message: Message) {
        let metrics = self.upstream.metrics();
        if !self.is_allowed(&message) {
            for id in message.waiting() {
                let method = message.method.as_deref().unwrap_or("batch");
                let refusal = Refusal::new(-32601, "anonymous", format!("{method} is not available to anonymous callers"))
                    .hint("run the adapter with --server and --agent instead of --anonymous");
                self.refuse(&id, &refusal).await;
            }
            return;
        }
        match message.kind {
            Kind::Request if message.is_method("initialize") => {
                metrics.requests.inc();
                Arc::clone(self).carry(message, CancellationToken::new()).await;
            }
            Kind::Request | Kind::Batch(_) => {
                metrics.requests.inc();
                self.start(message).await;
            }
            Kind::Notification if message.is_method("notifications/initialized") => {
                metrics.notifications.inc();
                self.initialized(message).await;
            }
            Kind::Notification if message.is_method("notifications/cancelled") => {
                metrics.notifications.inc();
                if self.cancel(&message) == legacy::Era::Legacy {
                    self.queue(message).await;
                }
            }
            Kind::Notification => {
                metrics.notifications.inc();
                self.queue(message).await;
            }
            Kind::Response => {
                metrics.responses.inc();
                self.queue(message).await;
            }
        }
    }

    fn is_allowed(&self, message: &Message) -> bool {
        let Some(methods) = &self.config.methods else { return true };
        message.method.as_ref().is_some_and(|method| methods.contains(method))
    }

    async fn start(self: &Arc<Self>, message: Message) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            for id in message.waiting() {
                let refusal = Refusal::new(
                    429,
                    "too_many_requests",
                    format!("{IN_FLIGHT_MAX} requests wait for an answer"),
                );
                self.refuse(&id, &refusal).await;
            }
            return;
        };
        let token = CancellationToken::new();
        let ids = message.waiting();
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.extend(ids.iter().map(|id| (id.clone(), token.clone())));
        }
        let metrics = Arc::clone(self.upstream.metrics());
        let bridge = Arc::clone(self);
        self.tasks.spawn_finite(Stage::Pipeline, "adapter request", async move {
            metrics.in_flight.inc();
            Arc::clone(&bridge).carry(message, token).await;
            metrics.in_flight.dec();
            let mut open = bridge.open.lock().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                open.remove(&id);
            }
            drop(open);
            drop(place);
            Ok(())
        });
    }

    /// Tells a request in flight that its client no longer wants the answer. Which era it is of says whether the server is told by
    /// the notification or by the closed stream.
    fn cancel(&self, message: &Message) -> legacy::Era {
        let era = self.legacy.era();
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = message.params.request.as_ref().and_then(|id| open.get(id)) {
            token.cancel();
        }
        era
    }

    async fn queue(&self, message: Message) {
        // Nobody takes it any more only when the adapter stops.
        let _stopping = self.lane.send(message).await;
    }

    /// Sends what must keep its order.
    async fn send_in_order(self: Arc<Self>, mut waiting: mpsc::Receiver<Message>) {
        let mut is_closing = false;
        loop {
            let message = if is_closing {
                waiting.try_recv().ok()
            } else {
                tokio::select! {
                    message = waiting.recv() => message,
                    () = self.closing.cancelled() => {
                        is_closing = true;
                        continue;
                    }
                }
            };
            let Some(message) = message else { return };
            if let Err(refusal) = self.tell(&message).await {
                tracing::warn!(
                    method = message.method,
                    error = refusal.message,
                    "a message of the client was not delivered"
                );
            }
        }
    }

    /// Posts a message that has no answer.
    async fn tell(self: &Arc<Self>, message: &Message) -> Result<(), Refusal> {
        let mut is_revived = false;
        loop {
            let standing = self.legacy.standing();
            let answer = self.upstream.send(&self.post(message, &standing)).await?;
            if answer.status.is_success() {
                return Ok(());
            }
            let status = answer.status;
            let body = answer.whole(carry::FAULT_BYTES_MAX).await?;
            if !is_revived && legacy::is_lost(&standing, message, status, &body) {
                is_revived = true;
                self.revive(standing.generation).await?;
                continue;
            }
            return Err(carry::refusal_of(status, &body));
        }
    }

    async fn initialized(self: &Arc<Self>, message: Message) {
        match self.tell(&message).await {
            Ok(()) => {
                self.legacy.set_initialized(message.bytes);
                self.listen();
            }
            Err(refusal) => tracing::warn!(error = refusal.message, "the server was not told that the client is ready"),
        }
    }

    /// A message as a request of the streamable HTTP transport.
    fn post(&self, message: &Message, standing: &legacy::Standing) -> Outgoing {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        if message.is_modern() {
            let schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
            schemas.headers(message, &mut headers);
        } else if !message.is_method("initialize") {
            standing.put(&mut headers);
        }
        Outgoing {
            method: Method::POST,
            headers,
            body: message.bytes.clone(),
            repeat: if message.is_read() { Repeat::Always } else { Repeat::Unsent },
        }
    }

    async fn write(&self, line: Bytes) {
        // The writer is gone only when nobody reads any more.
        let _gone = self.out.send(line).await;
    }

    async fn refuse(&self, id: &str, refusal: &Refusal) {
        self.upstream.metrics().refused.inc();
        self.write(refusal.answer(id)).await;
    }

    /// Waits a little for what is under way, drops the rest, and ends the session at the server.
    async fn leave(&self, sending: impl Future<Output = ()>) {
        self.closing.cancel();
        let done = async {
            // All places are free when nothing is in flight.
            let _all = self
                .places
                .acquire_many(u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX))
                .await;
        };
        let rest = futures::future::join(sending, done);
        if timeout(self.config.exit_wait, rest).await.is_err() {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            tracing::debug!(requests = open.len(), "leaving with requests in flight");
            open.values().for_each(CancellationToken::cancel);
        }
        self.end_session().await;
        self.upstream.farewell().await;
    }

    /// Ends the protocol session at the server.
    async fn end_session(&self) {
        let standing = self.legacy.standing();
        if !standing.has_session() {
            return;
        }
        let mut headers = HeaderMap::new();
        standing.put(&mut headers);
        let farewell = Outgoing {
            method: Method::DELETE,
            headers,
            body: Bytes::new(),
            repeat: Repeat::Unsent,
        };
        if let Ok(Ok(answer)) = timeout(FAREWELL_MAX, self.upstream.send(&farewell)).await {
            tracing::debug!(status = answer.status.as_u16(), "session ended at the server");
        } else {
            tracing::debug!("the server was not told that the session ended");
        }
    }
}

#[cfg(test)]
mod tests;
