//! One request from headers to answer.
//!
//! Cheap checks come first, so that a sender without a right costs nothing: key, form, rate, announced length; then the body, its
//! events, and the queue. Nothing is answered with 202 before the queue has said that the events survive.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use domain::{Event, Timestamp, TraceId};
use http::HeaderMap;
use sentinel_queue::{AppendError, EventAppender};
use service_kit::error::Chain;
use service_kit::trace::{TRACEPARENT, TraceContext};
use service_kit::{Clock, Problem};
use tokio::sync::Semaphore;

use crate::Config;
use crate::answer::{self, BodyFault};
use crate::auth;
use crate::body::{self, Form};
use crate::budget::Budget;
use crate::decode::{Decoded, Job};
use crate::keys::{Sender, Senders};
use crate::metrics::IngestMetrics;
use crate::queue_state::QueueState;
use crate::status::IngestStatus;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Intake<A> {
    pub(crate) config: Config,
    pub(crate) appender: A,
    pub(crate) senders: Senders,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<IngestMetrics>,
    pub(crate) status: IngestStatus,
    pub(crate) queue: Arc<QueueState>,
    pub(crate) budget: Budget,
    /// Places for decoding large bodies: as many as cores, since it is all computing.
    pub(crate) decoders: Semaphore,
}

/// One request's time and sender.
struct Receipt {
    sender: Sender,
    now: Timestamp,
    started: Duration,
    trace_id: Option<TraceId>,
}

pub(crate) async fn post_events<A: EventAppender>(State(intake): State<Arc<Intake<A>>>, request: Request) -> Response {
    let _in_flight = intake.metrics.start();
    let (parts, mut body) = request.into_parts();
    match intake.receive(&parts.headers, &mut body, Form::of).await {
        Ok(Decoded { events, rejections, .. }) if events.is_empty() && rejections.total() > 0 => {
            answer::all_rejected(&rejections)
        }
        Ok(decoded) => answer::accepted(decoded.events.len(), decoded.duplicates, &decoded.rejections),
        Err(problem) => {
            intake.refused(problem.code);
            body::discard(&parts.headers, body).await;
            answer::refused(problem)
        }
    }
}

impl<A: EventAppender> Intake<A> {
    /// Everything from the sender's right to the events' durability. Whatever is given back as an event is durable.
    pub(crate) async fn receive(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
        form: fn(&HeaderMap) -> Result<Form, Problem>,
    ) -> Result<Decoded, Problem> {
        let (now, started) = (Timestamp::from_nanos(self.clock.unix_ns()), self.clock.monotonic());
        let receipt = Receipt {
            sender: auth::authenticate(headers, &self.senders, now, started).await?,
            now,
            started,
            trace_id: trace_id(headers),
        };
        let decoded = self.decode(form(headers)?, body, &receipt).await?;
        self.count(&decoded, &receipt);
        if !decoded.events.is_empty() {
            let appended = self.append(&decoded.events, &receipt).await;
            appended.inspect_err(|_| receipt.sender.give_back(decoded.charged))?;
        }
        Ok(decoded)
    }

    /// Counts a request that was refused as a whole.
    pub(crate) fn refused(&self, code: &'static str) {
        self.metrics.refused(code);
        self.status.refused(code);
    }

    async fn decode(&self, form: Form, body: &mut Body, receipt: &Receipt) -> Result<Decoded, Problem> {
        receipt.sender.take(0, receipt.started).map_err(answer::over_rate)?;
        let bytes_max = self.config.body_bytes_max;
        if body::announced(body).is_some_and(|bytes| bytes > bytes_max as u64) {
            return Err(BodyFault::TooLarge { bytes_max }.into());
        }
        let mut held = self.budget.hold();
        let bytes = body::read(body, bytes_max, &mut held).await?;
        self.metrics.received(receipt.sender.namespace(), bytes.len());
        self.status.received(bytes.len());
        let job = Job {
            body: bytes,
            form,
            sender: receipt.sender.clone(),
            now: receipt.now,
            now_monotonic: receipt.started,
            trace_id: receipt.trace_id,
            config: self.config,
            held,
        };
        Ok(self.run(job).await?)
    }

    async fn run(&self, job: Job) -> Result<Decoded, BodyFault> {
        if job.is_small() {
            return job.run();
        }
        // Never closed, so there is always a place in the end; who waits is bounded by the memory they hold.
        let _place = self.decoders.acquire().await;
        match tokio::task::spawn_blocking(move || job.run()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "decoding a body");
                Err(BodyFault::Internal)
            }
        }
    }

    /// `Ok`: the events survive the loss of this process.
    async fn append(&self, events: &[Event], receipt: &Receipt) -> Result<(), Problem> {
        let before = self.clock.monotonic();
        let outcome = tokio::time::timeout(self.config.append_timeout, self.appender.append(events)).await;
        let fault = match outcome {
            Ok(Ok(())) => {
                let after = self.clock.monotonic();
                self.metrics
                    .durable(after.saturating_sub(receipt.started), after.saturating_sub(before));
                self.metrics.accepted(events);
                self.status.accepted(events.len());
                self.queue.took();
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => AppendError::Unavailable(std::io::ErrorKind::TimedOut.into()),
        };
        self.queue.failed(&fault, self.clock.monotonic());
        self.status.failed(receipt.now, Chain(&fault).to_string());
        Err(answer::not_durable(&fault))
    }

    fn count(&self, decoded: &Decoded, receipt: &Receipt) {
        let namespace = receipt.sender.namespace();
        self.metrics.decompressed(decoded.bytes);
        self.metrics.duplicates(namespace, decoded.duplicates);
        self.status.duplicates(decoded.duplicates);
        for (code, count) in &decoded.rejections.by_code {
            self.metrics.rejected(namespace, code.as_str(), *count);
            self.status.rejected(code.as_str(), *count);
        }
        if let Some(first) = decoded.rejections.first.first() {
            tracing::debug!(
                key = receipt.sender.id(),
                namespace,
                rejected = decoded.rejections.total(),
                code = first.code.as_str(),
                "events rejected"
            );
        }
    }
}

/// The trace that the sender is in. One that we begin ourselves says nothing about the events.
fn trace_id(headers: &HeaderMap) -> Option<TraceId> {
    let context = TraceContext::parse(headers.get(TRACEPARENT)?.as_bytes())?;
    TraceId::from_bytes(*context.trace_id.as_bytes())
}
