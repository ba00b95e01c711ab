//! The session: where the server is and what proves who calls, had from a source, renewed ahead of its end, replaced when it dies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use service_kit::{Backoff, BackoffPolicy, Clock, Pause, Shutdown};
use tokio::sync::{Mutex, watch};

use crate::metrics::Metrics;
use crate::reply::Refusal;

/// Renewal starts this long before the end, or after three quarters of a shorter life.
const AHEAD_MAX: Duration = Duration::from_mins(5);
/// Longest sleep between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long a new session may take to reach the gateway.
const YOUNG: Duration = Duration::from_secs(10);
/// A source that just refused is not asked again sooner.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// What an adapter presents, and to whom.
#[derive(Debug, Clone)]
pub struct Session {
    /// Where the gateway serves the server.
    pub endpoint: reqwest::Url,
    /// Name of the session, for people.
    pub name: String,
    /// What every request carries, and nobody else may say: who calls, and what proves it. See [`secret`].
    pub headers: HeaderMap,
    pub expires_at: Option<Timestamp>,
}

/// A value that proves something, marked so that nobody prints it; `None` when it is no header text.
pub fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What to do about a session that was not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The source cannot be asked now.
    Retry,
    /// The source says no.
    Refused,
}

/// Why there is no session.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SessionError {
    pub remedy: Remedy,
    /// What programs read, such as `session_refused`.
    pub reason: &'static str,
    pub message: String,
    pub hint: Option<String>,
}

impl SessionError {
    fn refusal(&self) -> Refusal {
        let code = match self.remedy {
            Remedy::Retry => 503,
            Remedy::Refused => 403,
        };
        let refusal = Refusal::new(code, self.reason, self.message.clone());
        match &self.hint {
            Some(hint) => refusal.hint(hint.clone()),
            None => refusal,
        }
    }
}

/// Where sessions come from.
pub trait SessionSource: Send + Sync + 'static {
    /// A session: a first one, or one to follow `last`, which may be its renewal.
    fn issue<'a>(&'a self, last: Option<&'a Session>) -> BoxFuture<'a, Result<Session, SessionError>>;

    /// Gives a session back that nobody uses any more. Losing this is harmless: sessions end by themselves.
    fn end<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, ()>;
}

/// The session of an adapter. Clones share it.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

struct Shared {
    source: Box<dyn SessionSource>,
    /// Held while the source is asked, so that many requests ask once.
    asking: Mutex<()>,
    state: watch::Sender<State>,
    clock: Clock,
    auto_refresh: bool,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone, Default)]
struct State {
    session: Option<Arc<Session>>,
    /// When it is to be renewed.
    renew_at: Option<Timestamp>,
    /// When it was made, by the monotonic clock.
    since: Duration,
    /// Why the last try failed, and when, by the monotonic clock.
    failed: Option<(SessionError, Duration)>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    pub fn new(source: impl SessionSource, auto_refresh: bool, tasks: &service_kit::Tasks) -> Self {
        Self(Arc::new(Shared {
            source: Box::new(source),
            asking: Mutex::new(()),
            state: watch::Sender::new(State::default()),
            clock: tasks.clock().clone(),
            auto_refresh,
            metrics: Metrics::shared(tasks.metrics()),
        }))
    }

    /// Whether the session is so new that gateways may not know it yet.
    pub(crate) fn is_young(&self) -> bool {
        let since = self.0.state.borrow().since;
        self.0.clock.monotonic().saturating_sub(since) < YOUNG
    }

    /// Whether a dead session may be followed by another.
    pub(crate) fn may_replace(&self) -> bool {
        self.0.auto_refresh
    }

    /// Whether a session is there, without asking for one.
    pub fn is_there(&self) -> bool {
        self.0.state.borrow().session.is_some()
    }

    /// The session to use now; the first caller asks the source.
    pub(crate) async fn current(&self) -> Result<Arc<Session>, Refusal> {
        let held = self.0.state.borrow().session.clone();
        match held {
            Some(session) if !self.is_over(&session) => Ok(session),
            Some(session) if !self.0.auto_refresh => Err(ended(&session)),
            held => self.replace(held.as_ref()).await,
        }
    }

