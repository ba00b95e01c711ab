//! Keeps the world equal to what the API server holds.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use service_kit::{ReadinessFlag, Shutdown};
use tokio::sync::watch;

use crate::apply::trimmed;
use crate::object::{Key, Kind};
use crate::queue::Queue;
use crate::world::{Change, World};
use crate::{MANAGED_BY, MANAGED_BY_US};

/// The world, shared between watches and workers. Held for the time of a lookup only.
#[derive(Debug, Clone)]
pub struct SharedWorld(Arc<Mutex<World>>);

impl SharedWorld {
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// Looks at the world, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which kinds are known completely. Nobody may write before all are: what is not known yet would look as if it were not there.
#[derive(Debug)]
pub struct Synced {
    seen: watch::Sender<HashSet<Kind>>,
    wanted: usize,
    flag: ReadinessFlag,
}

impl Synced {
    pub fn new(wanted: usize, flag: ReadinessFlag) -> Self {
        Self {
            seen: watch::Sender::default(),
            wanted,
            flag,
        }
    }

    fn set(&self, kind: Kind) {
        self.seen.send_modify(|seen| {
            seen.insert(kind);
            if seen.len() >= self.wanted {
                self.flag.set_ready();
            }
        });
    }

    /// Resolves once every kind is known.
    pub async fn wait(&self) {
        let mut seen = self.seen.subscribe();
        // The sender lives as long as this.
        let _closed = seen.wait_for(|seen| seen.len() >= self.wanted).await;
    }
}

/// Follows one kind until shutdown. Faults are logged and tried again, with growing pauses.
pub async fn follow(client: Client, kind: Kind, world: SharedWorld, queue: Arc<Queue>, synced: Arc<Synced>, stop: Shutdown) {
    let api: Api<DynamicObject> = Api::all_with(client, &kind.resource());
    let config = match kind {
        Kind::Server | Kind::Grant | Kind::Session => watcher::Config::default(),
        _ => watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGED_BY_US}")),
    };
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut listed: Option<HashSet<Key>> = None;
    while let Some(Some(event)) = stop.or(events.next()).await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%kind, error = service_kit::error::Chain(&error).to_string(), "watching failed; trying again");
                continue;
            }
        };
        let touched = match event {
            Event::Init => {
                listed = Some(HashSet::new());
                continue;
            }
            Event::InitApply(object) => {
                let object = trimmed(kind, object);
                if let Some(listed) = &mut listed {
                    listed.insert(Key::of(&object));
                }
                world.with(|world| world.observe(kind, Change::Set(object)))
            }
            Event::InitDone => {
                let listed = listed.take().unwrap_or_default();
                let touched = world.with(|world| {
                    let gone: Vec<Key> = world.names(kind).into_iter().filter(|key| !listed.contains(key)).collect();
                    gone.into_iter()
                        .flat_map(|key| world.observe(kind, Change::Gone(key)))
                        .collect()
                });
                synced.set(kind);
                touched
            }
            Event::Apply(object) => world.with(|world| world.observe(kind, Change::Set(trimmed(kind, object)))),
            Event::Delete(object) => {
                let key = Key::new(object.namespace().unwrap_or_default(), object.name_any());
                world.with(|world| world.observe(kind, Change::Gone(key)))
            }
        };
        queue.add(touched);
    }
}
