//! One attempt to hand a batch to ingest, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;
use serde::de::IgnoredAny;
use service_kit::error::Chain;
use tokio::time::timeout;

use super::{ApiKey, Coding, DeliveryConfig, DeliveryError};
use crate::forward::HttpClient;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const ZSTD: HeaderValue = HeaderValue::from_static("zstd");
/// More of an answer is not read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Of the text of a refusal, this much is shown.
const WHY_BYTES_MAX: usize = 300;

/// What ingest said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All but `refused` events are durable.
    Taken { refused: u64 },
    /// None of them will ever be taken.
    Refused(String),
    /// The batch must be smaller.
    TooLarge,
    /// Nothing is known: to be sent again.
    Later(String),
}

/// What ingest answers, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    rejected: Vec<IgnoredAny>,
    #[serde(default)]
    message: String,
}

pub(super) struct Sender {
    client: HttpClient,
    ingest: Uri,
    authority: Option<HeaderValue>,
    source: ApiKey,
    key: Option<HeaderValue>,
    request_timeout: Duration,
}

impl Sender {
    pub(super) async fn new(config: &DeliveryConfig, client: HttpClient) -> Result<Self, DeliveryError> {
        let authority = config
            .ingest
            .authority()
            .and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
        Ok(Self {
            client,
            ingest: config.ingest.clone(),
            authority,
            source: config.api_key.clone(),
            key: read_key(&config.api_key).await?,
            request_timeout: config.request_timeout,
        })
    }

    pub(super) async fn send(&mut self, body: Bytes, coding: Coding, events: u64) -> Sent {
        match timeout(self.request_timeout, self.exchange(body, coding)).await {
            Ok(Ok((status, answer))) => {
                if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    self.renew_key().await;
                }
                judge(status, &answer, events)
            }
            Ok(Err(why)) => Sent::Later(why),
            Err(_elapsed) => Sent::Later(format!("ingest did not answer within {:?}", self.request_timeout)),
        }
    }

    async fn exchange(&self, body: Bytes, coding: Coding) -> Result<(StatusCode, Bytes), String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.ingest.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, NDJSON);
        if coding == Coding::Zstd {
            headers.insert(header::CONTENT_ENCODING, ZSTD);
        }
        if let Some(authority) = &self.authority {
            headers.insert(header::HOST, authority.clone());
        }
        if let Some(key) = &self.key {
            headers.insert(API_KEY, key.clone());
        }
        let response = self.client.request(request).await;
        let response = response.map_err(|error| format!("ingest cannot be reached: {}", Chain(&error)))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let answer = answer.map_err(|error| format!("the answer of ingest broke off: {error}"))?;
        Ok((status, answer.to_bytes()))
    }

    async fn renew_key(&mut self) {
        match read_key(&self.source).await {
            Ok(key) => self.key = key,
            Err(error) => tracing::warn!(error = %Chain(&error), "reading the ingest key again failed; the old one stays"),
        }
    }
}

fn judge(status: StatusCode, answer: &[u8], events: u64) -> Sent {
    let answer: Answer = serde_json::from_slice(answer).unwrap_or_default();
    let why = || {
        let text = crate::text::bounded(&answer.message, WHY_BYTES_MAX);
        if text.is_empty() {
            format!("ingest answered {status}")
        } else {
            format!("ingest answered {status}: {text}")
        }
    };
    match status {
        status if status.is_success() => Sent::Taken {
            refused: (answer.rejected.len() as u64).min(events),
        },
        StatusCode::PAYLOAD_TOO_LARGE => Sent::TooLarge,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::UNSUPPORTED_MEDIA_TYPE => Sent::Refused(why()),
        // A key or an address that is wrong now may be put right while we wait.
        _ => Sent::Later(why()),
    }
}

async fn read_key(source: &ApiKey) -> Result<Option<HeaderValue>, DeliveryError> {
    let text = match source {
        ApiKey::None => return Ok(None),
        ApiKey::Value(text) => text.clone(),
        ApiKey::File(path) => tokio::fs::read_to_string(path)
            .await
            .map_err(|source| DeliveryError::ApiKey {
                path: path.clone(),
                source,
            })?,
    };
    let mut key = HeaderValue::try_from(text.trim()).map_err(|_| DeliveryError::ApiKeyText)?;
    key.set_sensitive(true);
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{Sent, judge};

    #[test]
    fn answers_say_whether_to_send_again() {
        let taken = br#"{"ok":true,"accepted":1,"duplicates":0,"rejected":[{"index":1,"code":"x","message":"y"}]}"#;
        assert_eq!(judge(StatusCode::ACCEPTED, taken, 2), Sent::Taken { refused: 1 });
        assert_eq!(judge(StatusCode::OK, b"", 2), Sent::Taken { refused: 0 });
        let refused = br#"{"error":"invalid","message":"payload.server is wrong"}"#;
        let Sent::Refused(why) = judge(StatusCode::BAD_REQUEST, refused, 2) else {
            panic!("taken")
        };
        assert!(why.contains("payload.server is wrong"), "{why}");
        assert_eq!(judge(StatusCode::PAYLOAD_TOO_LARGE, b"", 2), Sent::TooLarge);
        for status in [401, 403, 404, 408, 429, 500, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(matches!(judge(status, b"", 2), Sent::Later(_)), "{status}");
        }
    }
}
