//! Extractors whose refusals are problem bodies; otherwise the same as axum's.

use ::http::StatusCode;
use ::http::request::Parts;
use bytes::Bytes;
use std::error::Error;

use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use serde::de::DeserializeOwned;

use super::Problem;
use crate::http::BodyIdle;

/// A JSON body.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonBody<T>(pub T);

/// The bytes of a body.
#[derive(Clone, Debug, Default)]
pub struct RawBody(pub Bytes);

/// The parameters after `?`.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueryParams<T>(pub T);

/// The parameters within the path.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathParams<T>(pub T);

impl<T, S> FromRequest<S> for JsonBody<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = axum::Json::<T>::from_request(request, state).await;
        body.map(|axum::Json(value)| Self(value)).map_err(Problem::from)
    }
}

impl<S> FromRequest<S> for RawBody
where
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(Problem::from)
    }
}

impl<T, S> FromRequestParts<S> for QueryParams<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(Problem::from)
    }
}

impl<T, S> FromRequestParts<S> for PathParams<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(Problem::from)
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        refused_body(&rejection, rejection.status(), &rejection.body_text())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        refused_body(&rejection, rejection.status(), &rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        refused(
            rejection.status(),
            "the query parameters cannot be read",
            &rejection.body_text(),
        )
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        refused(rejection.status(), "the path cannot be read", &rejection.body_text())
    }
}

/// A body that stopped coming looks to axum like any broken one.
fn refused_body(rejection: &(dyn Error + 'static), status: StatusCode, text: &str) -> Problem {
    if anyhow::Chain::new(rejection).any(|cause| matches!(cause.downcast_ref(), Some(BodyIdle::Paused(_)))) {
        return Problem::request_timeout("the body took too long to arrive").with_hint("send the whole body without pauses");
    }
    refused(status, "the body cannot be read", text)
}

/// axum's texts start with a sentence of its own; what follows names what the client itself sent, so it may go back.
fn refused(status: StatusCode, what: &str, text: &str) -> Problem {
    let detail = text.split_once(": ").map_or(text, |(_, detail)| detail);
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::payload_too_large("the body is larger than this service takes"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::unsupported_media_type("expected a JSON body")
            .with_hint("send the header `content-type: application/json`"),
        StatusCode::UNPROCESSABLE_ENTITY => Problem::unprocessable(format!("{what}: {detail}")),
        status if status.is_client_error() => Problem::bad_request(format!("{what}: {detail}")),
        _ => Problem::internal(anyhow::anyhow!("{what}: {text}")),
    }
}
