//! The standalone reconciler: what the command line, the manifests and the platform API wish for becomes running servers, routes and
//! policies.
//!
//! ```text
//! --server, --manifests, objects ─► wishes ─► runners (processes, containers, or only looking)
//!                                         ─► policy documents, put in force at once
//!                                         ─► routes
//!                 status of objects ◄──────── what runners tell
//! ```
//!
//! One task does all of it, from the top, whenever something changed: an object was written, a file is another one, a server came up or
//! went down. What is in force already is left alone. A wish that cannot be met is told, in the status and in the log, and takes no
//! other down. Whatever cannot be read leaves what was in force before.

mod engine;
mod launch;
pub(crate) mod log;
mod probe;
mod process;
mod report;
mod runner;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use crds::render::Occasion;
use crds::server::{McpServerStatus, PolicyStatus};
use domain::operations::ServerStatus;
use domain::{Namespace, Timestamp};
use gateway::{Policy, PolicyCell, Route, RouteTable};
use http::Uri;
use platform_api::objects::embedded::EmbeddedObjects;
use platform_api::objects::manifests::every;
use platform_api::objects::{ObjectError, ObjectKind, Objects as _};
use service_kit::error::Chain;
use service_kit::{LogStore, Shutdown, Stage, Tasks};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::args::ServerArg;
use crate::folder::NamespaceKeys;
use launch::Launch;
use report::Found;
use runner::{Phase, Runner, State, Surroundings};
use wanted::{Kept, Origin, Wanted, Wishes, wishes};

/// How often the manifests folder is looked at. Its files' times and sizes are compared, so nothing is read while nothing changes.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Everything is gone through this often also when nothing changes, for what ends by itself.
const PASS_PAUSE: Duration = Duration::from_mins(10);
/// Pause after objects could not be read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long what ended is still told, so that callers learn why they are refused.
const GRACE: Duration = Duration::from_hours(24);

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the reconciler stands on.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Servers of the command line, and their namespace.
    pub(crate) given: Vec<ServerArg>,
    pub(crate) namespace: Namespace,
    /// Folder of YAML files.
    pub(crate) manifests: Option<PathBuf>,
    /// Where everything is reached.
    pub(crate) base: String,
    /// Folder for the logs of servers.
    pub(crate) logs: PathBuf,
    /// Folder that secrets are looked for in.
    pub(crate) secrets: PathBuf,
    /// Keys with which servers send events of their own.
    pub(crate) keys: NamespaceKeys,
}

/// The servers in force, for routing, showing and reading along. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Servers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    routes: RouteTable,
    shown: Mutex<Vec<ServerStatus>>,
    failing: Mutex<Vec<String>>,
    logs: Mutex<BTreeMap<Key, LogStore>>,
}

impl Servers {
    pub(crate) fn routes(&self) -> RouteTable {
        self.0.routes.clone()
    }

