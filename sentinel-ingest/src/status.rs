//! What ingest has done since it started, for the status page of the same process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use domain::Timestamp;
use serde::Serialize;

/// Tells how ingest is doing. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct IngestStatus(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    duplicates: AtomicU64,
    bytes: AtomicU64,
    /// Codes come from closed sets, so this stays small.
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    last_error: Mutex<Option<LastError>>,
}

/// Counts since start, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct IngestSnapshot {
    /// Events made durable.
    pub accepted: u64,
    /// Events repeated within one body.
    pub duplicates: u64,
    /// Events refused one by one, by code.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Requests refused as a whole, by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// Bytes of bodies as sent.
    pub bytes: u64,
    /// The last fault on our side.
    pub last_error: Option<LastError>,
}

/// Why events could last not be taken, when that was nothing the sender did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    pub at: Timestamp,
    pub message: String,
}

impl IngestStatus {
    pub fn snapshot(&self) -> IngestSnapshot {
        let copy = |counts: &Mutex<BTreeMap<_, _>>| counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        IngestSnapshot {
            accepted: self.0.accepted.load(Ordering::Relaxed),
            duplicates: self.0.duplicates.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
            rejected: copy(&self.0.rejected),
            refused: copy(&self.0.refused),
            last_error: self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(crate) fn accepted(&self, events: usize) {
        self.0.accepted.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(crate) fn duplicates(&self, events: usize) {
        self.0.duplicates.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, code: &'static str, events: usize) {
        add(&self.0.rejected, code, events as u64);
    }

    pub(crate) fn refused(&self, code: &'static str) {
        add(&self.0.refused, code, 1);
    }

    pub(crate) fn failed(&self, at: Timestamp, message: String) {
        let error = LastError { at, message };
        *self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

fn add(counts: &Mutex<BTreeMap<&'static str, u64>>, code: &'static str, count: u64) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += count;
}
