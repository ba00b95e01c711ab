//! The books as an MCP server: tools, resources and prompts, and the HTTP service around them.
//!
//! One handler serves both eras. What differs is how a tool asks its caller: up to 2025-11-25 the server sends an
//! elicitation while the call is open, since then it answers `input_required` and the caller calls again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use rmcp::handler::server::router::{prompt::PromptRouter, tool::ToolRouter};
use rmcp::handler::server::tool::{InputResponses, RequestState};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, ElicitRequest, ElicitRequestParams, ElicitationAction, ElicitationSchema,
    ErrorCode, ErrorData, Implementation, InputRequest, InputRequests, InputRequiredResult, ListResourceTemplatesResult,
    ListResourcesResult, PaginatedRequestParams, ProgressNotificationParam, PromptMessage, ProtocolVersion,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, ResourceTemplate, Role,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use rmcp::{RoleServer, ServerHandler, prompt, prompt_handler, prompt_router, tool, tool_handler, tool_router};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::books::{Books, Status};

/// How long streams may stay open once the server was asked to stop.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How long a human may think before the call is given up.
const ANSWER_MAX: Duration = Duration::from_mins(2);
/// An application's own code: the protocol reserves those from -32768 to -32000.
const LEDGER_BROKEN: ErrorCode = ErrorCode(1001);
/// What other SDKs answer to a call that was cancelled.
const CANCELLED: ErrorCode = ErrorCode(-32_800);
const REFUND_POLICY: &str = "payments://policy/refunds";
const CUSTOMERS: &str = "payments://customers";
const INVOICE: &str = "payments://invoices/";

/// Serves the payments desk at `/mcp` until `shutdown` completes, then drains for two seconds at most.
///
/// Requests are accepted for loopback hosts alone, as for any server that is meant to sit behind a gateway.
pub async fn serve(listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let stopping = CancellationToken::new();
    let payments = Payments::default();
    let service = StreamableHttpService::new(
        move || Ok(payments.clone()),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default().with_cancellation_token(stopping.child_token()),
    );
    let router = axum::Router::new().route_service("/mcp", service);
    // Events are small and come one by one; with Nagle's algorithm each would wait 40 ms for the last one's receipt.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection left with delayed writes");
        }
    });
    let drained = axum::serve(listener, router).with_graceful_shutdown({
        let stopping = stopping.clone();
        async move {
            shutdown.await;
            stopping.cancel();
        }
    });
    tokio::select! {
        end = drained => end.context("serving the demo server"),
        () = async { stopping.cancelled().await; tokio::time::sleep(DRAIN_MAX).await } => Ok(()),
    }
}

/// The payments desk. Clones share the books.
#[derive(Clone, Debug)]
pub struct Payments {
    books: Arc<Mutex<Books>>,
    tools: ToolRouter<Self>,
    prompts: PromptRouter<Self>,
}

impl Default for Payments {
    fn default() -> Self {
        Self {
            books: Arc::default(),
            tools: Self::tool_router(),
            prompts: Self::prompt_router(),
        }
    }
}

#[derive(Debug, Deserialize, rmcp::schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct ListArguments {
    /// Only invoices in this state.
    status: Option<Status>,
    /// At most this many, newest first; 20 unless told, 200 at most.
    limit: Option<u16>,
}

#[derive(Debug, Deserialize, rmcp::schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct InvoiceArguments {
    /// Number of the invoice, such as INV-1001.
    id: String,
}

#[derive(Debug, Deserialize, rmcp::schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct ReportArguments {
    /// The month, such as 2026-10.
    month: String,
    /// Progress notifications on the way: 5 unless told, 10 at most.
    steps: Option<u8>,
    /// Time the export takes: 800 unless told, from 300 to 1500.
    duration_ms: Option<u16>,
}

#[derive(Debug, Deserialize, rmcp::schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct CreateArguments {
    /// Name of the customer.
    customer: String,
    /// Amount in cents of the currency of the books.
    amount_cents: u64,
}

#[derive(Debug, Deserialize, rmcp::schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct LookupArguments {
    /// Name of the customer.
    customer: String,
}

#[derive(Debug, Deserialize, rmcp::schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct SummaryArguments {
    /// The month, such as 2026-10.
    month: String,
}

#[tool_router]
impl Payments {
    /// Lists invoices, newest first.
    #[tool(annotations(
        title = "List invoices",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    fn list_invoices(&self, Parameters(wanted): Parameters<ListArguments>) -> CallToolResult {
        let limit = usize::from(wanted.limit.unwrap_or(20).min(200));
        let books = self.books();
        CallToolResult::structured(json!({ "invoices": books.list(wanted.status, limit) }))
    }

