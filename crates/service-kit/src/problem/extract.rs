//! Extractors whose refusals are problem bodies; otherwise the same as axum's.

use ::http::StatusCode;
use ::http::request::Parts;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use serde::de::DeserializeOwned;

use super::Problem;

/// A JSON body.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonBody<T>(pub T);

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
        refused(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        refused(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        refused(rejection.status(), rejection.body_text())
    }
}

/// The text names what the client itself sent, so it may go back.
fn refused(status: StatusCode, text: String) -> Problem {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::payload_too_large("the body is larger than this service takes"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::unsupported_media_type("expected a JSON body")
            .with_hint("send the header `content-type: application/json`"),
        StatusCode::UNPROCESSABLE_ENTITY => Problem::unprocessable(text),
        status if status.is_client_error() => Problem::bad_request(text),
        _ => Problem::internal(anyhow::anyhow!(text)),
    }
}
