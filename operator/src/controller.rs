//! The pass over one server: fetch, validate, build, apply, status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::grant::AccessStatus;
use crds::server::McpServerStatus;
use domain::Timestamp;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::json;
use service_kit::{Clock, Shutdown};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::apply::{self, ApplyError, Step, api, plan, status_code};
use crate::args::Settings;
use crate::authority::Held;
use crate::build::{build, policy_name};
use crate::event::{self, News, news};
use crate::feed::{Acknowledgements, BEHIND_AFTER, Feed, Published};
use crate::metrics::OperatorMetrics;
use crate::object::{Key, Kind, annotation};
use crate::policy::{self, Policy};
use crate::queue::{Next, Queue};
use crate::status::{self, Outcome, seconds};
use crate::validate::{Fault, validate};
use crate::watch::SharedWorld;
use crate::world::{AccessObject, Change, Facts, ServerObject};
use crate::{FIELD_MANAGER, POLICY_REVISION};

/// Longest time until a grant or session that ends by itself is looked at again: clocks may be set.
const ENDING_PAUSE_MAX: Duration = Duration::from_hours(1);

/// Everything a pass needs.
#[derive(Clone)]
pub struct Controller {
    pub client: Client,
    pub world: SharedWorld,
    pub queue: Arc<Queue>,
    pub settings: Arc<Settings>,
    pub metrics: Arc<OperatorMetrics>,
    pub clock: Clock,
    pub feed: Feed,
    /// Authorities that gateways believe us by.
    pub held: watch::Receiver<Option<Held>>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// Makes passes, `concurrency` at a time, until shutdown; passes that run then are finished.
    pub async fn run(&self, concurrency: usize, stop: &Shutdown) {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < concurrency && !stop.is_requested() {
                let Some(key) = self.queue.take(Instant::now()) else { break };
                running.push(async {
                    let next = self.pass(&key).await;
                    (key, next)
                });
            }
            self.metrics
                .waiting
                .set(i64::try_from(self.queue.waiting()).unwrap_or(i64::MAX));
            self.metrics.running.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
            if stop.is_requested() && running.is_empty() {
                return;
            }
            tokio::select! {
                Some((key, next)) = running.next() => self.queue.finish(key, next, Instant::now()),
                () = self.queue.changed(), if running.len() < concurrency && !stop.is_requested() => {}
                () = stop.requested(), if !stop.is_requested() => {}
            }
        }
    }

    /// One pass over one server.
    pub async fn pass(&self, key: &Key) -> Next {
        let start = Instant::now();
        let facts = self.world.with(|world| world.fetch(key));
        let now = Timestamp::from_nanos(self.clock.unix_ns());
        let next = match facts.server.clone() {
            Some(server) if !server.is_deleted => self.pass_server(facts, &server, now).await,
            _ => {
                self.feed.publish(key, None);
                Ok(facts)
            }
        };
        let next = match next {
            Ok(facts) => match self.tell_access(&facts, now).await {
                Ok(()) => Ok(sooner(ending(&facts, now), self.look_at_gateways(key))),
                Err(next) => Err(next),
            },
            Err(next) => Err(next),
        };
        self.metrics.pass_seconds.observe(start.elapsed().as_secs_f64());
        if let Ok(next) = next {
            self.metrics.count_pass("converged");
            next
        } else {
            self.metrics.count_pass("failed");
            Next::Retry
        }
    }

    async fn pass_server(&self, facts: Facts, server: &Arc<ServerObject>, now: Timestamp) -> Result<Facts, Failed> {
        let key = facts.key.clone();
        let checked = match &server.server {
            Ok(spec) => validate(&facts, spec, &server.uid, &self.settings).map(|checked| (spec, checked)),
            Err(error) => Err(vec![Fault::invalid(format!("the object cannot be read: {error}"))]),
        };
        let (status, result) = match &checked {
            Err(faults) => {
                let outcome = Outcome::Invalid(faults);
                (
                    status::of_server(&facts, server.generation, &outcome, &self.settings, &seconds(now)),
                    Ok(facts),
                )
            }
            Ok((spec, checked)) => {
                let mut policy = spec
                    .spec
                    .is_governed()
                    .then(|| policy::render(&facts, spec, &self.settings.cluster_name, now));
                if let Some(Ok(policy)) = &mut policy
                    && self.settings.policy_url.is_some()
                {
                    policy.authorities = self.held.borrow().as_ref().map(|held| Arc::clone(&held.authorities));
                }
                let document = policy.as_ref().and_then(|policy| policy.as_ref().ok());
                let mut steps = plan(build(checked, document, &self.settings), &facts.live, &server.uid);
                if matches!(policy, Some(Err(_))) {
                    // What cannot be published anew stays as it was: without a policy the gateways would refuse everybody.
                    steps.retain(|step| {
                        !matches!(
                            step,
                            Step::Delete {
                                kind: Kind::ConfigMap,
                                ..
                            }
                        )
                    });
                }
                let failed = self.apply(&key, steps).await;
                let facts = self.world.with(|world| world.fetch(&key));
                let said = self.hand_out(&facts, policy.as_ref()).await;
                let outcome = Outcome::Applied {
                    checked,
                    policy: policy.as_ref(),
                    said: &said,
                    failed: failed
                        .as_ref()
                        .map(|error| (error.reason(), service_kit::error::Chain(error).to_string())),
                };
                let status = status::of_server(&facts, server.generation, &outcome, &self.settings, &seconds(now));
                (status, if failed.is_some() { Err(Failed) } else { Ok(facts) })
            }
        };
        self.tell_server(&key, server, status).await?;
        result
    }

    /// Hands the published policy to the gateways that wait, gives them a moment, and tells what they say.
    async fn hand_out(&self, facts: &Facts, policy: Option<&Result<Policy, Fault>>) -> Acknowledgements {
        let key = &facts.key;
        match policy {
            None => {
                self.feed.publish(key, None);
            }
            // The last one stays.
            Some(Err(_)) => {}
            Some(Ok(policy)) => {
                let live = facts.live.get(&(Kind::ConfigMap, policy_name(&key.name)));
                let is_durable = live.is_some_and(|live| annotation(live, POLICY_REVISION) == policy.revision);
                let published = Published {
                    revision: policy.revision.as_str().into(),
                    text: policy.text.as_str().into(),
                };
                if is_durable && self.feed.publish(key, Some(published)) {
                    self.feed.acknowledged(key).await;
                }
            }
        }
        self.acknowledgements(facts)
    }

    fn acknowledgements(&self, facts: &Facts) -> Acknowledgements {
        let pods: BTreeSet<&str> = facts.pods.iter().map(|pod| pod.name.as_str()).collect();
        self.feed.acknowledgements(&facts.key, &pods, Instant::now())
    }

    /// When gateways that do not take in a policy are to be named.
    fn look_at_gateways(&self, key: &Key) -> Next {
        let facts = self.world.with(|world| world.fetch(key));
        let is_waiting = facts.server.as_ref().is_some_and(|server| {
            let mut conditions = server.status.conditions.iter();
            conditions.any(|condition| condition.reason == "Acknowledging")
        });
        match self.acknowledgements(&facts).age {
            Some(age) if is_waiting && age < BEHIND_AFTER => Next::After(BEHIND_AFTER.saturating_sub(age)),
            _ => Next::Wait,
        }
    }

    /// Takes all steps; a failed one does not keep the others from being taken. Gives the first fault.
    async fn apply(&self, key: &Key, steps: Vec<Step>) -> Option<ApplyError> {
        let mut first = None;
        for step in steps {
            let (kind, gone) = match &step {
                Step::Create(desired) | Step::Patch { desired, .. } => (desired.kind, None),
                Step::Delete { kind, name, .. } => (*kind, Some(Key::new(&*key.namespace, &**name))),
            };
            match apply::take(&self.client, &key.namespace, step).await {
                // The world learns of our own writes at once, so that the next pass does not repeat them.
                Ok(Some(object)) => self.world.with(|world| drop(world.observe(kind, Change::Set(object)))),
                Ok(None) => {
                    if let Some(gone) = gone {
                        self.world.with(|world| drop(world.observe(kind, Change::Gone(gone))));
                    }
                }
                Err(error) => {
                    tracing::warn!(server = %key, %kind, error = service_kit::error::Chain(&error).to_string(), "a step failed");
                    first.get_or_insert(error);
                }
            }
        }
        first
    }

    async fn tell_server(&self, key: &Key, server: &ServerObject, status: McpServerStatus) -> Result<(), Failed> {
        if server.status == status {
            return Ok(());
        }
        self.write_status(Kind::Server, key, &server.uid, &status).await?;
        let mut news = news(&server.status.conditions, &status.conditions);
        let is_ready = |status: &McpServerStatus| status.phase.as_deref() == Some("Ready");
        if is_ready(&status) && !is_ready(&server.status) {
            let url = status.url.as_deref().map(|url| format!(", at {url}"));
            news.push(News {
                is_warning: false,
                reason: "Ready".to_owned(),
                note: format!("the server is ready{}", url.unwrap_or_default()),
            });
        }
        event::publish(&self.client, Kind::Server, key, &server.uid, &news, self.clock.unix_ns()).await;
        Ok(())
    }

    async fn tell_access(&self, facts: &Facts, now: Timestamp) -> Result<(), Failed> {
        for grant in &facts.grants {
            self.tell(Kind::Grant, grant, status::of_grant(facts, grant, now)).await?;
        }
        for session in &facts.sessions {
            self.tell(Kind::Session, session, status::of_session(facts, session, now))
                .await?;
        }
        Ok(())
    }

    async fn tell<T>(&self, kind: Kind, object: &AccessObject<T>, status: AccessStatus) -> Result<(), Failed> {
        if object.status == status {
            return Ok(());
        }
        self.write_status(kind, &object.key, &object.uid, &status).await?;
        if status.phase.as_deref() == Some("Error") {
            let news = news(&object.status.conditions, &status.conditions);
            event::publish(&self.client, kind, &object.key, &object.uid, &news, self.clock.unix_ns()).await;
        }
        Ok(())
    }

    async fn write_status(&self, kind: Kind, key: &Key, uid: &str, status: &impl Serialize) -> Result<(), Failed> {
        let body = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.as_str(),
            "metadata": { "name": key.name, "namespace": key.namespace, "uid": uid },
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match api(&self.client, &key.namespace, kind)
            .patch_status(&key.name, &params, &Patch::Apply(&body))
            .await
        {
            Ok(object) => {
                self.world
                    .with(|world| drop(world.observe(kind, Change::Set(apply::trimmed(kind, object)))));
                Ok(())
            }
            // Deleted meanwhile, or another object of that name by now; either is a change that comes to us.
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => {
                tracing::warn!(%kind, %key, error = service_kit::error::Chain(&error).to_string(), "writing a status failed");
                Err(Failed)
            }
        }
    }
}

