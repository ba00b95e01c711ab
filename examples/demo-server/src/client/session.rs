//! One connection of a caller to the server, and what became of each request on it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationCapability, ErrorData, FormElicitationCapability, GetPromptRequestParams, Implementation,
    InputRequiredResult, InputResponses, JsonObject, ProgressNotificationParam, ProgressToken, ProtocolVersion,
    ReadResourceRequestParams,
};
use rmcp::service::{NotificationContext, RequestContext, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::mix::{Patience, Step};
use super::{CallRecord, Caller, Era, Outcome};

const CALL_MAX: Duration = Duration::from_secs(30);
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// A client that ignores the machine's proxy settings for servers on the same machine: no proxy could reach those.
pub(super) fn http_client(url: &str) -> anyhow::Result<reqwest::Client> {
    let parsed = reqwest::Url::parse(url).with_context(|| format!("reading the URL {url:?}"))?;
    let here = matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let builder = reqwest::Client::builder();
    let builder = if here { builder.no_proxy() } else { builder };
    builder.build().context("building the HTTP client")
}

/// The caller's side of the protocol: it counts progress, and its human agrees to everything.
#[derive(Clone)]
struct Hand {
    name: String,
    progress: Arc<Progress>,
}

/// The progress of the call under way; a caller makes one at a time.
#[derive(Default)]
struct Progress {
    seen: Mutex<Seen>,
    first: Notify,
}

#[derive(Default)]
struct Seen {
    count: u32,
    token: Option<ProgressToken>,
    /// The last call's, whose stragglers say nothing about this one.
    stale: Option<ProgressToken>,
}

impl Progress {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, token: ProgressToken) {
        let mut seen = self.seen();
        if seen.stale.as_ref() != Some(&token) {
            seen.count += 1;
            seen.token = Some(token);
            self.first.notify_one();
        }
    }

    fn begin(&self) {
        let mut seen = self.seen();
        if let Some(token) = seen.token.take() {
            seen.stale = Some(token);
        }
        seen.count = 0;
        // A permit left by the last call must not cancel this one.
        pin!(self.first.notified()).enable();
    }
}

impl ClientHandler for Hand {
    fn get_info(&self) -> ClientConfig {
        let mut offers = ClientCapabilities::default();
        let mut elicitation = ElicitationCapability::default();
        elicitation.form = Some(FormElicitationCapability::default());
        offers.elicitation = Some(elicitation);
        ClientConfig::new(offers, Implementation::new(self.name.clone(), env!("CARGO_PKG_VERSION")))
    }

    async fn create_elicitation(
        &self,
        _question: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({ "approved": true })))
    }

    async fn on_progress(&self, progress: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.progress.arrived(progress.progress_token);
    }
}

pub(super) struct Session {
    service: RunningService<RoleClient, Hand>,
    progress: Arc<Progress>,
    caller: Caller,
    era: Era,
    records: mpsc::Sender<CallRecord>,
}

