//! Sessions from the platform, and one from the command line.

use std::collections::BTreeMap;
use std::time::Duration;

use adapter::session::secret;
use adapter::{Remedy, Session, SessionError, SessionSource};
use crds::word::TrustLevel;
use domain::Timestamp;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::fault::{Exit, Fault};

const PATH: &str = "/api/v1/runtime/adapter/sessions";

/// What is asked of the platform.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) server: String,
    pub(crate) namespace: Option<String>,
    pub(crate) agent: String,
    pub(crate) trust: Option<TrustLevel>,
    pub(crate) ttl: Option<Duration>,
}

/// The platform, asked for one agent and server.
#[derive(Debug)]
pub(crate) struct Platform {
    client: Client,
    wish: Wish,
}

/// What the platform answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usable {
    name: String,
    namespace: String,
    endpoint: String,
    headers: BTreeMap<String, String>,
    expires_at: Option<Timestamp>,
}

impl Platform {
    pub(crate) fn new(client: Client, wish: Wish) -> Self {
        Self { client, wish }
    }

    async fn fresh(&self) -> Result<Session, Fault> {
        let wish = &self.wish;
        let body = json!({
            "serverName": wish.server,
            "namespace": wish.namespace,
            "agentID": wish.agent,
            "requestedTrust": wish.trust,
            "requestedTTL": self.ttl(),
        });
        let usable: Usable = self.client.send(Method::POST, PATH, Some(&body)).await?;
        usable.session(None)
    }

    async fn renewed(&self, last: &Session) -> Result<Session, Fault> {
        let body = json!({ "requestedTTL": self.ttl() });
        let path = format!("{PATH}/{}/refresh", last.name);
        let usable: Usable = self.client.send(Method::POST, &path, Some(&body)).await?;
        usable.session(Some(&last.headers))
    }

    fn ttl(&self) -> Option<String> {
        self.wish.ttl.map(|ttl| format!("{}s", ttl.as_secs()))
    }

    async fn session(&self, last: Option<&Session>) -> Result<Session, Fault> {
        let Some(last) = last else { return self.fresh().await };
        match self.renewed(last).await {
            // It ended meanwhile, or the platform lost it: another one takes its place.
            Err(fault) if fault.exit == Exit::NotFound || fault.is("session_ended") => self.fresh().await,
            done => done,
        }
    }
}

impl Usable {
    /// The credential is told once; a renewal keeps the headers there were.
    fn session(self, last: Option<&HeaderMap>) -> Result<Session, Fault> {
        let strange = |what: &str| Fault::new(Exit::Failed, format!("the platform answered a session with {what}"));
        let endpoint = self.endpoint.parse().map_err(|_| strange("an endpoint that is no URL"))?;
        let mut headers = last.cloned().unwrap_or_default();
        for (name, text) in &self.headers {
            let name = HeaderName::try_from(name).map_err(|_| strange("a header without a proper name"))?;
            headers.insert(name, secret(text).ok_or_else(|| strange("a header without a proper value"))?);
        }
        Ok(Session {
            endpoint,
            name: format!("{}/{}", self.namespace, self.name),
            headers,
            expires_at: self.expires_at,
        })
    }
}

impl SessionSource for Platform {
    fn issue<'a>(&'a self, last: Option<&'a Session>) -> BoxFuture<'a, Result<Session, SessionError>> {
        async move { self.session(last).await.map_err(|fault| refusal(&fault)) }.boxed()
    }

    fn end<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, ()> {
        async move {
            let path = format!("{PATH}/{}", session.name);
            let ended: Result<Value, Fault> = self.client.send(Method::DELETE, &path, None).await;
            drop(ended);
        }
        .boxed()
    }
}

fn refusal(fault: &Fault) -> SessionError {
    let (message, hint) = fault.parts();
    let reason = match fault.exit {
        _ if fault.is("session_revoked") => "session_revoked",
        _ if fault.is("no_grant") => "no_grant",
        Exit::NotAllowed => "not_allowed",
        Exit::NotFound => "server_not_found",
        Exit::Failed => "platform_unreachable",
        _ => "session_refused",
    };
    SessionError {
        remedy: if fault.exit == Exit::Failed {
            Remedy::Retry
        } else {
            Remedy::Refused
        },
        reason,
        message: format!("no session: {message}"),
        hint: hint.map(str::to_owned),
    }
}

/// The session that the command line gives. There is no other one.
pub(super) struct Given(pub(super) Session);

impl SessionSource for Given {
    fn issue<'a>(&'a self, _last: Option<&'a Session>) -> BoxFuture<'a, Result<Session, SessionError>> {
        async move { Ok(self.0.clone()) }.boxed()
    }

    fn end<'a>(&'a self, _session: &'a Session) -> BoxFuture<'a, ()> {
        async {}.boxed()
    }
}

/// Where a public server is, and what it answers to anybody.
pub(super) async fn anonymous(
    client: &Client,
    server: &str,
    namespace: Option<&str>,
) -> Result<(reqwest::Url, Vec<String>), Fault> {
    #[derive(Deserialize)]
    struct Public {
        endpoint: String,
        methods: Vec<String>,
    }
    let query: Vec<_> = namespace
        .map(|namespace| ("namespace", namespace.to_owned()))
        .into_iter()
        .collect();
    let public: Public = client
        .get(&format!("/api/v1/runtime/adapter/anonymous/{server}"), &query)
        .await?;
    let endpoint = public.endpoint.parse().map_err(|_| {
        Fault::new(Exit::Failed, "the platform answered an endpoint that is no URL").hint("give it yourself: --url URL")
    })?;
    Ok((endpoint, public.methods))
}