/// A pass that must be repeated; why is in the log and in the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failed;

/// The sooner of two wishes.
fn sooner(one: Next, other: Next) -> Next {
    match (one, other) {
        (Next::After(one), Next::After(other)) => Next::After(one.min(other)),
        (Next::Wait, other) => other,
        (one, _) => one,
    }
}

/// When a grant or session next begins or ends by itself.
fn ending(facts: &Facts, now: Timestamp) -> Next {
    let grants = facts.grants.iter().filter_map(|grant| grant.access.as_ref().ok());
    let grants = grants.flat_map(|grant| [grant.spec.valid_from, grant.spec.valid_until]);
    let sessions = facts.sessions.iter().filter_map(|session| session.access.as_ref().ok());
    let moments = grants.chain(sessions.map(|session| session.spec.expires_at)).flatten();
    // What has ended leaves the policy a while later.
    let moments = moments.flat_map(|moment| [moment, moment.plus(policy::GRACE)]);
    let first = moments.filter(|moment| *moment > now).min();
    first.map_or(Next::Wait, |first| {
        let left = u64::try_from(first.nanos().saturating_sub(now.nanos())).unwrap_or_default();
        // A moment later, so that it has passed then.
        Next::After((Duration::from_nanos(left) + Duration::from_millis(10)).min(ENDING_PAUSE_MAX))
    })
}
