//! Asking an identity provider: its discovery document, and its endpoints for tokens and for devices.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use service_kit::oidc::{Moment, Refusal};
use service_kit::{Clock, Problem};
use tokio::sync::Semaphore;

use super::{ClientSecret, Flow, OidcConfig, Person, PersonFault};
use crate::https::{HttpClient, client};

/// Longest wait for an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long a discovery document is used without asking again.
const FRESH_FOR: Duration = Duration::from_mins(10);
/// Questions asked at the same time: whoever is not logged in yet can cause them.
const AT_ONCE_MAX: usize = 8;
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(2);

/// The provider did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    #[error("asking {0}")]
    Ask(Box<Uri>, #[source] hyper_util::client::legacy::Error),
    #[error("waiting for {0} for more than {ANSWER_WAIT_MAX:?}")]
    Late(Uri),
    #[error("reading the answer of {0}")]
    Read(Uri, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} answered {1}")]
    Status(Uri, StatusCode),
    #[error("understanding the answer of {0}")]
    Malformed(Uri, #[source] serde_json::Error),
    #[error("the discovery document is of another issuer")]
    Issuer,
    #[error("{0} is no https address (http only towards this machine)")]
    Address(String),
    #[error("the provider has no endpoint for devices")]
    NoDevices,
    /// It said no, in a word of RFC 6749 or RFC 8628.
    #[error("the provider refused: {0}")]
    Refused(String),
    #[error("{AT_ONCE_MAX} questions wait for the provider already")]
    Busy,
    #[error(transparent)]
    Token(Box<Refusal>),
    #[error(transparent)]
    Person(PersonFault),
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        let refused = |text: String| {
            Self::unauthorized(text)
                .with_code("auth_failed")
                .with_hint("log in again from the start: mcp-runtime auth login")
        };
        match error {
            ProviderError::Refused(word) => match word.as_str() {
                "authorization_pending" => Self::conflict("nobody has approved the login yet")
                    .with_code("authorization_pending")
                    .with_hint("open the page that was told, and ask again after the interval"),
                "slow_down" => Self::too_many_requests("asked too often whether the login is approved", Duration::from_secs(5))
                    .with_code("slow_down"),
                _ => refused(format!("the identity provider refused the login: {word}")),
            },
            ProviderError::Token(refusal) => match refusal.retry_after() {
                Some(wait) => Self::unavailable("the identity provider's keys cannot be had right now", wait),
                None => refused(refusal.to_string().replace("the bearer token", "the ID token")),
            },
            ProviderError::Person(fault) => refused(fault.to_string()),
            ProviderError::Busy => {
                Self::unavailable("too many logins wait for the identity provider", BUSY_RETRY_AFTER).with_code("busy")
            }
            ProviderError::NoDevices => Self::new(
                StatusCode::NOT_IMPLEMENTED,
                "no_device_flow",
                "the identity provider has no login for devices",
            )
            .with_hint("log in through a browser: mcp-runtime auth login"),
            away => {
                tracing::warn!(error = %service_kit::error::Chain(&away), "the identity provider cannot be asked");
                Self::bad_gateway("the identity provider did not answer as it should")
                    .with_code("provider_unavailable")
                    .with_hint("try again in a moment; the log of the platform says more")
            }
        }
    }
}

/// Where the provider is asked for what.
#[derive(Clone, Debug, Deserialize)]
struct Endpoints {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
}

/// A login on a device without a browser, as the provider tells of it (RFC 8628).
#[expect(clippy::struct_field_names, reason = "they are the words of the RFC")]
#[derive(Clone, Deserialize, serde::Serialize)]
pub(crate) struct Device {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_uri_complete: Option<String>,
    expires_in: u64,
    #[serde(default = "interval")]
    interval: u64,
}

