//! The server that the suite is made for. What it offers is in `offer.rs`, what its tools do in `tools.rs`.

mod input;
mod offer;
mod tools;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, ErrorData, GetPromptRequestParams,
    GetPromptResponse, Implementation, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Changes that a slow listener may miss.
const CHANGES_MAX: usize = 16;

/// Serves the fixture at `/mcp` until `shutdown` completes; streams that are open then are cut off.
pub async fn serve(listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let stopping = CancellationToken::new();
    let fixture = Fixture::new();
    let service = StreamableHttpService::new(
        move || Ok(fixture.clone()),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default().with_cancellation_token(stopping.child_token()),
    );
    let router = axum::Router::new().route_service("/mcp", service);
    tokio::select! {
        end = async { axum::serve(listener, router).await } => end.context("serving the fixture"),
        () = shutdown => {
            stopping.cancel();
            Ok(())
        }
    }
}

/// What changed in the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Tools,
    Prompts,
}

/// The handler of one request or session. Clones share what is known.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    /// States that were handed out and not come back.
    pub(crate) states: Arc<Mutex<HashSet<String>>>,
    pub(crate) changes: broadcast::Sender<Change>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            states: Arc::default(),
            changes: broadcast::Sender::new(CHANGES_MAX),
        }
    }
}

/// A value of the protocol, from the way it is on the wire.
pub(crate) fn made<T: DeserializeOwned>(wire: Value) -> Result<T, ErrorData> {
    serde_json::from_value(wire).map_err(|error| ErrorData::internal_error(format!("making an answer: {error}"), None))
}

/// An answer that is complete, as the later era marks it; for the earlier one the mark is taken off again.
pub(crate) fn result<T: DeserializeOwned>(mut wire: Value) -> Result<T, ErrorData> {
    wire["resultType"] = json!("complete");
    made(wire)
}

/// Adds for how long an answer may be kept, which the later era asks for.
fn kept(mut wire: Value, context: &RequestContext<RoleServer>) -> Value {
    if is_modern(context) {
        wire["ttlMs"] = json!(1_000);
        wire["cacheScope"] = json!("public");
    }
    wire
}

pub(crate) fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version() >= Some(ProtocolVersion::V_2026_07_28)
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let offers = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        ServerConfig::new(offers).with_server_info(Implementation::new("conformance-fixture", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        result(kept(json!({ "tools": offer::tools() }), &context))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, request, &context).await
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        result(kept(json!({ "prompts": offer::prompts() }), &context))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name == input::PROMPT {
            let round = input::next(
                self,
                input::PROMPT,
                request.input_responses.as_ref(),
                request.request_state.as_deref(),
            )?;
            return match round {
                input::Next::Ask(asked) => Ok(GetPromptResponse::InputRequired(asked)),
                input::Next::Done(answers) => {
                    let text = format!("Use this context: {}", answers["user_context"]["content"]["context"]);
                    let said = json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": text } }] });
                    Ok(GetPromptResponse::Complete(result(said)?))
                }
            };
        }
        let arguments = json!(request.arguments.unwrap_or_default());
        let messages = offer::prompt(&request.name, &arguments)
            .ok_or_else(|| ErrorData::invalid_params(format!("there is no prompt {}", request.name), None))?;
        Ok(GetPromptResponse::Complete(result(json!({ "messages": messages }))?))
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        result(kept(json!({ "resources": offer::resources() }), &context))
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        result(kept(json!({ "resourceTemplates": offer::templates() }), &context))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = offer::resource(&request.uri)
            .ok_or_else(|| ErrorData::invalid_params("there is no such resource", Some(json!({ "uri": request.uri }))))?;
        Ok(ReadResourceResponse::Complete(result(kept(
            json!({ "contents": [contents] }),
            &context,
        ))?))
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let known = ["paris", "park", "party"]
            .iter()
            .filter(|word| word.starts_with(&request.argument.value));
        let values: Vec<_> = known.collect();
        result(json!({ "completion": { "total": values.len(), "hasMore": false, "values": values } }))
    }

    async fn set_level(&self, _request: SetLevelRequestParams, _context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, _request: SubscribeRequestParams, _context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = context.cancelled() => return Ok(()),
            };
            // What the listener did not ask for is refused by its sink, which is as it should be.
            let _refused = match change {
                Ok(Change::Tools) => context.sink().notify_tool_list_changed().await,
                Ok(Change::Prompts) => context.sink().notify_prompt_list_changed().await,
                Err(_missed) => continue,
            };
        }
    }
}
