//! Which MCP servers are behind the gateway: those of the command line, and those of the manifests folder while it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use domain::operations::ServerStatus;
use gateway::{Recording, Route, RouteTable};
use service_kit::{Shutdown, Stage, Tasks};

use crate::args::{Config, RESERVED, ServerArg, parse_upstream};

/// How often the manifests folder is looked at. Its files' times and sizes are compared, so nothing is read while nothing changes.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// The servers in force, for routing and for showing.
#[derive(Debug, Clone)]
pub(crate) struct Servers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    given: Vec<ServerArg>,
    namespace: String,
    manifests: Option<PathBuf>,
    base: String,
    routes: RouteTable,
    shown: Mutex<Vec<ServerStatus>>,
}

impl Servers {
    /// Reads the manifests once and makes the routes. A fault in one file is logged and takes no other down; a folder that cannot
    /// be read is an error.
    pub(crate) fn open(config: &Config, base: &str) -> anyhow::Result<Self> {
        let routes = RouteTable::new(Vec::new()).context("making an empty table of routes")?;
        let servers = Self(Arc::new(Shared {
            given: config.servers.clone(),
            namespace: config.namespace.as_str().to_owned(),
            manifests: config.manifests.clone(),
            base: base.to_owned(),
            routes,
            shown: Mutex::default(),
        }));
        servers.reload()?;
        Ok(servers)
    }

    pub(crate) fn routes(&self) -> RouteTable {
        self.0.routes.clone()
    }

    pub(crate) fn shown(&self) -> Vec<ServerStatus> {
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Watches the manifests folder until the process stops.
    pub(crate) fn watch(&self, tasks: &Tasks) {
        let Some(folder) = self.0.manifests.clone() else { return };
        let (servers, stop) = (self.clone(), tasks.shutdown(Stage::Intake));
        tasks.spawn(Stage::Intake, "manifests", async move { servers.look(&folder, &stop).await });
    }

    async fn look(&self, folder: &Path, stop: &Shutdown) -> anyhow::Result<()> {
        let mut seen = picture(folder);
        while stop.or(tokio::time::sleep(LOOK_PAUSE)).await.is_some() {
            let now = picture(folder);
            if now == seen {
                continue;
            }
            seen = now;
            // The last good routes stay in force: a folder that is being replaced must not cut off its servers.
            if let Err(error) = self.reload() {
                tracing::error!(
                    error = format!("{error:#}"),
                    "manifests not taken in; the servers known before stay in force"
                );
            }
        }
        Ok(())
    }

    fn reload(&self) -> anyhow::Result<()> {
        let mut routes: Vec<Route> = self.0.given.iter().map(|server| self.route_of(server)).collect();
        if let Some(folder) = &self.0.manifests {
            let (servers, faults) = crds::read_servers(folder)?;
            for fault in faults {
                tracing::error!(error = service_kit::error::Chain(&fault).to_string(), "manifest left out");
            }
            for server in &servers {
                match route_of_manifest(server, &routes) {
                    Ok(route) => routes.push(route),
                    Err(why) => {
                        tracing::error!(server = %server.metadata.name, namespace = %server.metadata.namespace, why, "server left out");
                    }
                }
            }
        }
        let shown = routes.iter().map(|route| self.show(route)).collect();
        self.0.routes.replace(routes).context("taking in the servers")?;
        *self.0.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    fn route_of(&self, server: &ServerArg) -> Route {
        Route::new(server.name.as_str(), self.0.namespace.as_str(), server.upstream.clone()).at(server.name.as_str())
    }

    fn show(&self, route: &Route) -> ServerStatus {
        ServerStatus {
            name: route.server.clone(),
            namespace: route.namespace.clone(),
            url: format!("{}/{}/mcp", self.0.base, route.prefix),
            upstream: route.upstream.to_string(),
            mode: "observe".to_owned(),
        }
    }
}

/// The route of a manifest, or why it has none.
fn route_of_manifest(server: &crds::McpServer, others: &[Route]) -> Result<Route, String> {
    let prefix = server.prefix();
    if RESERVED.contains(&prefix) {
        return Err(format!(
            "its prefix {prefix:?} is a route of mcp-runtime itself; set spec.publicPathPrefix"
        ));
    }
    if let Some(first) = others.iter().find(|route| route.prefix == prefix) {
        return Err(format!(
            "its prefix {prefix:?} belongs to server {} of namespace {}",
            first.server, first.namespace
        ));
    }
    let upstream = server.upstream();
    let uri = parse_upstream(&upstream)
        .ok_or_else(|| format!("spec.gateway.upstreamURL {upstream:?} is not an http or https URL with a host"))?;
    let mut route = Route::new(server.metadata.name.as_str(), server.metadata.namespace.as_str(), uri).at(prefix);
    route.team_id.clone_from(&server.spec.team_id);
    if let Some(analytics) = &server.spec.analytics {
        route.source.clone_from(&analytics.source);
        route.event_type.clone_from(&analytics.event_type);
        if analytics.disabled {
            route.recording = Recording::Off;
        }
    }
    Ok(route)
}

/// Names, times and sizes of a folder's files: enough to see a change.
fn picture(folder: &Path) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            entry
                .metadata()
                .ok()
                .map(|facts| (entry.path(), facts.modified().ok(), facts.len()))
        })
        .collect();
    files.sort();
    files
}
