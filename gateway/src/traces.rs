//! Each exchange as a span of its trace, sent to an OpenTelemetry collector (OTLP over HTTP, as JSON).
//!
//! The attributes are those of the semantic conventions for MCP. Only traces that their caller keeps are sent. A collector that is away
//! costs its spans, which are counted, and nothing else: the record of a request is its event.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use domain::{Outcome, Payload, Timestamp};
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use service_kit::error::Chain;
use service_kit::trace::TraceContext;
use service_kit::{Stage, Tasks};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::forward::{self, HttpClient};

/// Spans that wait; further ones are dropped and counted.
const WAITING_MAX: usize = 4_096;
/// Spans of one request to the collector.
const BATCH_MAX: usize = 512;
/// For one request to the collector.
const TIME_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The bit of the trace flags that says that the trace is kept.
const SAMPLED: u8 = 1;

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// The collector, such as `http://otel-collector:4318`.
    pub endpoint: Uri,
    /// `service.name` of the spans.
    pub service_name: String,
}

/// Takes spans. Clones share one queue.
#[derive(Debug, Clone)]
pub(crate) struct Traces {
    queue: mpsc::Sender<Value>,
    dropped: Counter,
}

/// What a span is made of.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) trace: TraceContext,
    pub(crate) parent: Option<domain::SpanId>,
    pub(crate) began: Timestamp,
    pub(crate) server: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) payload: &'a Payload,
}

impl Traces {
    /// Starts the task that sends spans.
    pub(crate) fn start(config: TracesConfig, tasks: &Tasks) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let dropped = tasks.metrics().register("mcp_gateway", |registry| {
            let dropped = Counter::default();
            registry.register("spans_dropped", "Spans that no collector got", dropped.clone());
            dropped
        });
        let traces = Self {
            queue,
            dropped: (*dropped).clone(),
        };
        let sender = Sender {
            client: forward::client(TIME_MAX),
            target: target(&config.endpoint),
            service_name: config.service_name,
            dropped: traces.dropped.clone(),
            is_away: false,
        };
        let stop = tasks.shutdown(Stage::Pipeline);
        tasks.spawn(Stage::Pipeline, "traces", sender.run(waiting, stop));
        traces
    }

    pub(crate) fn take(&self, ended: &Ended<'_>) {
        if ended.trace.flags & SAMPLED != 0 && self.queue.try_send(span(ended)).is_err() {
            self.dropped.inc();
        }
    }
}

struct Sender {
    client: HttpClient,
    target: Uri,
    service_name: String,
    dropped: Counter,
    is_away: bool,
}

impl Sender {
    async fn run(mut self, mut waiting: mpsc::Receiver<Value>, stop: service_kit::Shutdown) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        loop {
            let count = stop.or(waiting.recv_many(&mut batch, BATCH_MAX)).await;
            if count.is_none() {
                // Those that are here already still go.
                while batch.len() < BATCH_MAX
                    && let Ok(span) = waiting.try_recv()
                {
                    batch.push(span);
                }
            }
            if !batch.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
            }
            if count.is_none_or(|count| count == 0) {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, spans: Vec<Value>) {
        let count = spans.len() as u64;
        let why = match timeout(TIME_MAX, self.ask(spans)).await {
            Ok(Ok(())) => {
                if std::mem::take(&mut self.is_away) {
                    tracing::info!("the collector takes spans again");
                }
                return;
            }
            Ok(Err(why)) => why,
            Err(_elapsed) => format!("no answer within {TIME_MAX:?}"),
        };
        self.dropped.inc_by(count);
        if !std::mem::replace(&mut self.is_away, true) {
            tracing::warn!(collector = %self.target, why, "the collector takes no spans; they are dropped and counted");
        }
    }

