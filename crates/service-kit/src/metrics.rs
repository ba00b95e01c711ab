//! Counters and gauges of every service in the process, in one registry.
//!
//! A service calls [`Metrics::register`] with its crate as prefix and gets its metrics back, shared; a second instance of the
//! service in the same process gets the same ones. Names are `<crate>_<noun>_<unit>`, labels come from closed enums only.

mod process;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The content type of what [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Groups>>);

struct Groups {
    registry: Registry,
    by_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with the metrics of the process itself (memory, processor time, open files).
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::ProcessCollector));
        Self(Arc::new(Mutex::new(Groups {
            registry,
            by_type: HashMap::new(),
        })))
    }

    /// The metrics of type `T`, made by `build` at the first call and shared by every later one.
    ///
    /// `build` registers what it makes; names get the prefix `<prefix>_`, which is the crate, such as `sentinel_ingest`. Do not
    /// call `register` again from within `build`.
    pub fn register<T>(&self, prefix: &str, build: impl FnOnce(&mut Registry) -> T) -> Arc<T>
    where
        T: Any + Send + Sync,
    {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = groups.by_type.get(&TypeId::of::<T>()).cloned();
        if let Some(group) = known.and_then(|group| group.downcast::<T>().ok()) {
            return group;
        }
        let group = Arc::new(build(groups.registry.sub_registry_with_prefix(prefix)));
        let stored: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(&group);
        groups.by_type.insert(TypeId::of::<T>(), stored);
        group
    }

    /// Every metric as `OpenMetrics` text, which Prometheus reads.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &groups.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
