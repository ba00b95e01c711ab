//! Policies for the gateways that wait for them, and what those gateways say they run.
//!
//! A gateway asks for its server's policy and names the revision it runs; the answer comes when there is another. So one request both
//! waits and acknowledges:
//!
//! ```text
//! GET /policies/{namespace}/{server}    Authorization: Bearer <token>    If-None-Match: "sha256:…"
//! 200  the document, ETag with its revision      304  nothing new for a while, ask again
//! 401  no token of a pod    403  another server's pod    404  no such policy    503  not yet, or not here
//! ```
//!
//! What is handed out is what the server's `ConfigMap` holds: that is the durable form, written first, and what gateways fall back on. Only
//! the operator that works answers, since only it tells in the status who runs what; others answer 503, and gateways try again.
//!
//! A gateway proves itself by a token that Kubernetes projects into its container: for this audience alone, bound to its pod, replaced
//! hourly. The API server checks it (`TokenReview`) and names the pod, whose label names the server. A namespace's ingest key would do
//! without that question, but to check it the operator would have to read Secrets of tenants, one leaked key would open every policy of
//! the namespace until somebody changed it, and it would not say which pod acknowledges.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service_kit::{Shutdown, Stage, Tasks};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::object::Key;
use crate::queue::Queue;

mod http;
mod token;

pub use http::routes;
pub use token::{AUDIENCE, TokenReviews};

/// A gateway whose request ended longer ago than this has gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Gateways get this long to take in a new policy before they are called behind.
pub const BEHIND_AFTER: Duration = Duration::from_secs(10);
/// How long a pass waits for gateways to acknowledge what it published, so that the status is written once.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(500);
const SWEEP_PAUSE: Duration = Duration::from_secs(5);

/// A policy that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub revision: Arc<str>,
    pub text: Arc<str>,
}

/// What the gateways of one server said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acknowledgements {
    /// Revision by pod, of gateways that are there.
    pub revisions: BTreeMap<String, Arc<str>>,
    /// How long the newest revision has been out; `None` before there is one.
    pub age: Option<Duration>,
}

/// Policies and acknowledgements, shared between passes and requests.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    servers: Mutex<HashMap<Key, Server>>,
    /// Whether this operator is the one that works.
    works: watch::Sender<bool>,
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Server {
    published: watch::Sender<Option<Published>>,
    since: Option<Instant>,
    gateways: BTreeMap<String, Gateway>,
    /// Counts what gateways say, for a pass that waits for it.
    said: watch::Sender<u64>,
}

#[derive(Debug)]
struct Gateway {
    /// What it runs; empty when nothing yet.
    revision: Arc<str>,
    /// Requests that wait now.
    waiting: u32,
    /// When the last request ended.
    left: Instant,
}

impl Gateway {
    fn is_there(&self, now: Instant) -> bool {
        self.waiting > 0 || now.duration_since(self.left) < SILENCE_MAX
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            published: watch::Sender::new(None),
            since: None,
            gateways: BTreeMap::new(),
            said: watch::Sender::new(0),
        }
    }
}

impl Feed {
    pub fn new(queue: Arc<Queue>) -> Self {
        Self(Arc::new(Shared {
            servers: Mutex::default(),
            works: watch::Sender::new(false),
            queue,
        }))
    }

    /// Starts or stops answering: only the operator that works does.
    pub fn set_working(&self, works: bool) {
        self.0.works.send_replace(works);
    }

    /// Hands out a policy from now on; `None`: there is none any more. Equal ones change nothing. Tells whether it is another one.
    pub fn publish(&self, key: &Key, published: Option<Published>) -> bool {
        let mut servers = self.servers();
        let Some(published) = published else {
            // Whoever waits sees the sender go.
            return servers.remove(key).is_some();
        };
        let server = servers.entry(key.clone()).or_default();
        let is_new = server.published.borrow().as_ref() != Some(&published);
        if is_new {
            server.since = Some(Instant::now());
            server.published.send_replace(Some(published));
        }
        is_new
    }

    /// What the gateways among these pods said. Those of other pods are forgotten.
    pub fn acknowledgements(&self, key: &Key, pods: &BTreeSet<&str>, now: Instant) -> Acknowledgements {
        let mut servers = self.servers();
        let Some(server) = servers.get_mut(key) else {
            return Acknowledgements::default();
        };
        server
            .gateways
            .retain(|pod, gateway| gateway.waiting > 0 || pods.contains(pod.as_str()));
        let there = server.gateways.iter().filter(|(_, gateway)| gateway.is_there(now));
        Acknowledgements {
            revisions: there
                .map(|(pod, gateway)| (pod.clone(), Arc::clone(&gateway.revision)))
                .collect(),
            age: server.since.map(|since| now.duration_since(since)),
        }
    }