fn interval() -> u64 {
    5
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

#[derive(Deserialize)]
struct OAuthFault {
    error: String,
}

/// An identity provider.
#[derive(Debug)]
pub(crate) struct Provider {
    config: OidcConfig,
    client: HttpClient,
    clock: Clock,
    places: Semaphore,
    known: Mutex<Option<(Duration, Arc<Endpoints>)>>,
}

impl Provider {
    pub(crate) fn new(config: OidcConfig, clock: Clock) -> Self {
        Self {
            config,
            client: client(),
            clock,
            places: Semaphore::new(AT_ONCE_MAX),
            known: Mutex::default(),
        }
    }

    pub(crate) fn config(&self) -> &OidcConfig {
        &self.config
    }

    /// Where a person approves a login that then returns to `redirect`.
    pub(crate) async fn authorization_url(
        &self,
        flow: &Flow,
        redirect: &str,
        login_hint: Option<&str>,
    ) -> Result<String, ProviderError> {
        let endpoints = self.endpoints().await?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.config.client_id),
            ("redirect_uri", redirect),
            ("scope", &self.config.scopes.join(" ")),
            ("state", &flow.state),
            ("nonce", &flow.nonce),
            ("code_challenge", &flow.challenge()),
            ("code_challenge_method", "S256"),
        ]);
        query.extend_pairs(login_hint.map(|hint| ("login_hint", hint)));
        let start = &endpoints.authorization_endpoint;
        let joint = if start.contains('?') { '&' } else { '?' };
        Ok(format!("{start}{joint}{}", query.finish()))
    }

    /// Who approved, by the code that the provider sent back.
    pub(crate) async fn redeem(&self, flow: &Flow, code: &str, redirect: &str) -> Result<Person, ProviderError> {
        let endpoints = self.endpoints().await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", flow.verifier.as_str()),
        ];
        let tokens: Tokens = self.post(&endpoints.token_endpoint, &form).await?;
        self.person(&tokens.id_token, Some(&flow.nonce)).await
    }

    /// Begins a login on a device.
    pub(crate) async fn device(&self) -> Result<Device, ProviderError> {
        let endpoints = self.endpoints().await?;
        let endpoint = endpoints.device_authorization_endpoint.as_deref();
        let endpoint = endpoint.ok_or(ProviderError::NoDevices)?;
        self.post(endpoint, &[("scope", &self.config.scopes.join(" "))]).await
    }

    /// Who approved the login of a device.
    pub(crate) async fn poll(&self, device_code: &str) -> Result<Person, ProviderError> {
        let endpoints = self.endpoints().await?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device_code),
        ];
        let tokens: Tokens = self.post(&endpoints.token_endpoint, &form).await?;
        self.person(&tokens.id_token, None).await
    }

    /// Whom an ID token is about, when it is genuine and for us.
    pub(crate) async fn person(&self, id_token: &str, nonce: Option<&str>) -> Result<Person, ProviderError> {
        let moment = Moment::from(&self.clock);
        let verified = self.config.issuer.verify(id_token, &[&self.config.client_id], moment).await;
        verified.map_err(|refusal| ProviderError::Token(Box::new(refusal)))?;
        let now_s = moment.unix_ns / 1_000_000_000;
        Person::of(&self.config, &claims(id_token), nonce, now_s).map_err(ProviderError::Person)
    }

    async fn endpoints(&self) -> Result<Arc<Endpoints>, ProviderError> {
        let now = self.clock.monotonic();
        if let Some((at, known)) = &*self.known.lock().unwrap_or_else(PoisonError::into_inner)
            && now.saturating_sub(*at) < FRESH_FOR
        {
            return Ok(Arc::clone(known));
        }
        let issuer = self.config.issuer.address();
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let request = Request::builder()
            .method(Method::GET)
            .uri(address(&place)?)
            .body(Full::default());
        let (_, found): (_, Endpoints) = self.ask(request).await?;
        if found.issuer != issuer {
            return Err(ProviderError::Issuer);
        }
        let found = Arc::new(found);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Arc::clone(&found)));
        Ok(found)
    }

    async fn post<T: DeserializeOwned>(&self, endpoint: &str, form: &[(&str, &str)]) -> Result<T, ProviderError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(address(endpoint)?)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        if let Some(secret) = &self.config.client_secret {
            request = request.header(header::AUTHORIZATION, basic(&self.config.client_id, secret));
        }
        let own = self
            .config
            .client_secret
            .is_none()
            .then_some(("client_id", self.config.client_id.as_str()));
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .extend_pairs(own)
            .finish();
        let request = request.body(Full::new(Bytes::from(body)));
        self.ask(request).await.map(|(_, answer)| answer)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: Result<Request<Full<Bytes>>, http::Error>,
    ) -> Result<(Uri, T), ProviderError> {
        let request = request.map_err(|error| ProviderError::Address(error.to_string()))?;
        let uri = request.uri().clone();
        let _place = self.places.try_acquire().map_err(|_| ProviderError::Busy)?;
        let answered = tokio::time::timeout(ANSWER_WAIT_MAX, self.answer(request, &uri)).await;
        let (status, body) = answered.map_err(|_| ProviderError::Late(uri.clone()))??;
        if status.is_success() {
            let answer = serde_json::from_slice(&body).map_err(|error| ProviderError::Malformed(uri.clone(), error))?;
            return Ok((uri, answer));
        }
        match serde_json::from_slice::<OAuthFault>(&body) {
            // A word of theirs goes into an answer of ours.
            Ok(fault) if status.is_client_error() && fault.error.len() < 64 && fault.error.is_ascii() => {
                Err(ProviderError::Refused(fault.error))
            }
            _ => Err(ProviderError::Status(uri, status)),
        }
    }

    async fn answer(&self, request: Request<Full<Bytes>>, uri: &Uri) -> Result<(StatusCode, Bytes), ProviderError> {
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| ProviderError::Ask(Box::new(uri.clone()), error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ProviderError::Read(uri.clone(), error))?;
        Ok((status, body.to_bytes()))
    }
}

/// The claims of a token that was verified before.
fn claims(token: &str) -> Map<String, Value> {
    let body = token.split('.').nth(1).unwrap_or_default();
    let body = URL_SAFE_NO_PAD.decode(body).unwrap_or_default();
    serde_json::from_slice(&body).unwrap_or_default()
}

/// RFC 6749, 2.3.1: both are form-encoded before they are joined.
fn basic(id: &str, secret: &ClientSecret) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(&secret.0))))
}

/// An address whose answers nobody on the way can change.
fn address(text: &str) -> Result<Uri, ProviderError> {
    let fault = || ProviderError::Address(text.to_owned());
    let uri: Uri = text.parse().map_err(|_| fault())?;
    let is_here = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_here => Ok(uri),
        _ => Err(fault()),
    }
}
