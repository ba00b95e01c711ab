//! By which operators agree who works: a Lease that its holder renews.
//!
//! A rival counts the holder as gone once it has seen no renewal for the whole duration by its own clock, so clocks need not agree.
//! The holder stops well before that, when it cannot renew; hence never two write at a time. Each write names the version it
//! read, so that of two rivals one wins.

use std::time::Duration;

use kube::api::{Api, DynamicObject, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use service_kit::{Clock, Shutdown};
use tokio::time::Instant;

use crate::apply::{api, status_code};
use crate::args::LeaseConfig;
use crate::object::{Kind, number, text};

/// Name of the Lease.
pub const LEASE_NAME: &str = "mcp-runtime-operator.mcpruntime.org";

/// How patient rivals and holders are.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a renewal for this long the holder counts as gone.
    pub duration: Duration,
    /// The holder stops after this long without success. Shorter than `duration` by more than a request may take.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(9),
            pause: Duration::from_secs(2),
        }
    }
}

/// Somebody else holds the lease, or it could not be renewed in time: whoever held it must stop at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease could not be renewed in time; another operator may work now")]
pub struct Lost;

/// One operator's side of the agreement.
#[derive(Debug)]
pub struct Lease {
    api: Api<DynamicObject>,
    namespace: String,
    identity: String,
    patience: Patience,
    clock: Clock,
    /// The renewal last seen, and when.
    seen: Option<(String, Instant)>,
}

impl Lease {
    pub fn new(client: &Client, config: LeaseConfig, patience: Patience, clock: Clock) -> Self {
        let random = || format!("mcp-operator-{:x}-{:x}", std::process::id(), clock.unix_ns());
        Self {
            api: api(client, &config.namespace, Kind::Lease),
            identity: config.identity.unwrap_or_else(random),
            namespace: config.namespace,
            patience,
            clock,
            seen: None,
        }
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Waits until this operator holds the lease; `false` when shutdown came first.
    pub async fn acquire(&mut self, stop: &Shutdown) -> bool {
        loop {
            match stop.or(self.attempt()).await {
                None => return false,
                Some(Ok(true)) => return true,
                Some(Ok(false)) => {}
                Some(Err(error)) => {
                    tracing::warn!(
                        error = service_kit::error::Chain(&error).to_string(),
                        "asking for the lease failed; trying again"
                    );
                }
            }
            if stop.or(tokio::time::sleep(self.patience.pause)).await.is_none() {
                return false;
            }
        }
    }

    /// Renews the lease until shutdown, and then gives it up, so that the next operator need not wait.
    pub async fn hold(mut self, stop: Shutdown) -> Result<(), Lost> {
        let mut renewed = Instant::now();
        while stop.or(tokio::time::sleep(self.patience.pause)).await.is_some() {
            let left = self.patience.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Err(error)) if renewed.elapsed() < self.patience.renew_deadline => {
                    tracing::warn!(
                        error = service_kit::error::Chain(&error).to_string(),
                        "renewing the lease failed; trying again"
                    );
                }
                Ok(Ok(false) | Err(_)) | Err(_) => return Err(Lost),
            }
        }
        self.release().await;
        Ok(())
    }

    /// Takes or renews the lease if that is possible now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let Some(found) = self.api.get_opt(LEASE_NAME).await? else {
            return written(self.api.create(&PostParams::default(), &self.body(None, 0)).await);
        };
        let found = serde_json::to_value(found).unwrap_or_default();
        let holder = text(&found, "/spec/holderIdentity");
        let renewal = format!("{holder}@{}", text(&found, "/spec/renewTime"));
        let transitions = number(&found, "/spec/leaseTransitions");
        if holder == self.identity {
            return written(self.replace(&found, transitions).await);
        }
        let since = match &self.seen {
            Some((seen, since)) if *seen == renewal => *since,
            _ => self.seen.insert((renewal, Instant::now())).1,
        };
        if holder.is_empty() || since.elapsed() >= self.patience.duration {
            return written(self.replace(&found, transitions + 1).await);
        }
        Ok(false)
    }

    async fn replace(&self, found: &Value, transitions: i64) -> Result<DynamicObject, Error> {
        let body = self.body(Some(found), transitions);
        self.api.replace(LEASE_NAME, &PostParams::default(), &body).await
    }

    async fn release(&self) {
        let Ok(Some(found)) = self.api.get_opt(LEASE_NAME).await else {
            return;
        };
        let mut found = serde_json::to_value(found).unwrap_or_default();
        if text(&found, "/spec/holderIdentity") == self.identity {
            found["spec"]["holderIdentity"] = json!("");
            if let Ok(body) = serde_json::from_value::<DynamicObject>(found)
                && let Err(error) = self.api.replace(LEASE_NAME, &PostParams::default(), &body).await
            {
                tracing::warn!(
                    error = service_kit::error::Chain(&error).to_string(),
                    "giving up the lease failed; the next operator waits it out"
                );
            }
        }
    }

    fn body(&self, found: Option<&Value>, transitions: i64) -> DynamicObject {
        let now = domain::Timestamp::from_nanos(self.clock.unix_ns()).to_string();
        // Six digits of fraction are what the API takes.
        let now = format!("{}Z", now.get(..26).unwrap_or("1970-01-01T00:00:00.000000"));
        let body = json!({
            "apiVersion": Kind::Lease.api_version(),
            "kind": Kind::Lease.as_str(),
            "metadata": {
                "name": LEASE_NAME,
                "namespace": self.namespace,
                "resourceVersion": found.map(|found| text(found, "/metadata/resourceVersion")),
            },
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": self.patience.duration.as_secs().max(1),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        });
        serde_json::from_value(body).expect("an object with metadata")
    }
}

/// A conflict means a rival was quicker, which is an answer and no fault.
fn written(answer: Result<DynamicObject, Error>) -> Result<bool, Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if status_code(&error) == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}
