//! Log records on disk, so that what a run wrote can be read by the next one.
//!
//! A folder holds up to four files of JSON lines: `current.ndjson` and `current.1.ndjson` of this run, the older half under `.1`,
//! and `previous*.ndjson` of the run before. Nothing is synced: what a killed process wrote is in the page cache and survives it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt as _;
use prometheus_client::metrics::counter::Counter;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{LogFilter, LogRecord, LogStore};
use crate::error::Chain;
use crate::tasks::{Stage, Tasks};

/// Files of one run, the older first.
const HALVES: [&str; 2] = [".1.ndjson", ".ndjson"];

/// What the run before this one wrote.
#[derive(Clone, Debug)]
pub struct PreviousLog(PathBuf);

impl PreviousLog {
    /// Writes this run's records into `folder` from now on, at most about `bytes_max` bytes of the newest, and keeps those of the run
    /// before readable. `Err`: the folder cannot be used.
    pub async fn keep(folder: &Path, bytes_max: u64, store: &LogStore, tasks: &Tasks) -> io::Result<Self> {
        fs::create_dir_all(folder).await?;
        for half in HALVES {
            let (current, previous) = (file(folder, "current", half), file(folder, "previous", half));
            remove(&previous).await?;
            match fs::rename(&current, &previous).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        let mut writer = Writer::open(folder.to_owned(), bytes_max / 2).await?;
        let lost = lost_counter(tasks);
        let shutdown = tasks.shutdown(Stage::Admin);
        let mut records = Box::pin(store.follow(LogFilter::default()));
        tasks.spawn(Stage::Admin, "log file", async move {
            let mut well = true;
            while let Some(Some(record)) = shutdown.or(records.next()).await {
                let written = writer.write(&record).await;
                if let Err(error) = &written {
                    lost.inc();
                    // Told once: this very line comes back here to be written.
                    if well {
                        tracing::warn!(error = %Chain(error), "the log cannot be kept on disk; its newest lines are still in memory");
                    }
                }
                well = written.is_ok();
            }
            Ok(())
        });
        Ok(Self(folder.to_owned()))
    }

    /// The records of the run before that pass, oldest first. None when there was no such run. Lines that are not records (a torn
    /// last one) are left out.
    pub async fn read(&self, filter: &LogFilter) -> io::Result<Vec<Arc<LogRecord>>> {
        read_run(&self.0, "previous", filter).await
    }
}

async fn read_run(folder: &Path, run: &str, filter: &LogFilter) -> io::Result<Vec<Arc<LogRecord>>> {
    let mut records = Vec::new();
    for half in HALVES {
        let file = match File::open(file(folder, run, half)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let mut lines = BufReader::new(file).split(b'\n');
        while let Some(line) = lines.next_segment().await? {
            let record = serde_json::from_slice::<LogRecord>(&line).ok();
            records.extend(record.filter(|record| filter.passes(record)).map(Arc::new));
        }
    }
    Ok(filter.select(records))
}

/// A log on disk of somebody else than this process, such as a program that it runs: two files, of which the older is given up for the
/// next. It goes on where an earlier process left it.
#[derive(Debug)]
pub struct LogFile(Writer);

impl LogFile {
    /// Opens the log of a folder, to hold at most about `bytes_max` bytes of the newest records; gives those that are there, oldest
    /// first.
    pub async fn open(folder: &Path, bytes_max: u64) -> io::Result<(Self, Vec<Arc<LogRecord>>)> {
        fs::create_dir_all(folder).await?;
        let records = read_run(folder, "current", &LogFilter::default()).await?;
        let writer = Writer::open(folder.to_owned(), bytes_max / 2).await?;
        Ok((Self(writer), records))
    }

    /// Appends a record.
    pub async fn write(&mut self, record: &LogRecord) -> io::Result<()> {
        self.0.write(record).await
    }
}

#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    half_bytes_max: u64,
    current: File,
    bytes: u64,
}

impl Writer {
    async fn open(folder: PathBuf, half_bytes_max: u64) -> io::Result<Self> {
        let path = file(&folder, "current", ".ndjson");
        let current = OpenOptions::new().create(true).append(true).open(path).await?;
        Ok(Self {
            bytes: current.metadata().await?.len(),
            folder,
            half_bytes_max,
            current,
        })
    }

    async fn write(&mut self, record: &LogRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.bytes >= self.half_bytes_max {
            let [older, newer] = HALVES.map(|half| file(&self.folder, "current", half));
            fs::rename(newer, older).await?;
            // A copy: left empty after a fault, it would mean the working folder.
            *self = Self::open(self.folder.clone(), self.half_bytes_max).await?;
        }
        self.current.write_all(&line).await?;
        self.current.flush().await?;
        self.bytes += u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

fn file(folder: &Path, run: &str, half: &str) -> PathBuf {
    folder.join(format!("{run}{half}"))
}

async fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn lost_counter(tasks: &Tasks) -> Counter {
    let lost = tasks.metrics().register("service_kit_log_file", |registry| {
        let lost = Counter::default();
        registry.register("records_lost", "Log records that could not be written to disk", lost.clone());
        lost
    });
    Counter::clone(&lost)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::logs::LogLevel;

    fn record(at: i64) -> LogRecord {
        LogRecord {
            timestamp_unix_ns: at,
            level: LogLevel::Info,
            component: "gateway".to_owned(),
            message: format!("line {at}"),
            fields: BTreeMap::new(),
            trace_id: None,
        }
    }

    fn times(records: &[Arc<LogRecord>]) -> Vec<i64> {
        records.iter().map(|record| record.timestamp_unix_ns).collect()
    }

    #[tokio::test]
    async fn the_next_run_reads_what_this_one_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(folder.path().to_owned(), 1 << 20).await.unwrap();
        for at in 1..=5 {
            writer.write(&record(at)).await.unwrap();
        }
        writer.current.write_all(b"{\"torn").await.unwrap();
        writer.current.flush().await.unwrap();

        let running = Tasks::for_test();
        let store = LogStore::default();
        let previous = PreviousLog::keep(folder.path(), 1 << 20, &store, &running.tasks())
            .await
            .unwrap();
        assert_eq!(times(&previous.read(&LogFilter::default()).await.unwrap()), [1, 2, 3, 4, 5]);
        let newest = LogFilter {
            tail: Some(2),
            ..LogFilter::default()
        };
        assert_eq!(times(&previous.read(&newest).await.unwrap()), [4, 5]);
    }

    #[tokio::test]
    async fn a_log_goes_on_where_it_was_left() {
        let folder = tempfile::tempdir().unwrap();
        for (at, before) in [(1, &[][..]), (2, &[1][..]), (3, &[1, 2][..])] {
            let (mut log, records) = LogFile::open(folder.path(), 1 << 20).await.unwrap();
            assert_eq!(times(&records), before);
            log.write(&record(at)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn only_the_newest_lines_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(folder.path().to_owned(), 1_000).await.unwrap();
        for at in 1..=100 {
            writer.write(&record(at)).await.unwrap();
        }
        let kept: u64 = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!((1_000..2_500).contains(&kept), "{kept} bytes are kept");

        let running = Tasks::for_test();
        let previous = PreviousLog::keep(folder.path(), 2_000, &LogStore::default(), &running.tasks())
            .await
            .unwrap();
        let times = times(&previous.read(&LogFilter::default()).await.unwrap());
        assert_eq!(times.last(), Some(&100));
        assert!(times.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{times:?}");
    }
}