    fn is_over(&self, session: &Session) -> bool {
        session.expires_at.is_some_and(|end| end <= self.now())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.clock.unix_ns())
    }

    /// Gives the session back.
    pub(crate) async fn end(&self) {
        let held = self.0.state.borrow().session.clone();
        if let Some(session) = held {
            self.0.source.end(&session).await;
        }
    }

    /// The session that follows one that is dead. Whoever comes while the source is asked gets the same answer.
    pub(crate) async fn replace(&self, dead: Option<&Arc<Session>>) -> Result<Arc<Session>, Refusal> {
        let _one = self.0.asking.lock().await;
        let state = self.0.state.borrow().clone();
        if let Some(now) = &state.session
            && dead.is_none_or(|dead| !Arc::ptr_eq(now, dead))
            && !self.is_over(now)
        {
            return Ok(Arc::clone(now));
        }
        if let Some((error, at)) = &state.failed
            && self.0.clock.monotonic().saturating_sub(*at) < REFUSED_PAUSE
        {
            return Err(error.refusal());
        }
        self.ask(state.session).await.map_err(|error| error.refusal())
    }

    async fn ask(&self, last: Option<Arc<Session>>) -> Result<Arc<Session>, SessionError> {
        match self.0.source.issue(last.as_deref()).await {
            Ok(session) => {
                tracing::info!(session = session.name, endpoint = %session.endpoint, "session ready");
                self.0.metrics.sessions_issued.inc();
                let end = session.expires_at;
                self.0.metrics.session_expires_seconds.set(end.map_or(0, Timestamp::seconds));
                let session = Arc::new(session);
                self.0.state.send_replace(State {
                    session: Some(Arc::clone(&session)),
                    since: self.0.clock.monotonic(),
                    renew_at: end.filter(|_| self.0.auto_refresh).map(|end| renewal(end, self.now())),
                    failed: None,
                });
                Ok(session)
            }
            Err(error) => {
                tracing::warn!(reason = error.reason, error = %error, "no session was to be had");
                self.0.metrics.session_failures.inc();
                let failed = Some((error.clone(), self.0.clock.monotonic()));
                // What was refused is dead; what could not be renewed in time still works until its end.
                self.0.state.send_modify(|state| {
                    state.session = last.filter(|_| error.remedy == Remedy::Retry);
                    state.failed = failed;
                });
                Err(error)
            }
        }
    }

    /// Keeps the session alive until shutdown, when that was asked for.
    pub(crate) async fn keep(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut changes = self.0.state.subscribe();
        let mut backoff = Backoff::new(BackoffPolicy {
            first: Duration::from_secs(1),
            ..BackoffPolicy::default()
        });
        loop {
            let state = changes.borrow_and_update().clone();
            let Some((due, old)) = state.renew_at.zip(state.session) else {
                tokio::select! {
                    news = changes.changed() => news.map_err(anyhow::Error::from)?,
                    () = shutdown.requested() => return Ok(()),
                }
                continue;
            };
            let wait = due.since(self.now());
            if !wait.is_zero() {
                tokio::select! {
                    // In slices: a machine that slept wakes up with a clock that jumped.
                    () = tokio::time::sleep(wait.min(LOOK_EVERY)) => continue,
                    _ = changes.changed() => continue,
                    () = shutdown.requested() => return Ok(()),
                }
            }
            let renewed = {
                let _one = self.0.asking.lock().await;
                self.ask(Some(old)).await
            };
            match renewed {
                Ok(_) => backoff.reset(),
                Err(error) if error.remedy != Remedy::Retry => {}
                Err(_) => {
                    if backoff.pause(&shutdown).await != Pause::Elapsed {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// When to renew what ends then.
fn renewal(end: Timestamp, now: Timestamp) -> Timestamp {
    end.minus(AHEAD_MAX.min(end.since(now) / 4))
}

fn ended(session: &Session) -> Refusal {
    Refusal::new(401, "session_expired", format!("the session `{}` has ended", session.name))
        .hint("start the adapter again, or run it with --auto-refresh")
}

#[cfg(test)]
mod tests;