    /// Shows one invoice.
    #[tool(annotations(
        title = "Get invoice",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    fn get_invoice(&self, Parameters(InvoiceArguments { id }): Parameters<InvoiceArguments>) -> CallToolResult {
        let books = self.books();
        books
            .find(&id)
            .map_or_else(|| unknown_invoice(&id), |invoice| CallToolResult::structured(json!(invoice)))
    }

    /// Exports a month as comma-separated text. Slow; reports its progress.
    #[tool(annotations(
        title = "Export report",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn export_report(
        &self,
        Parameters(wanted): Parameters<ReportArguments>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let steps = u32::from(wanted.steps.unwrap_or(5).clamp(1, 10));
        let duration = Duration::from_millis(wanted.duration_ms.unwrap_or(800).clamp(300, 1_500).into());
        for step in 1..=steps {
            report_progress(&context, step, steps).await;
            tokio::select! {
                () = context.ct.cancelled() => return Err(ErrorData::new(CANCELLED, "the export was cancelled", None)),
                () = tokio::time::sleep(duration / steps) => {}
            }
        }
        Ok(CallToolResult::success(vec![ContentBlock::text(
            self.books().report(&wanted.month),
        )]))
    }

    /// Writes a new invoice.
    #[tool(annotations(
        title = "Create invoice",
        read_only_hint = false,
        destructive_hint = false,
        open_world_hint = false
    ))]
    fn create_invoice(&self, Parameters(wanted): Parameters<CreateArguments>) -> CallToolResult {
        if wanted.customer.trim().is_empty() || wanted.amount_cents == 0 {
            return refused("an invoice needs a customer and an amount above zero");
        }
        CallToolResult::structured(json!(self.books().create(&wanted.customer, wanted.amount_cents)))
    }

    /// Pays an invoice back. This cannot be taken back.
    #[tool(annotations(
        title = "Refund invoice",
        read_only_hint = false,
        destructive_hint = true,
        idempotent_hint = true,
        open_world_hint = true
    ))]
    fn refund_invoice(&self, Parameters(InvoiceArguments { id }): Parameters<InvoiceArguments>) -> CallToolResult {
        let refunded = self.books().refund(&id);
        refunded.map_or_else(|| unknown_invoice(&id), |invoice| CallToolResult::structured(json!(invoice)))
    }

    /// Looks a customer up in a directory that is out every third time.
    #[tool(annotations(title = "Look up customer", read_only_hint = true, open_world_hint = true))]
    fn flaky_lookup(&self, Parameters(LookupArguments { customer }): Parameters<LookupArguments>) -> CallToolResult {
        match self.books().look_up(&customer) {
            Ok(invoices) => CallToolResult::structured(json!({ "customer": customer, "invoices": invoices })),
            Err(_) => refused("the customer directory did not answer in time; try again"),
        }
    }

    /// Reads a ledger that cannot be read: the call ends in a protocol error.
    #[tool(annotations(title = "Broken ledger", read_only_hint = true, open_world_hint = false))]
    fn broken_ledger(&self) -> Result<CallToolResult, ErrorData> {
        let known = self.books().list(None, usize::MAX).len();
        Err(ErrorData::new(
            LEDGER_BROKEN,
            "the ledger cannot be read",
            Some(json!({ "invoices_lost": known })),
        ))
    }

    /// Asks the caller's human to approve the payment of an invoice.
    #[tool(annotations(
        title = "Ask for approval",
        read_only_hint = false,
        destructive_hint = false,
        open_world_hint = false
    ))]
    async fn ask_approval(
        &self,
        Parameters(InvoiceArguments { id }): Parameters<InvoiceArguments>,
        RequestState(state): RequestState,
        InputResponses(responses): InputResponses,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if self.books().find(&id).is_none() {
            return Ok(unknown_invoice(&id).into());
        }
        if context
            .client_capabilities()
            .is_none_or(|client| client.elicitation.is_none())
        {
            return Ok(refused("approval needs a client that can ask its human").into());
        }
        let question = question(&id)?;
        if context.protocol_version() < Some(ProtocolVersion::V_2026_07_28) {
            let answer = context.peer.create_elicitation_with_timeout(question, Some(ANSWER_MAX)).await;
            let answer = answer.map_err(|_| ErrorData::internal_error("the approval got no answer", None))?;
            let approved = answer.action == ElicitationAction::Accept && agrees(answer.content.as_ref());
            return Ok(verdict(&id, approved).into());
        }
        let Some(answer) = responses.as_ref().and_then(|all| all.get("approval")) else {
            let state = format!("approval-{}:{id}", self.books().next_approval());
            let asked = InputRequests::from([("approval".to_owned(), InputRequest::Elicitation(ElicitRequest::new(question)))]);
            return Ok(InputRequiredResult::new(Some(asked), Some(state)).into());
        };
        // The state comes back from the caller, so it proves nothing but what the call was about.
        if state
            .as_deref()
            .and_then(|state| state.split_once(':'))
            .is_none_or(|(_, asked)| asked != id)
        {
            return Ok(refused("this approval was asked for another invoice").into());
        }
        Ok(verdict(&id, answer["action"] == "accept" && agrees(answer.get("content"))).into())
    }
}

