//! Streams that are not the answer to one request: what the server says of its own accord, and answers whose stream broke.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use service_kit::{Backoff, BackoffPolicy, Stage};

use super::carry::{Ended, Stream};
use super::legacy::Standing;
use super::{Bridge, legacy};
use crate::message::Message;
use crate::reply::Refusal;
use crate::upstream::{Outgoing, Repeat, is_stream};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Pause before taking a stream up again when the server names none.
const PAUSE: Duration = Duration::from_millis(250);
/// Times that an answer's stream is taken up without getting anything further.
const RESUMES_MAX: u32 = 6;

impl Bridge {
    /// Starts to listen for what the server says of its own accord in the present session.
    pub(super) fn listen(self: &Arc<Self>) {
        let bridge = Arc::clone(self);
        self.tasks.spawn_finite(Stage::Intake, "adapter stream", async move {
            let closing = bridge.closing.clone();
            closing.run_until_cancelled(bridge.listen_to_end()).await;
            Ok(())
        });
    }

    async fn listen_to_end(self: Arc<Self>) {
        let generation = self.legacy.standing().generation;
        let mut stream = Stream::default();
        let mut backoff = Backoff::new(BackoffPolicy {
            first: Duration::from_secs(1),
            pause_max: Duration::from_secs(30),
            attempts_max: None,
        });
        loop {
            let standing = self.legacy.standing();
            if standing.generation != generation {
                return;
            }
            match self.upstream.send(&get(&standing, &stream)).await {
                Ok(answer) if answer.status.is_success() && is_stream(&answer.headers) => {
                    backoff.reset();
                    if let Err(refusal) = self.read_stream(answer, None, &mut Vec::new(), &mut stream).await {
                        tracing::debug!(error = refusal.message, "the stream of the server broke");
                    }
                }
                // It has nothing to say of its own accord.
                Ok(answer) if answer.status == StatusCode::METHOD_NOT_ALLOWED => return,
                Ok(answer) => {
                    let status = answer.status;
                    let body = answer.whole(super::carry::FAULT_BYTES_MAX).await.unwrap_or_default();
                    if legacy::is_lost(&standing, &Message::nothing(), status, &body) {
                        // The new session listens for itself.
                        if let Err(refusal) = self.revive(generation).await {
                            tracing::warn!(error = refusal.message, "no new session at the server");
                        } else {
                            return;
                        }
                    }
                }
                Err(refusal) => tracing::debug!(error = refusal.message, "the stream of the server is not to be had"),
            }
            let pause = stream.retry.or_else(|| backoff.next());
            tokio::time::sleep(pause.unwrap_or(PAUSE).max(PAUSE)).await;
        }
    }

    /// Takes up the stream of an answer after its last event, for as long as the server goes on.
    pub(super) async fn resume(
        &self,
        message: &Message,
        waiting: &mut Vec<String>,
        stream: &mut Stream,
    ) -> Result<(), Refusal> {
        let mut vain = 0;
        while vain < RESUMES_MAX {
            tokio::time::sleep(stream.retry.unwrap_or(PAUSE)).await;
            self.upstream.metrics().resumed.inc();
            let seen = stream.last_id.clone();
            let answer = self.upstream.send(&get(&self.legacy.standing(), stream)).await?;
            if !answer.status.is_success() || !is_stream(&answer.headers) {
                break;
            }
            match self.read_stream(answer, Some(message), waiting, stream).await {
                Ok(Ended::Answered) => return Ok(()),
                Ok(Ended::Cut) | Err(_) => {}
            }
            // A server that lets its clients poll says when; it may take as long as it likes.
            let is_polled = stream.retry.is_some();
            vain = if stream.last_id != seen || is_polled { 0 } else { vain + 1 };
        }
        Err(Refusal::new(
            502,
            "broken",
            "the server's stream ended before the answer, and cannot be taken up",
        )
        .hint("the call may have happened; look before you repeat it"))
    }
}

fn get(standing: &Standing, stream: &Stream) -> Outgoing {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    standing.put(&mut headers);
    let last = stream.last_id.as_deref().filter(|id| !id.is_empty());
    if let Some(last) = last.and_then(|id| HeaderValue::try_from(id).ok()) {
        headers.insert(LAST_EVENT_ID, last);
    }
    Outgoing {
        method: Method::GET,
        headers,
        body: Bytes::new(),
        repeat: Repeat::Always,
    }
}
