//! A policy that comes from the operator as soon as it changes.
//!
//! Each request names the revision in force, which acknowledges it, and is answered when there is another one, or after a while. The
//! token and the authorities are files that somebody else keeps current, so they are read for each request. After a fault the connection
//! is given up, since another operator may answer the next one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::policy::DocumentError;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use service_kit::backoff::{Backoff, BackoffPolicy, Pause};
use service_kit::{Shutdown, Stage, Tasks};
use tokio::sync::watch;
use tokio::time::timeout;

use super::file::{BYTES_MAX, parse};
use super::intake::Intake;

/// How long a request may wait for another policy.
const WAIT_MAX: Duration = Duration::from_secs(50);
/// What an answer may take beyond that.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF: BackoffPolicy = BackoffPolicy {
    first: Duration::from_millis(100),
    pause_max: Duration::from_secs(5),
    attempts_max: None,
};
/// Tokens and certificates are short; more is not read.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Of a refusal, this much is shown.
const WHY_BYTES_MAX: usize = 300;
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Where policies are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStreamConfig {
    /// Address of this server's policy.
    pub url: Uri,
    /// File with the token that proves who asks.
    pub token: Option<PathBuf>,
    /// File with the authorities to believe, as PEM; those of the web when not given.
    pub authorities: Option<PathBuf>,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
enum StreamFault {
    #[error("reading {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the file {} has no usable certificate or token in it", path.display())]
    Content { path: PathBuf },
    #[error("asking for the policy")]
    Request(#[source] hyper_util::client::legacy::Error),
    #[error("the answer to the request for the policy broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the request for the policy was not answered within {0:?}")]
    Silence(Duration),
    #[error("the operator answered {status}: {why}")]
    Refused { status: StatusCode, why: String },
    #[error("taking in the policy of the operator")]
    Document(#[source] DocumentError),
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

struct Follower {
    config: PolicyStreamConfig,
    intake: Intake,
    wait: Duration,
    /// With the authorities it believes.
    client: Option<(HttpClient, Vec<u8>)>,
    answered: watch::Sender<bool>,
}

/// Follows a stream until shutdown. Gives a receiver that turns true with its first good answer.
pub(super) fn follow(
    config: PolicyStreamConfig,
    age_max: Option<Duration>,
    intake: Intake,
    tasks: &Tasks,
) -> watch::Receiver<bool> {
    let (answered, first) = watch::channel(false);
    // Silence must not make the policy too old while nothing is wrong.
    let wait = age_max
        .map_or(WAIT_MAX, |age_max| WAIT_MAX.min(age_max / 3))
        .max(Duration::from_secs(1));
    let follower = Follower {
        config,
        intake,
        wait,
        client: None,
        answered,
    };
    let stop = tasks.shutdown(Stage::Intake);
    tasks.spawn(Stage::Intake, "policy stream", async move {
        follower.run(&stop).await;
        Ok(())
    });
    first
}

impl Follower {
    async fn run(mut self, stop: &Shutdown) {
        let mut backoff = Backoff::new(BACKOFF);
        let mut said = String::new();
        while let Some(answer) = stop.or(self.ask()).await {
            let Err(fault) = answer else {
                backoff.reset();
                said.clear();
                self.answered.send_replace(true);
                continue;
            };
            // The same again is no news.
            let is_news = fault.to_string() != said;
            said = fault.to_string();
            self.intake.fail("stream", &fault, is_news);
            self.client = None;
            if backoff.pause(stop).await != Pause::Elapsed {
                return;
            }
        }
    }

    /// One request, and what its answer says taken in.
    async fn ask(&mut self) -> Result<(), StreamFault> {
        let revision = self.intake.revision();
        let request = self.request(&revision).await?;
        let client = self.client().await?;
        let patience = self.wait + PATIENCE;
        let exchange = async {
            let response = client.request(request).await.map_err(StreamFault::Request)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
            Ok((status, body.map_err(StreamFault::Body)?.to_bytes()))
        };
        let (status, body) = timeout(patience, exchange)
            .await
            .map_err(|_elapsed| StreamFault::Silence(patience))??;
        match status {
            StatusCode::OK => self.intake.offer(parse(&body).map_err(StreamFault::Document)?),
            StatusCode::NOT_MODIFIED => self.intake.confirm(&revision),
            _ => {
                let why = String::from_utf8_lossy(&body);
                let why = crate::text::bounded(&why, WHY_BYTES_MAX);
                return Err(StreamFault::Refused { status, why });
            }
        }
        Ok(())
    }

    async fn request(&self, revision: &str) -> Result<Request<Empty<Bytes>>, StreamFault> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.config.url.clone();
        let headers = request.headers_mut();
        if let Some(path) = &self.config.token {
            let token = read(path).await?;
            let token = String::from_utf8_lossy(&token);
            let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
            let mut value = value.map_err(|_| StreamFault::Content { path: path.clone() })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        if !revision.is_empty()
            && let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\""))
        {
            headers.insert(header::IF_NONE_MATCH, tag);
        }
        if let Ok(wait) = HeaderValue::try_from(format!("wait={}", self.wait.as_secs())) {
            headers.insert(PREFER, wait);
        }
        Ok(request)
    }

    /// A client that believes the authorities as they are now.
    async fn client(&mut self) -> Result<HttpClient, StreamFault> {
        let authorities = match &self.config.authorities {
            Some(path) => read(path).await?,
            None => Vec::new(),
        };
        if let Some((client, believed)) = &self.client
            && *believed == authorities
        {
            return Ok(client.clone());
        }
        let connector = connector(self.config.authorities.as_ref(), &authorities)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        self.client = Some((client.clone(), authorities));
        Ok(client)
    }
}

fn connector(path: Option<&PathBuf>, authorities: &[u8]) -> Result<HttpsConnector<HttpConnector>, StreamFault> {
    let Some(path) = path else {
        return Ok(crate::forward::connector(CONNECT_TIMEOUT));
    };
    let content = || StreamFault::Content { path: path.clone() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        roots.add(certificate.map_err(|_| content())?).map_err(|_| content())?;
    }
    if roots.is_empty() {
        return Err(content());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| content())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(builder.https_or_http().enable_http1().wrap_connector(connector))
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, StreamFault> {
    use tokio::io::AsyncReadExt as _;
    let fault = |source| StreamFault::File {
        path: path.clone(),
        source,
    };
    let file = tokio::fs::File::open(path).await.map_err(fault)?;
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes).await.map_err(fault)?;
    Ok(bytes)
}