#[prompt_router]
impl Payments {
    /// A reminder for an invoice nobody paid.
    #[prompt(name = "dunning_letter")]
    fn dunning_letter(&self, Parameters(InvoiceArguments { id }): Parameters<InvoiceArguments>) -> Vec<PromptMessage> {
        let books = self.books();
        let customer = books.find(&id).map_or("the customer", |invoice| invoice.customer.as_str());
        let text = format!("Write a friendly but firm reminder to {customer} about invoice {id}.");
        vec![PromptMessage::new_text(Role::User, text)]
    }

    /// What happened in a month.
    #[prompt(name = "monthly_summary")]
    fn monthly_summary(&self, Parameters(SummaryArguments { month }): Parameters<SummaryArguments>) -> Vec<PromptMessage> {
        let text = format!(
            "Summarise these invoices in five sentences:\n\n{}",
            self.books().report(&month)
        );
        vec![PromptMessage::new_text(Role::User, text)]
    }
}

#[tool_handler(router = self.tools)]
#[prompt_handler(router = self.prompts)]
impl ServerHandler for Payments {
    fn get_info(&self) -> ServerConfig {
        let offers = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .build();
        ServerConfig::new(offers)
            .with_server_info(Implementation::new("payments", env!("CARGO_PKG_VERSION")).with_title("Payments desk"))
            .with_instructions("Invoices of a made-up company. Refunds cannot be taken back: ask for approval first.")
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![
            Resource::new(REFUND_POLICY, "refund policy").with_mime_type("text/markdown"),
            Resource::new(CUSTOMERS, "customers").with_mime_type("application/json"),
        ]))
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let invoice = ResourceTemplate::new(format!("{INVOICE}{{id}}"), "invoice").with_mime_type("application/json");
        Ok(ListResourceTemplatesResult::with_all_items(vec![invoice]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let (text, kind) = match request.uri.as_str() {
            REFUND_POLICY => (
                "# Refunds\n\nWithin 30 days, by a human, and never twice.\n".to_owned(),
                "text/markdown",
            ),
            CUSTOMERS => (json!(Books::customers()).to_string(), "application/json"),
            uri => {
                let books = self.books();
                let invoice = uri.strip_prefix(INVOICE).and_then(|id| books.find(id));
                let invoice =
                    invoice.ok_or_else(|| ErrorData::resource_not_found("no such resource", Some(json!({ "uri": uri }))))?;
                (json!(invoice).to_string(), "application/json")
            }
        };
        let contents = ResourceContents::text(text, request.uri).with_mime_type(kind);
        Ok(ReadResourceResult::new(vec![contents]).into())
    }
}

impl Payments {
    /// The books, also after a handler panicked while it held them: no method leaves them half written.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn report_progress(context: &RequestContext<RoleServer>, step: u32, steps: u32) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let progress = ProgressNotificationParam::new(token, step.into()).with_total(steps.into());
    let progress = progress.with_message(format!("page {step} of {steps}"));
    if let Err(error) = context.peer.notify_progress(progress).await {
        tracing::debug!(%error, "progress not delivered");
    }
}

fn question(id: &str) -> Result<ElicitRequestParams, ErrorData> {
    let schema = ElicitationSchema::builder().required_bool("approved").build();
    let requested_schema = schema.map_err(|_| ErrorData::internal_error("building the question", None))?;
    Ok(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: format!("Pay invoice {id}?"),
        requested_schema,
    })
}

fn agrees(content: Option<&serde_json::Value>) -> bool {
    content.is_some_and(|content| content["approved"] == true)
}

fn verdict(id: &str, approved: bool) -> CallToolResult {
    CallToolResult::structured(json!({ "id": id, "approved": approved }))
}

fn unknown_invoice(id: &str) -> CallToolResult {
    refused(&format!("there is no invoice {id}; list_invoices shows those there are"))
}

fn refused(why: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(why)])
}