    pub(crate) fn shown(&self) -> Vec<ServerStatus> {
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The servers that do not answer.
    pub(crate) fn failing(&self) -> Vec<String> {
        self.0.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The logs of the servers of a name, which may be of one namespace.
    pub(crate) fn logs(&self, namespace: Option<&str>, name: &str) -> Vec<LogStore> {
        let logs = self.0.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let meant = |key: &Key| key.name == name && namespace.is_none_or(|namespace| namespace == key.namespace);
        logs.iter()
            .filter(|(key, _)| meant(key))
            .map(|(_, log)| log.clone())
            .collect()
    }
}

/// Puts everything wished for in force, and keeps it so until the process stops.
///
/// `Err`: the manifests folder or the objects cannot be read at all.
pub(crate) async fn start(settings: Settings, objects: Arc<EmbeddedObjects>, tasks: &Tasks) -> anyhow::Result<Servers> {
    let servers = Servers(Arc::new(Shared {
        routes: RouteTable::new(Vec::new()).context("making an empty table of routes")?,
        shown: Mutex::default(),
        failing: Mutex::default(),
        logs: Mutex::default(),
    }));
    let news = Arc::new(Notify::new());
    let changes = objects.changes();
    let mut reconciler = Reconciler {
        around: Surroundings {
            tasks: tasks.clone(),
            news: Arc::clone(&news),
            keys: settings.keys.clone(),
            search_path: engine::search_path(),
        },
        settings,
        objects,
        servers: servers.clone(),
        manifests: crds::Manifests::default(),
        seen: Vec::new(),
        kept: Kept::default(),
        read: 0,
        wishes: Wishes::default(),
        units: BTreeMap::new(),
        routed: Vec::new(),
        told: BTreeSet::new(),
    };
    reconciler.read_manifests()?;
    reconciler
        .read_objects()
        .await
        .context("reading servers, grants and sessions")?;
    reconciler.apply();
    reconciler.forget_old_logs();
    let (stop, pipeline) = (tasks.shutdown(Stage::Intake), tasks.shutdown(Stage::Pipeline));
    tasks.spawn(Stage::Pipeline, "reconciler", async move {
        reconciler.run(changes, &news, &stop).await;
        // Runners stop with their own stage, when nothing calls their servers any more: until then they are not to be dropped.
        pipeline.requested().await;
        Ok(())
    });
    Ok(servers)
}

/// One server as it is kept going.
#[derive(Debug)]
struct Unit {
    launch: Option<Launch>,
    runner: Option<Runner>,
    policy: PolicyCell,
    /// Revision of the document in force; absent when the server is not governed.
    revision: Option<String>,
    log: LogStore,
    status: Option<McpServerStatus>,
}

struct Reconciler {
    settings: Settings,
    objects: Arc<EmbeddedObjects>,
    servers: Servers,
    around: Surroundings,
    manifests: crds::Manifests,
    /// What the manifests folder looked like when it was read.
    seen: Vec<(PathBuf, Option<SystemTime>, u64)>,
    kept: Kept,
    /// The last write that is surely among what is kept.
    read: i64,
    wishes: Wishes,
    units: BTreeMap<Key, Unit>,
    /// Servers that have a route, and where it leads.
    routed: Vec<(Key, Uri)>,
    /// Faults that the log knows of.
    told: BTreeSet<String>,
}

impl Reconciler {
    async fn run(&mut self, mut changes: watch::Receiver<i64>, news: &Notify, stop: &Shutdown) {
        let (mut unread, mut passed) = (false, Instant::now());
        loop {
            let pause = match &self.settings.manifests {
                _ if unread => RETRY_PAUSE,
                Some(_) => LOOK_PAUSE,
                None => PASS_PAUSE,
            };
            tokio::select! {
                // The sender is ours: it lives as long as we do.
                _changed = changes.changed() => unread = true,
                () = news.notified() => {}
                () = sleep(pause) => {}
                () = stop.requested() => return,
            }
            let mut is_news = self.look_at_manifests();
            if unread {
                match self.read_objects().await {
                    Ok(()) => (unread, is_news) = (false, true),
                    Err(error) => {
                        tracing::error!(error = %Chain(&error), "servers, grants and sessions cannot be read; what was in force stays so");
                    }
                }
            }
            if is_news || passed.elapsed() >= PASS_PAUSE {
                self.apply();
                passed = Instant::now();
            } else {
                self.show();
            }
        }
    }

    async fn read_objects(&mut self) -> Result<(), ObjectError> {
        let objects = &*self.objects;
        // Taken before: what is written while we read may be missing.
        let revision = *objects.changes().borrow();
        let kept = Kept {
            servers: every(objects, ObjectKind::Server, None).await?,
            grants: every(objects, ObjectKind::Grant, None).await?,
            sessions: every(objects, ObjectKind::Session, None).await?,
        };
        (self.kept, self.read) = (kept, revision);
        Ok(())
    }

    /// Reads the manifests when they have changed. The last good ones stay in force: a folder that is being replaced must not cut off its
    /// servers.
    fn look_at_manifests(&mut self) -> bool {
        let Some(folder) = &self.settings.manifests else {
            return false;
        };
        if picture(folder) == self.seen {
            return false;
        }
        let read = self.read_manifests();
        if let Err(error) = &read {
            tracing::error!(
                error = format!("{error:#}"),
                "manifests not taken in; those known before stay in force"
            );
        }
        read.is_ok()
    }

    fn read_manifests(&mut self) -> anyhow::Result<()> {
        if let Some(folder) = &self.settings.manifests {
            self.seen = picture(folder);
            self.manifests = crds::read_manifests(folder)?;
        }
        Ok(())
    }

    /// Puts in force what is wished for.
    fn apply(&mut self) {
        let given = (self.settings.given.as_slice(), &self.settings.namespace);
        self.wishes = wishes(given, &self.manifests, &self.kept, &self.settings.secrets);
        self.tell_faults();
        self.retire();
        let wishes = std::mem::take(&mut self.wishes);
        for wanted in &wishes.servers {
            self.keep_running(wanted);
            self.govern(wanted, &wishes);
        }
        self.wishes = wishes;
        self.routed.clear();
        self.show();
        self.objects.note_in_force(self.read);
    }

    /// Each fault is told once, and again when it comes back.
    fn tell_faults(&mut self) {
        let mut faults = self.wishes.faults.clone();
        faults.extend(self.manifests.faults.iter().map(|fault| Chain(fault).to_string()));
        for fault in faults.difference(&self.told) {
            tracing::error!(fault, "left out");
        }
        self.told = faults;
    }

    /// Ends what nobody wants any more.
    fn retire(&mut self) {
        let wanted: BTreeSet<&Key> = self.wishes.servers.iter().map(|wanted| &wanted.key).collect();
        let gone: Vec<Key> = self.units.keys().filter(|key| !wanted.contains(key)).cloned().collect();
        for key in gone {
            tracing::info!(server = key.name, namespace = key.namespace, "server retired");
            // Dropping a unit drops its runner, which is the wish to stop.
            self.units.remove(&key);
            self.servers
                .0
                .logs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
        }
    }

    fn keep_running(&mut self, wanted: &Wanted) {
        let unit = self.units.entry(wanted.key.clone()).or_insert_with(|| {
            let log = log::store(self.around.tasks.clock());
            let mut logs = self.servers.0.logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.insert(wanted.key.clone(), log.clone());
            Unit {
                launch: None,
                runner: None,
                policy: PolicyCell::new(Policy::unavailable()),
                revision: None,
                log,
                status: None,
            }
        });
        let launch = wanted.launch.as_ref().ok();
        if unit.launch.as_ref() == launch {
            return;
        }
        unit.launch = launch.cloned();
        let before = unit.runner.take();
        let log = (self.settings.logs.join(folder_name(&wanted.key)), unit.log.clone());
        unit.runner = launch.map(|launch| Runner::start(&wanted.key, launch.clone(), before, log, &self.around));
    }

    /// Puts the policy of a server in force.
    fn govern(&mut self, wanted: &Wanted, wishes: &Wishes) {
        let now = self.now();
        let Some(unit) = self.units.get_mut(&wanted.key) else { return };
        if !wanted.server.spec.is_governed() {
            unit.revision = None;
            unit.policy.replace(Policy::observe());
            return;
        }
        let occasion = Occasion {
            cluster: "",
            now,
            grace: GRACE,
        };
        let document = crds::render(&wanted.server, &wishes.grants, &wishes.sessions, &occasion);
        if unit.revision.as_ref() == Some(&document.revision) {
            return;
        }
        let revision = document.revision.clone();
        unit.policy.apply(document);
        let policy = unit.policy.current();
        let (grants, sessions) = policy.size();
        tracing::info!(
            server = wanted.key.name,
            namespace = wanted.key.namespace,
            revision,
            grants,
            sessions,
            mode = policy.mode(),
            "policy in force"
        );
        unit.revision = Some(revision);
    }

    /// Routes to what runs, and tells how everything is.
    fn show(&mut self) {
        let states: BTreeMap<&Key, State> = self
            .units
            .iter()
            .filter_map(|(key, unit)| Some((key, unit.runner.as_ref()?.state())))
            .collect();
        let upstream = |wanted: &Wanted| states.get(&wanted.key).and_then(|state| state.upstream.clone());
        let routable = self.wishes.servers.iter().filter(|wanted| wanted.route.is_ok());
        let leading: Vec<(&Wanted, Uri)> = routable.filter_map(|wanted| Some((wanted, upstream(wanted)?))).collect();
        let routed: Vec<(Key, Uri)> = leading
            .iter()
            .map(|(wanted, upstream)| (wanted.key.clone(), upstream.clone()))
            .collect();
        if routed != self.routed || routed.is_empty() {
            let all: Vec<Route> = leading
                .into_iter()
                .filter_map(|(wanted, upstream)| self.route(wanted, upstream))
                .collect();
            match self.servers.0.routes.replace(all) {
                Ok(()) => self.routed = routed,
                // Each was tried alone before, so this is a fault of ours; the routes there are stay.
                Err(error) => tracing::error!(error = %Chain(&error), "routes not taken in"),
            }
        }
        let shown = self
            .wishes
            .servers
            .iter()
            .map(|wanted| self.line(wanted, states.get(&wanted.key)))
            .collect();
        *self.servers.0.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        let is_up = |wanted: &&Wanted| states.get(&wanted.key).is_some_and(|state| state.phase == Phase::Up);
        let failing = self
            .wishes
            .servers
            .iter()
            .filter(|wanted| !is_up(wanted))
            .map(|wanted| wanted.key.to_string())
            .collect();
        *self.servers.0.failing.lock().unwrap_or_else(PoisonError::into_inner) = failing;
        let states: BTreeMap<Key, State> = states.into_iter().map(|(key, state)| (key.clone(), state)).collect();
        self.report(&states);
    }

    fn route(&self, wanted: &Wanted, upstream: Uri) -> Option<Route> {
        let mut route = wanted.route(upstream);
        route.policy = self.units.get(&wanted.key)?.policy.clone();
        Some(route)
    }

    fn line(&self, wanted: &Wanted, state: Option<&State>) -> ServerStatus {
        let policy = self.units.get(&wanted.key).map(|unit| unit.policy.mode());
        let upstream = state.and_then(|state| state.upstream.as_ref());
        ServerStatus {
            name: wanted.key.name.clone(),
            namespace: wanted.key.namespace.clone(),
            url: self.url(wanted),
            upstream: upstream.map_or_else(|| "-".to_owned(), Uri::to_string),
            mode: policy.unwrap_or("observe").to_owned(),
        }
    }

    fn url(&self, wanted: &Wanted) -> String {
        format!("{}/{}/mcp", self.settings.base, wanted.server.prefix())
    }

    /// Tells the platform API how its servers are.
    fn report(&mut self, running: &BTreeMap<Key, State>) {
        let now = self.now();
        for wanted in &self.wishes.servers {
            let Origin::Object { uid, generation } = &wanted.origin else {
                continue;
            };
            let url = self.url(wanted);
            let Some(unit) = self.units.get_mut(&wanted.key) else {
                continue;
            };
            let found = Found {
                wanted,
                url,
                generation: *generation,
                state: running.get(&wanted.key),
                policy: policy_of(unit),
            };
            let status = report::status(&found, unit.status.as_ref(), now);
            if unit.status.as_ref() != Some(&status) {
                match serde_json::to_value(&status) {
                    Ok(value) => self.objects.set_status(uid, value),
                    Err(error) => tracing::error!(%error, "a status cannot be written"),
                }
                unit.status = Some(status);
            }
        }
    }

    /// Removes the logs of servers that were retired before this process began.
    fn forget_old_logs(&self) {
        let wanted: BTreeSet<String> = self.units.keys().map(folder_name).collect();
        let Ok(entries) = std::fs::read_dir(&self.settings.logs) else {
            return;
        };
        for entry in entries
            .flatten()
            .filter(|entry| !wanted.contains(&*entry.file_name().to_string_lossy()))
        {
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "the log of a retired server cannot be removed");
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.around.tasks.clock().unix_ns())
    }
}

fn policy_of(unit: &Unit) -> Option<PolicyStatus> {
    let (grants, sessions) = unit.policy.current().size();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    unit.revision.clone().map(|revision| PolicyStatus {
        revision: Some(revision),
        active_replicas: Some(1),
        grants: count(grants),
        sessions: count(sessions),
    })
}

/// Neither part has a dot.
fn folder_name(key: &Key) -> String {
    format!("{}.{}", key.namespace, key.name)
}

/// Names, times and sizes of a folder's files: enough to see a change.
fn picture(folder: &Path) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let facts = |entry: &std::fs::DirEntry| entry.metadata().ok().map(|facts| (facts.modified().ok(), facts.len()));
    let mut files: Vec<_> = entries
        .flatten()
        .filter_map(|entry| facts(&entry).map(|(modified, bytes)| (entry.path(), modified, bytes)))
        .collect();
    files.sort();
    files
}