    async fn ask(&self, spans: Vec<Value>) -> Result<(), String> {
        let resource = json!({ "attributes": attributes([("service.name", Some(self.service_name.as_str().into()))]) });
        let scope = json!({ "name": "mcp-gateway", "version": env!("CARGO_PKG_VERSION") });
        let scope_spans = json!([{ "scope": scope, "spans": spans }]);
        let body = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": scope_spans }] });
        let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let authority = self
            .target
            .authority()
            .map(|authority| HeaderValue::try_from(authority.as_str()));
        if let Some(Ok(authority)) = authority {
            headers.insert(header::HOST, authority);
        }
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| Chain(&error).to_string())?;
        let status = response.status();
        // Read to its end, so that the connection serves again.
        let _unread = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("it answered {status}"))
        }
    }
}

/// `/v1/traces` below the endpoint.
fn target(endpoint: &Uri) -> Uri {
    let text = format!("{}/v1/traces", endpoint.to_string().trim_end_matches('/'));
    text.parse().unwrap_or_else(|_| endpoint.clone())
}

fn span(ended: &Ended<'_>) -> Value {
    let payload = ended.payload;
    let began = ended.began.nanos();
    let took = i64::try_from(payload.latency_us.unwrap_or_default())
        .unwrap_or_default()
        .saturating_mul(1_000);
    let target = payload.tool_name.as_deref().or(payload.prompt_name.as_deref());
    let method = payload
        .rpc_method
        .as_deref()
        .or(payload.method.as_deref())
        .unwrap_or("request");
    let is_fault = payload
        .outcome
        .is_some_and(|outcome| !matches!(outcome, Outcome::Ok | Outcome::Denied | Outcome::Cancelled));
    let text = |text: Option<&str>| text.map(Value::from);
    let mut span = json!({
        "traceId": ended.trace.trace_id.to_string(),
        "spanId": ended.trace.span_id.to_string(),
        "name": target.map_or_else(|| method.to_owned(), |target| format!("{method} {target}")),
        // A server's span, as the caller sees it.
        "kind": 2,
        "startTimeUnixNano": began.to_string(),
        "endTimeUnixNano": began.saturating_add(took).to_string(),
        "status": if is_fault { json!({ "code": 2 }) } else { json!({}) },
        "attributes": attributes([
            ("mcp.method.name", text(payload.rpc_method.as_deref())),
            ("mcp.session.id", text(payload.session_id.as_deref())),
            ("mcp.protocol.version", text(payload.protocol_version.as_deref())),
            ("mcp.resource.uri", text(payload.resource_uri.as_deref())),
            ("gen_ai.tool.name", text(payload.tool_name.as_deref())),
            ("gen_ai.prompt.name", text(payload.prompt_name.as_deref())),
            ("jsonrpc.request.id", text(payload.request_id.as_deref())),
            ("rpc.response.status_code", payload.rpc_code.map(|code| code.to_string().into())),
            ("http.request.method", text(payload.method.as_deref())),
            ("http.response.status_code", payload.status.map(Value::from)),
            ("error.type", text(payload.error_type.as_deref())),
            ("mcp_runtime.server", text(Some(ended.server))),
            ("mcp_runtime.namespace", text(Some(ended.namespace))),
            ("mcp_runtime.outcome", payload.outcome.map(|outcome| outcome.as_str().into())),
            ("mcp_runtime.decision", payload.decision.map(|decision| decision.as_str().into())),
            ("mcp_runtime.reason", text(payload.reason.as_deref())),
        ]),
    });
    if let Some(parent) = ended.parent {
        span["parentSpanId"] = parent.to_string().into();
    }
    span
}

/// Those that are there, in the form of OTLP; whole numbers are texts there.
fn attributes<const N: usize>(all: [(&str, Option<Value>); N]) -> Vec<Value> {
    let present: BTreeMap<_, _> = all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let typed = present.into_iter().map(|(key, value)| match value {
        Value::Number(number) => json!({ "key": key, "value": { "intValue": number.to_string() } }),
        value => json!({ "key": key, "value": { "stringValue": value } }),
    });
    typed.collect()
}
