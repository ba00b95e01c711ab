//! Alerts: reads the file of rules, measures what each asks for, and tells webhooks when a rule begins or ends to fire.
//!
//! The judgement is [`domain::alerts::Rule::judge`]; here is what it needs. One task measures rule after rule, so that many rules
//! never crowd out people's questions; another delivers notices, so that a slow webhook delays no judgement.

mod file;
mod notice;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use domain::Timestamp;
use domain::alerts::{AlertState, AlertStatus, AlertsReport, Bound, Measured, Rule};
use domain::operations::PipelineStatus;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use sentinel_store::Reader;
use sentinel_store::query::{Filter, Scope, UsageQuery};
use service_kit::{Clock, Metrics, Stage, Tasks};

use crate::operations::Operations;
use file::{FileRule, Webhook};
use notice::Notices;

/// Where rules come from and how often they are judged.
#[derive(Clone, Debug)]
pub(crate) struct AlertsConfig {
    /// The file of rules. One that does not exist (yet) is no rules.
    pub(crate) file: PathBuf,
    /// Time between two rounds.
    pub(crate) interval: Duration,
    /// Longest time one measurement may take.
    pub(crate) query_time_max: Duration,
}

/// How the rules stand. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alerts(Arc<Mutex<Board>>);

#[derive(Debug, Default)]
struct Board {
    file: Option<PathBuf>,
    faults: Vec<String>,
    alerts: Vec<AlertStatus>,
}

#[derive(Debug, Default)]
struct AlertMetrics {
    firing: Gauge,
    rounds: Counter,
    unmeasured: Counter,
}

impl AlertMetrics {
    fn shared(metrics: &Metrics) -> Arc<Self> {
        metrics.register("platform_api_alerts", |registry| {
            let made = Self::default();
            registry.register("firing", "Rules whose bound is crossed", made.firing.clone());
            registry.register("rounds", "Times that every rule was judged", made.rounds.clone());
            registry.register(
                "unmeasured",
                "Judgements that were not made because a measurement failed",
                made.unmeasured.clone(),
            );
            made
        })
    }
}