    /// Waits a moment for every gateway that is there to run what is published.
    pub async fn acknowledged(&self, key: &Key) {
        let Some(mut said) = self.servers().get(key).map(|server| server.said.subscribe()) else {
            return;
        };
        let all = async {
            while !self.is_acknowledged(key) {
                if said.changed().await.is_err() {
                    return;
                }
            }
        };
        let _unfinished = tokio::time::timeout(ACKNOWLEDGED_WITHIN, all).await;
    }

    fn is_acknowledged(&self, key: &Key) -> bool {
        let now = Instant::now();
        let servers = self.servers();
        let Some(server) = servers.get(key) else { return true };
        let published = server.published.borrow();
        let Some(published) = published.as_ref() else { return true };
        let mut there = server.gateways.values().filter(|gateway| gateway.is_there(now));
        there.all(|gateway| gateway.revision == published.revision)
    }

    /// A gateway asks: it runs `revision`. `None`: no policy of that server is known here.
    fn attend(&self, key: &Key, pod: &str, revision: &str, now: Instant) -> Option<Attending> {
        let mut servers = self.servers();
        let server = servers.get_mut(key)?;
        let gateway = server.gateways.entry(pod.to_owned()).or_insert_with(|| Gateway {
            revision: Arc::from(""),
            waiting: 0,
            left: now,
        });
        gateway.waiting += 1;
        let is_news =
            *gateway.revision != *revision || (gateway.waiting == 1 && now.duration_since(gateway.left) >= SILENCE_MAX);
        if is_news {
            gateway.revision = Arc::from(revision);
            server.said.send_modify(|said| *said += 1);
        }
        let attending = Attending {
            feed: self.clone(),
            key: key.clone(),
            pod: pod.to_owned(),
            published: server.published.subscribe(),
        };
        drop(servers);
        if is_news {
            self.0.queue.add([key.clone()]);
        }
        Some(attending)
    }

    fn leave(&self, key: &Key, pod: &str) {
        let mut servers = self.servers();
        if let Some(gateway) = servers.get_mut(key).and_then(|server| server.gateways.get_mut(pod)) {
            gateway.waiting = gateway.waiting.saturating_sub(1);
            gateway.left = Instant::now();
        }
    }

    /// The servers whose gateways have gone silent since the last look.
    fn sweep(&self, since: Instant, now: Instant) -> Vec<Key> {
        let servers = self.servers();
        let silent = servers.iter().filter(|(_, server)| {
            let mut gateways = server.gateways.values();
            gateways.any(|gateway| {
                !gateway.is_there(now) && gateway.left + SILENCE_MAX > since && gateway.left + SILENCE_MAX <= now
            })
        });
        silent.map(|(key, _)| key.clone()).collect()
    }

    /// Looks for gateways that went silent, until shutdown.
    pub fn watch_silence(&self, tasks: &Tasks) {
        let (feed, stop) = (self.clone(), tasks.shutdown(Stage::Query));
        tasks.spawn(Stage::Query, "silent gateways", async move {
            let mut since = Instant::now();
            while stop.or(tokio::time::sleep(SWEEP_PAUSE)).await.is_some() {
                let now = Instant::now();
                feed.0.queue.add(feed.sweep(since, now));
                since = now;
            }
            Ok(())
        });
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<Key, Server>> {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gateway's request while it lasts.
struct Attending {
    feed: Feed,
    key: Key,
    pod: String,
    published: watch::Receiver<Option<Published>>,
}

impl Attending {
    /// The policy, once it is another than `revision`. `None`: it is not within the time, or there is none any more.
    async fn next(&mut self, revision: &str, wait: Duration, stop: &Shutdown) -> Option<Published> {
        let mut works = self.feed.0.works.subscribe();
        let other = self
            .published
            .wait_for(|published| published.as_ref().is_some_and(|published| *published.revision != *revision));
        tokio::select! {
            other = other => other.ok().and_then(|published| published.clone()),
            _stopped_working = works.wait_for(|works| !works) => None,
            () = stop.requested() => None,
            () = tokio::time::sleep(wait) => None,
        }
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.feed.leave(&self.key, &self.pod);
    }
}

#[cfg(test)]
mod tests;
