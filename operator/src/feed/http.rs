//! Answers gateways that ask for their policy.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use service_kit::error::Chain;
use service_kit::{Problem, Shutdown};
use tokio::time::Instant;

use super::token::TokenError;
use super::{Feed, Published, TokenReviews};
use crate::metrics::OperatorMetrics;
use crate::object::Key;
use crate::watch::SharedWorld;

/// How long a request waits for another policy. Shorter than what proxies and the gateway's own patience allow.
const WAIT: Duration = Duration::from_secs(50);
/// When to ask again where the answer is not known yet.
const SOON: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Context {
    feed: Feed,
    tokens: Arc<TokenReviews>,
    world: SharedWorld,
    metrics: Arc<OperatorMetrics>,
    stop: Shutdown,
}

/// The route that gateways ask.
pub fn routes(feed: Feed, tokens: TokenReviews, world: SharedWorld, metrics: Arc<OperatorMetrics>, stop: Shutdown) -> Router {
    let context = Context {
        feed,
        tokens: Arc::new(tokens),
        world,
        metrics,
        stop,
    };
    Router::new()
        .route("/policies/{namespace}/{server}", get(policy))
        .with_state(context)
}

async fn policy(
    State(context): State<Context>,
    Path((namespace, server)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let key = Key::new(namespace, server);
    let answer = answer(&context, &key, &headers).await;
    let (name, mut answer) = match answer {
        Ok(Some(published)) => ("sent", document(&published)),
        Ok(None) => ("unchanged", StatusCode::NOT_MODIFIED.into_response()),
        Err(problem) => ("refused", problem.into_response()),
    };
    context.metrics.count_policy_request(name);
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        // The next connection may reach the operator that works.
        answer
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn answer(context: &Context, key: &Key, headers: &HeaderMap) -> Result<Option<Published>, Problem> {
    if !*context.feed.0.works.borrow() {
        return Err(elsewhere());
    }
    let pod = context.tokens.pod(bearer(headers)).await.map_err(|error| match error {
        TokenError::Refused => Problem::unauthorized(error.to_string()),
        TokenError::Unknown(_) => {
            tracing::warn!(error = %Chain(&error), "a gateway's token cannot be checked now");
            Problem::unavailable("the token cannot be checked now", SOON)
        }
    })?;
    let server = context.world.with(|world| world.pod(&pod).map(|pod| pod.server.clone()));
    match server {
        // The token came before the news of the pod.
        None => return Err(Problem::unavailable("the pod is not known yet", SOON)),
        Some(server) if pod.namespace != key.namespace || server != key.name => {
            return Err(Problem::forbidden("a pod gets the policy of its own server"));
        }
        Some(_) => {}
    }
    let revision = revision(headers);
    let Some(mut attending) = context.feed.attend(key, &pod.name, revision, Instant::now()) else {
        return Err(Problem::unavailable("the server has no policy yet", SOON));
    };
    let next = attending.next(revision, wait(headers), &context.stop).await;
    if next.is_none() && (context.stop.is_requested() || !*context.feed.0.works.borrow()) {
        return Err(elsewhere());
    }
    Ok(next)
}

fn elsewhere() -> Problem {
    Problem::unavailable("another operator answers", Duration::ZERO)
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default()
        .trim()
}

/// The revision a gateway says it runs; empty when it runs none.
fn revision(headers: &HeaderMap) -> &str {
    let value = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().trim().trim_matches('"')
}

/// How long a gateway wants to wait, within our bound.
fn wait(headers: &HeaderMap) -> Duration {
    let value = headers.get("prefer").and_then(|value| value.to_str().ok());
    let seconds = value.and_then(|value| value.trim().strip_prefix("wait=")?.parse().ok());
    seconds.map_or(WAIT, |seconds| Duration::from_secs(seconds).min(WAIT))
}

fn document(published: &Published) -> Response {
    let mut response = published.text.to_string().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", published.revision)) {
        headers.insert(header::ETAG, tag);
    }
    response
}