impl Session {
    /// Connects and lists the tools, as every agent does before anything else.
    pub(super) async fn open(
        url: &str,
        http: reqwest::Client,
        caller: &Caller,
        era: Era,
        records: mpsc::Sender<CallRecord>,
    ) -> anyhow::Result<Self> {
        let headers: HashMap<_, _> = caller
            .headers()?
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)))
            .collect();
        let config = StreamableHttpClientTransportConfig::with_uri(url).custom_headers(headers);
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let (lifecycle, method) = match era {
            Era::Legacy => (ClientLifecycleMode::Initialize, "initialize"),
            Era::Modern => {
                let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
                (ClientLifecycleMode::Discover { preferred_versions }, "server/discover")
            }
        };
        let progress = Arc::<Progress>::default();
        let hand = Hand {
            name: caller.agent.clone(),
            progress: Arc::clone(&progress),
        };
        let start = Instant::now();
        let opened = tokio::time::timeout(CALL_MAX, hand.serve_with_lifecycle(transport, lifecycle)).await;
        let opened = opened
            .context("waiting for the server")
            .and_then(|opened| opened.context("shaking hands"));
        let outcome = if opened.is_ok() {
            Outcome::Ok
        } else {
            Outcome::TransportError
        };
        record(&records, caller, era, method, None, outcome, start, 0).await;
        let service = opened.with_context(|| format!("opening a session at {url}"))?;
        let session = Self {
            service,
            progress,
            caller: caller.clone(),
            era,
            records,
        };
        session.request("tools/list", None, session.service.list_tools(None)).await;
        Ok(session)
    }

    /// Makes one call. False when the session is of no use any more.
    pub(super) async fn perform(&self, step: Step) -> bool {
        match step {
            Step::Tool {
                name,
                arguments,
                patience: Patience::WaitsForTheResult,
            } => self.tool(name, arguments).await,
            Step::Tool { name, arguments, .. } => self.cancelled_tool(name, arguments).await,
            Step::Resource(uri) => {
                let read = self.service.read_resource_once(ReadResourceRequestParams::new(uri.clone()));
                self.request("resources/read", Some(&uri), read).await.1
            }
            Step::Prompt { name, arguments } => {
                let prompt = GetPromptRequestParams::new(name).with_arguments(arguments);
                self.request("prompts/get", Some(name), self.service.get_prompt_once(prompt))
                    .await
                    .1
            }
        }
    }

    /// Ends the session; in the legacy era the server is told.
    pub(super) async fn close(mut self) {
        if let Err(error) = self.service.close_with_timeout(CLOSE_MAX).await {
            tracing::debug!(%error, "session not closed in order");
        }
    }

    async fn tool(&self, name: &'static str, arguments: JsonObject) -> bool {
        let call = CallToolRequestParams::new(name).with_arguments(arguments);
        let (answer, alive) = self
            .request("tools/call", Some(name), self.service.call_tool_once(call.clone()))
            .await;
        let Some(CallToolResponse::InputRequired(asked)) = answer else {
            return alive;
        };
        // The answer to what the server asked goes into a second call, which is recorded for itself.
        let call = call.with_input_responses(answers(&asked));
        let call = asked
            .request_state
            .into_iter()
            .fold(call, CallToolRequestParams::with_request_state);
        self.request("tools/call", Some(name), self.service.call_tool_once(call))
            .await
            .1
    }

    /// Drops the call at its first progress, upon which the SDK tells the server, each era in its own way.
    async fn cancelled_tool(&self, name: &'static str, arguments: JsonObject) -> bool {
        let call = CallToolRequestParams::new(name).with_arguments(arguments);
        let start = self.start();
        let mut running = pin!(self.service.call_tool_once(call));
        let outcome = tokio::select! {
            result = &mut running => judge(&result),
            () = self.progress.first.notified() => Outcome::Cancelled,
            () = tokio::time::sleep(CALL_MAX) => Outcome::TransportError,
        };
        self.record("tools/call", Some(name), outcome, start).await
    }

    async fn request<T: Judged>(
        &self,
        method: &'static str,
        name: Option<&str>,
        call: impl Future<Output = Result<T, ServiceError>>,
    ) -> (Option<T>, bool) {
        let start = self.start();
        let Ok(result) = tokio::time::timeout(CALL_MAX, call).await else {
            return (None, self.record(method, name, Outcome::Cancelled, start).await);
        };
        let alive = self.record(method, name, judge(&result), start).await;
        (result.ok(), alive)
    }

    fn start(&self) -> Instant {
        self.progress.begin();
        Instant::now()
    }

    async fn record(&self, method: &'static str, name: Option<&str>, outcome: Outcome, start: Instant) -> bool {
        let progress = self.progress.seen().count;
        let taken = record(&self.records, &self.caller, self.era, method, name, outcome, start, progress).await;
        taken && outcome != Outcome::TransportError
    }
}

/// What a successful answer may still say.
trait Judged {
    fn outcome(&self) -> Outcome {
        Outcome::Ok
    }
}

impl Judged for CallToolResponse {
    fn outcome(&self) -> Outcome {
        match self {
            Self::InputRequired(_) => Outcome::InputRequired,
            Self::Complete(result) if result.is_error == Some(true) => Outcome::ToolError,
            _ => Outcome::Ok,
        }
    }
}

impl Judged for rmcp::model::ListToolsResult {}
impl Judged for rmcp::model::ReadResourceResponse {}
impl Judged for rmcp::model::GetPromptResponse {}

fn judge<T: Judged>(result: &Result<T, ServiceError>) -> Outcome {
    match result {
        Ok(answer) => answer.outcome(),
        Err(ServiceError::McpError(error)) if error.data.as_ref().is_some_and(|data| data.get("decision_id").is_some()) => {
            Outcome::Denied
        }
        Err(ServiceError::McpError(_)) => Outcome::RpcError,
        Err(ServiceError::Cancelled { .. } | ServiceError::Timeout { .. }) => Outcome::Cancelled,
        Err(_) => Outcome::TransportError,
    }
}

fn answers(asked: &InputRequiredResult) -> InputResponses {
    let keys = asked.input_requests.iter().flat_map(|requests| requests.keys());
    keys.map(|key| (key.clone(), json!({ "action": "accept", "content": { "approved": true } })))
        .collect()
}

#[expect(
    clippy::too_many_arguments,
    reason = "the fields of a record, which are only brought together here"
)]
async fn record(
    records: &mpsc::Sender<CallRecord>,
    caller: &Caller,
    era: Era,
    method: &'static str,
    name: Option<&str>,
    outcome: Outcome,
    start: Instant,
    progress_count: u32,
) -> bool {
    let record = CallRecord {
        human: caller.human.clone(),
        agent: caller.agent.clone(),
        team: caller.team.clone(),
        era,
        method,
        name: name.map(str::to_owned),
        outcome,
        latency_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        progress_count,
    };
    records.send(record).await.is_ok()
}