impl Alerts {
    /// Judges the rules of a file until the process stops.
    pub(crate) fn watch(config: AlertsConfig, reader: Arc<dyn Reader>, operations: Arc<dyn Operations>, tasks: &Tasks) -> Self {
        let alerts = Self::default();
        alerts.board().file = Some(config.file.clone());
        let notices = Notices::start(tasks);
        let mut watcher = Watcher {
            alerts: alerts.clone(),
            reader,
            operations,
            notices,
            clock: tasks.clock().clone(),
            metrics: AlertMetrics::shared(tasks.metrics()),
            config,
            seen: None,
            rules: Vec::new(),
            standing: HashMap::new(),
        };
        let shutdown = tasks.shutdown(Stage::Query);
        tasks.spawn(Stage::Query, "alerts", async move {
            let mut rounds = tokio::time::interval(watcher.config.interval);
            rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = shutdown.requested() => return Ok(()),
                    _ = rounds.tick() => {}
                }
                tokio::select! {
                    () = shutdown.requested() => return Ok(()),
                    () = watcher.round() => {}
                }
            }
        });
        alerts
    }

    /// Every rule and how it stands.
    pub(crate) fn report(&self, as_of: Timestamp) -> AlertsReport {
        let board = self.board();
        AlertsReport {
            alerts: board.alerts.clone(),
            faults: board.faults.clone(),
            file: board.file.as_ref().map(|file| file.display().to_string()),
            as_of,
        }
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a rule stood in the round before.
#[derive(Clone, Debug)]
struct Standing {
    state: AlertState,
    since: Timestamp,
    /// Whether people were told that it fires, and not yet that it ended. Too little data ends no alert.
    told: bool,
}

struct Watcher {
    alerts: Alerts,
    reader: Arc<dyn Reader>,
    operations: Arc<dyn Operations>,
    notices: Notices,
    clock: Clock,
    metrics: Arc<AlertMetrics>,
    config: AlertsConfig,
    /// Time and length of the file that was read last.
    seen: Option<(SystemTime, u64)>,
    rules: Vec<FileRule>,
    standing: HashMap<String, Standing>,
}

impl Watcher {
    async fn round(&mut self) {
        self.read_changed_file().await;
        let now = Timestamp::from_nanos(self.clock.unix_ns());
        let pipeline = self.pipeline().await;
        let mut alerts = Vec::with_capacity(self.rules.len());
        for FileRule { rule, webhook } in self.rules.clone() {
            let measured = self.measure(&rule, now, pipeline.as_ref()).await;
            alerts.push(self.stand(rule, webhook, measured, now));
        }
        let firing = alerts.iter().filter(|alert| alert.state == AlertState::Firing).count();
        self.metrics.firing.set(i64::try_from(firing).unwrap_or(i64::MAX));
        self.metrics.rounds.inc();
        alerts.sort_by(|a, b| {
            let calm = |alert: &AlertStatus| alert.state != AlertState::Firing;
            (calm(a), &a.rule.name).cmp(&(calm(b), &b.rule.name))
        });
        self.alerts.board().alerts = alerts;
    }

    /// Takes over the rules of a file that changed. One that cannot be read leaves the rules before in force.
    async fn read_changed_file(&mut self) {
        let seen = tokio::fs::metadata(&self.config.file)
            .await
            .ok()
            .and_then(|file| Some((file.modified().ok()?, file.len())));
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        let read = match seen {
            None => Ok((Vec::new(), Vec::new())),
            Some((_, bytes)) => file::read(&self.config.file, bytes).await,
        };
        match read {
            Ok((rules, faults)) => {
                tracing::info!(rules = rules.len(), faults = faults.len(), "alert rules read");
                self.standing
                    .retain(|name, _| rules.iter().any(|known| known.rule.name == *name));
                self.rules = rules;
                self.alerts.board().faults = faults;
            }
            Err(fault) => {
                tracing::warn!(fault, "alert rules not read; those before stay in force");
                self.alerts.board().faults = vec![fault];
            }
        }
    }

    /// How the pipeline is, if any rule asks.
    async fn pipeline(&self) -> Option<PipelineStatus> {
        if !self.rules.iter().any(|known| known.rule.metric.of_pipeline()) {
            return None;
        }
        let asked = tokio::time::timeout(self.config.query_time_max, self.operations.system_status()).await;
        asked.ok()?.ok().map(|status| status.pipeline)
    }

    async fn measure(&self, rule: &Rule, now: Timestamp, pipeline: Option<&PipelineStatus>) -> Result<Measured, String> {
        if rule.metric.of_pipeline() {
            let pipeline = pipeline.ok_or("the state of the pipeline could not be read")?;
            return Ok(Measured {
                value: rule.metric.of_status(pipeline),
                before: None,
                calls: 0,
            });
        }
        let (calls, value) = self.calls(rule, now).await?;
        let before = match rule.bound {
            Bound::ChangesBy(_) => self.calls(rule, now.minus(rule.window())).await?.1,
            Bound::Above(_) | Bound::Below(_) => None,
        };
        Ok(Measured { value, before, calls })
    }

    /// Calls in the window that ends at `until`, and the metric over them.
    async fn calls(&self, rule: &Rule, until: Timestamp) -> Result<(u64, Option<f64>), String> {
        let query = UsageQuery {
            filter: Filter {
                since: Some(until.minus(rule.window())),
                until: Some(until),
                equals: rule
                    .filter
                    .iter()
                    .map(|(column, values)| (column.clone(), values.clone()))
                    .collect(),
                ..Filter::all(Scope::All)
            },
            limit: 0,
            step: rule.window(),
        };
        match tokio::time::timeout(self.config.query_time_max, self.reader.usage(query)).await {
            Ok(Ok(usage)) => Ok((usage.totals.calls.events, rule.metric.of_calls(&usage.totals.calls))),
            Ok(Err(error)) => {
                tracing::warn!(
                    rule = rule.name,
                    error = &error as &dyn std::error::Error,
                    "measuring an alert rule"
                );
                Err("the store could not answer".to_owned())
            }
            Err(_late) => Err(format!(
                "the store took longer than {} s",
                self.config.query_time_max.as_secs()
            )),
        }
    }

    /// How a rule stands after a measurement. Without one it stands as before: a store that is away neither fires nor ends an alert.
    fn stand(
        &mut self,
        rule: Rule,
        webhook: Option<Arc<Webhook>>,
        measured: Result<Measured, String>,
        now: Timestamp,
    ) -> AlertStatus {
        let before = self.standing.get(&rule.name).cloned();
        let state = if let Ok(measured) = &measured {
            rule.judge(*measured)
        } else {
            self.metrics.unmeasured.inc();
            before.as_ref().map_or(AlertState::NoData, |before| before.state)
        };
        let since = match &before {
            Some(before) if before.state == state => before.since,
            _ => now,
        };
        let value = measured.as_ref().ok().and_then(|measured| measured.value);
        let was_told = before.is_some_and(|before| before.told);
        let told = match state {
            AlertState::Firing => true,
            AlertState::Ok => false,
            AlertState::NoData => was_told,
        };
        if let Some(webhook) = &webhook
            && told != was_told
        {
            self.notices.send(webhook, &rule, state, now, value);
        }
        self.standing.insert(rule.name.clone(), Standing { state, since, told });
        AlertStatus {
            state,
            since: Some(since),
            value,
            before: measured.as_ref().ok().and_then(|measured| measured.before),
            evaluated_at: Some(now),
            fault: measured.err(),
            webhook: webhook.map(|webhook| webhook.status()),
            rule,
        }
    }
}
