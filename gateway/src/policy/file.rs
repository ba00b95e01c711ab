//! A policy that comes as a file: looked at often, read when it changed, and put in force when it can be read.
//!
//! A file that is missing, empty or wrong leaves the last good policy in force until that is too old; then everything is refused. Before
//! the first good one everything is refused, too.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use domain::policy::{Document, DocumentError};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use service_kit::error::Chain;
use service_kit::{Stage, Tasks};
use tokio::time::Instant;

use super::{Policy, PolicyCell};

/// How often the file is looked at: a change must be in force within a second.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Larger files are no policies.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Where the policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFileConfig {
    pub path: PathBuf,
    /// How long the last good policy stays in force when the file cannot be read any more; `None`: for ever.
    pub age_max: Option<Duration>,
}

/// Why a file was not put in force.
#[derive(Debug, thiserror::Error)]
enum ReadFault {
    #[error("reading the policy file")]
    File(#[source] std::io::Error),
    #[error("the policy file has {0} bytes, at most {FILE_BYTES_MAX} are read")]
    TooLarge(u64),
    #[error("taking in the policy file")]
    Document(#[source] DocumentError),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Active {
    revision: String,
    schema_version: &'static str,
}

#[derive(Debug, Default)]
struct Metrics {
    reloads: Family<Reload, Counter>,
    active: Family<Active, Gauge>,
    last_success: Gauge,
}

/// Time and size: enough to see a change.
type Picture = Option<(SystemTime, u64)>;

struct Watcher {
    config: PolicyFileConfig,
    cell: PolicyCell,
    metrics: std::sync::Arc<Metrics>,
    clock: service_kit::Clock,
    ready: service_kit::ReadinessFlag,
    seen: Picture,
    /// When the file was last known to be good.
    good: Option<Instant>,
    faulty: bool,
    too_old: bool,
}

/// Puts the policy of a file in force, now and whenever it changes. Until it can be read, the process is not ready.
pub async fn watch_file(config: PolicyFileConfig, cell: PolicyCell, tasks: &Tasks) {
    let metrics = tasks.metrics().register("mcp_gateway", |registry| {
        let all = Metrics::default();
        registry.register("policy_reloads", "Policy files read, by result", all.reloads.clone());
        registry.register(
            "policy_active_revision_info",
            "Revision of the policy in force",
            all.active.clone(),
        );
        registry.register(
            "policy_last_success_timestamp_seconds",
            "When a policy file was last known to be good",
            all.last_success.clone(),
        );
        all
    });
    cell.replace(Policy::unavailable());
    let mut watcher = Watcher {
        config,
        cell,
        metrics,
        clock: tasks.clock().clone(),
        ready: tasks.readiness("policy"),
        seen: None,
        good: None,
        faulty: false,
        too_old: false,
    };
    watcher.look().await;
    let stop = tasks.shutdown(Stage::Intake);
    tasks.spawn(Stage::Intake, "policy file", async move {
        while stop.or(tokio::time::sleep(LOOK_PAUSE)).await.is_some() {
            watcher.look().await;
        }
        Ok(())
    });
}

impl Watcher {
    async fn look(&mut self) {
        let picture = tokio::fs::metadata(&self.config.path).await.ok();
        let picture = picture.and_then(|facts| Some((facts.modified().ok()?, facts.len())));
        if picture == self.seen && !self.faulty && picture.is_some() {
            return self.is_good();
        }
        let is_news = picture != self.seen || (!self.faulty && self.good.is_none());
        self.seen = picture;
        match self.read().await {
            Ok(document) => self.take_in(document),
            Err(fault) => self.refuse(&fault, is_news),
        }
    }

    async fn read(&self) -> Result<Document, ReadFault> {
        let bytes = self.seen.map_or(0, |(_, bytes)| bytes);
        if bytes > FILE_BYTES_MAX {
            return Err(ReadFault::TooLarge(bytes));
        }
        let text = tokio::fs::read(&self.config.path).await.map_err(ReadFault::File)?;
        let (document, faults) = Document::parse(&text).map_err(ReadFault::Document)?;
        for fault in &faults {
            tracing::error!(
                place = fault.place,
                fault = fault.message,
                "an entry of the policy is left out"
            );
        }
        Ok(document)
    }

    fn take_in(&mut self, document: Document) {
        self.faulty = false;
        self.count("success");
        let revision = document.revision.clone();
        if revision != self.cell.current().revision() || self.too_old || self.good.is_none() {
            self.cell.apply(document);
            let policy = self.cell.current();
            let (grants, sessions) = policy.size();
            tracing::info!(revision, grants, sessions, mode = policy.mode(), "policy in force");
            self.metrics.active.clear();
            let schema_version = domain::policy::document::SCHEMA_VERSION;
            let active = Active {
                revision,
                schema_version,
            };
            self.metrics.active.get_or_create(&active).set(1);
        }
        self.too_old = false;
        self.is_good();
        self.ready.set_ready();
    }

    fn is_good(&mut self) {
        self.good = Some(Instant::now());
        self.metrics.last_success.set(self.clock.unix_ns() / 1_000_000_000);
    }

    fn refuse(&mut self, fault: &ReadFault, is_news: bool) {
        self.faulty = true;
        if is_news {
            self.count("error");
            tracing::error!(path = %self.config.path.display(), error = %Chain(fault), "policy not taken in; the one before stays in force");
        }
        let is_old = match (self.good, self.config.age_max) {
            (None, _) => true,
            (Some(good), Some(age_max)) => good.elapsed() > age_max,
            (Some(_), None) => false,
        };
        if is_old && !self.too_old {
            self.too_old = true;
            self.ready.set_not_ready("there is no policy, or only one that is too old");
            self.cell.replace(Policy::unavailable());
            if self.good.is_some() {
                tracing::error!("the last good policy is too old; everything is refused until there is another");
            }
        }
    }

    fn count(&self, result: &'static str) {
        self.metrics.reloads.get_or_create(&Reload { result }).inc();
    }
}
