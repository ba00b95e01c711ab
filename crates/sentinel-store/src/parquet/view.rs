//! What readers see: one moment of the database, files and memory together, kept for as long as somebody looks at it.

use std::sync::Arc;

use domain::Timestamp;

use super::files::DataFile;
use super::hot::Generation;
use super::manifest::Manifest;
use super::schema::Table;
use crate::query::Watermark;

/// One moment. Replaced as a whole, so that rows moving from memory to files are never seen twice or not at all.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) manifest: Arc<Manifest>,
    pub(super) files: Arc<Vec<Arc<DataFile>>>,
    /// On its way to files.
    pub(super) frozen: Option<Arc<Generation>>,
    /// Takes inserts.
    pub(super) active: Arc<Generation>,
    pub(super) watermark: Watermark,
}

impl View {
    /// Memory that hot rows take.
    pub(super) fn hot_bytes(&self) -> usize {
        self.hot().map(|generation| generation.bytes()).sum()
    }

    /// Generations in memory, oldest first.
    pub(super) fn hot(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.frozen.iter().chain(std::iter::once(&self.active))
    }

    /// The files of a table.
    pub(super) fn files_of(&self, table: Table) -> impl Iterator<Item = &Arc<DataFile>> {
        self.files.iter().filter(move |file| file.entry.table == table)
    }

    /// What is stored, in numbers.
    pub(super) fn stored(&self) -> Stored {
        let mut stored = Stored {
            files: self.files.len() as u64,
            ..Stored::default()
        };
        let mut time = |min: Timestamp, max: Timestamp| {
            stored.oldest = Some(stored.oldest.map_or(min, |oldest: Timestamp| oldest.min(min)));
            stored.newest = Some(stored.newest.map_or(max, |newest: Timestamp| newest.max(max)));
        };
        for file in self.files_of(Table::Events) {
            time(
                Timestamp::from_nanos(file.entry.time_min),
                Timestamp::from_nanos(file.entry.time_max),
            );
        }
        for (min, max) in self.hot().filter_map(|generation| generation.times) {
            time(min, max);
        }
        stored.bytes = self.files.iter().map(|file| file.entry.bytes).sum();
        stored.events_in_memory = self.hot().map(|generation| generation.events).sum();
        stored.events = stored.events_in_memory + self.files_of(Table::Events).map(|file| file.entry.rows).sum::<u64>();
        stored.faults = self.files.iter().filter_map(|file| file.fault().map(str::to_owned)).collect();
        stored
    }
}

/// What is stored, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// Events, those in memory included.
    pub events: u64,
    /// Events that are in no file yet.
    pub events_in_memory: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Time of the oldest event.
    pub oldest: Option<Timestamp>,
    /// Time of the newest event.
    pub newest: Option<Timestamp>,
    /// Files that cannot be read: what is wrong with each, and what to do.
    pub faults: Vec<String>,
}
