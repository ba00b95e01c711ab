//! What a server writes: the newest lines in memory for readers, the same on disk for the next start.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;

use domain::Timestamp;
use domain::operations::LogLine;
use service_kit::logs::{LogFile, LogLimits};
use service_kit::{Clock, LogFilter, LogLevel, LogRecord, LogStore};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Key;
use super::process::Output;

/// Disk for the log of one server.
const BYTES_MAX: u64 = 8 << 20;
/// Longest line kept; the rest of a longer one is dropped and said to be.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Component that lines of servers are said to be of.
const COMPONENT: &str = "server";

/// Where programs tell their faults.
const FAULTS: &str = "stderr";
/// Lines kept for telling why a server ended, how many of them are told, and how much of them.
const LAST_KEPT_MAX: usize = 12;
const LAST_TOLD_MAX: usize = 3;
const LAST_CHARS_MAX: usize = 400;

/// What of a log is kept in memory.
const LIMITS: LogLimits = LogLimits {
    records_max: 5_000,
    bytes_max: 2 << 20,
    followers_lag_max: 256,
};

/// An empty store for the lines of one server.
pub(crate) fn store(clock: &Clock) -> LogStore {
    LogStore::new(LIMITS, clock.clone())
}

/// A line as the API tells it.
pub(crate) fn line_of(record: &LogRecord) -> LogLine {
    LogLine {
        timestamp: Timestamp::from_nanos(record.timestamp_unix_ns),
        level: record.level.as_str().to_owned(),
        component: record.component.clone(),
        message: record.message.clone(),
        fields: record.fields.clone().into_iter().collect(),
    }
}

/// The log of one server, for its only writer.
#[derive(Debug)]
pub(crate) struct Log {
    store: LogStore,
    /// Absent when it cannot be kept on disk.
    file: Option<LogFile>,
    fields: BTreeMap<String, serde_json::Value>,
    clock: Clock,
    /// The newest lines of the server itself, for telling why it ended.
    last: VecDeque<(&'static str, String)>,
}

impl Log {
    /// Goes on with the log of a folder. What is there already is put into the store, for readers.
    pub(crate) async fn open(folder: &Path, key: &Key, store: LogStore, clock: &Clock) -> Self {
        let file = match LogFile::open(folder, BYTES_MAX).await {
            Ok((file, records)) => {
                // Otherwise an earlier revision of the server has put them in.
                let is_new = store.read(&LogFilter::default()).is_empty();
                for record in records.iter().filter(|_| is_new) {
                    store.push(LogRecord::clone(record));
                }
                Some(file)
            }
            Err(error) => {
                tracing::warn!(server = key.name, namespace = key.namespace, %error, "the log of the server is kept in memory only");
                None
            }
        };
        Self {
            store,
            file,
            fields: BTreeMap::from([
                ("namespace".to_owned(), key.namespace.as_str().into()),
                ("server".to_owned(), key.name.as_str().into()),
            ]),
            clock: clock.clone(),
            last: VecDeque::new(),
        }
    }

    /// A line of ours among those of the server.
    pub(crate) async fn note(&mut self, level: LogLevel, text: impl Into<String>) {
        self.write(level, "mcp-runtime", text.into()).await;
    }

    /// What the server wrote last since this was asked for: faults, if it wrote any.
    pub(crate) fn take_last(&mut self) -> String {
        let last = std::mem::take(&mut self.last);
        let has_faults = last.iter().any(|(stream, _)| *stream == FAULTS);
        let told = last.iter().filter(|(stream, _)| !has_faults || *stream == FAULTS);
        let lines: Vec<&str> = told.map(|(_, line)| line.trim()).collect();
        let from = lines.len().saturating_sub(LAST_TOLD_MAX);
        lines
            .get(from..)
            .unwrap_or_default()
            .join(" / ")
            .chars()
            .take(LAST_CHARS_MAX)
            .collect()
    }

    /// Writes what a process writes, until it closes both ends.
    pub(crate) async fn capture(&mut self, output: &mut Output) -> io::Result<()> {
        let (mut out, mut err) = (Source::new("stdout"), Source::new(FAULTS));
        while !(out.is_closed && err.is_closed) {
            let lines = tokio::select! {
                lines = out.read(&mut output.stdout), if !out.is_closed => lines?,
                lines = err.read(&mut output.stderr), if !err.is_closed => lines?,
            };
            for (stream, line) in lines {
                if !line.trim().is_empty() {
                    self.last.push_back((stream, line.clone()));
                    self.last.drain(..self.last.len().saturating_sub(LAST_KEPT_MAX));
                }
                self.write(LogLevel::Info, stream, line).await;
            }
        }
        Ok(())
    }

    async fn write(&mut self, level: LogLevel, stream: &str, message: String) {
        let mut fields = self.fields.clone();
        fields.insert("stream".to_owned(), stream.into());
        let record = LogRecord {
            timestamp_unix_ns: self.clock.unix_ns(),
            level,
            component: COMPONENT.to_owned(),
            message,
            fields,
            trace_id: None,
        };
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(&record).await
        {
            tracing::warn!(%error, "the log of a server cannot be kept on disk any more; its newest lines are still in memory");
            self.file = None;
        }
        self.store.push(record);
    }
}

/// One of the two ends that a process writes to.
struct Source {
    name: &'static str,
    cutter: Cutter,
    is_closed: bool,
    buffer: Box<[u8; 8 << 10]>,
}

impl Source {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            cutter: Cutter::default(),
            is_closed: false,
            buffer: Box::new([0; 8 << 10]),
        }
    }

    /// The lines that are whole by now. Dropping the future loses nothing.
    async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<(&'static str, String)>> {
        let count = from.read(&mut self.buffer[..]).await?;
        let mut lines = VecDeque::new();
        if count == 0 {
            self.is_closed = true;
            lines.extend(self.cutter.rest());
        } else {
            self.cutter.cut(self.buffer.get(..count).unwrap_or_default(), &mut lines);
        }
        Ok(lines.into_iter().map(|line| (self.name, line)).collect())
    }
}

/// Cuts bytes into lines of bounded length.
#[derive(Debug, Default)]
struct Cutter {
    line: Vec<u8>,
    dropped: usize,
}

impl Cutter {
    fn cut(&mut self, bytes: &[u8], lines: &mut VecDeque<String>) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        if let Some(first) = parts.next() {
            self.add(first);
        }
        for part in parts {
            lines.push_back(self.end());
            self.add(part);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(LINE_BYTES_MAX - self.line.len());
        self.line.extend_from_slice(bytes.get(..fits).unwrap_or_default());
        self.dropped += bytes.len() - fits;
    }

    fn end(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.line).trim_end_matches('\r').to_owned();
        if self.dropped > 0 {
            text.extend([" … (", &self.dropped.to_string(), " bytes more)"]);
        }
        self.line.clear();
        self.dropped = 0;
        text
    }

    /// What is left at the end, without its line's end.
    fn rest(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<String> {
        let (mut cutter, mut lines) = (Cutter::default(), VecDeque::new());
        for chunk in chunks {
            cutter.cut(chunk, &mut lines);
        }
        lines.extend(cutter.rest());
        lines.into()
    }

    #[test]
    fn lines_are_whole_however_the_bytes_come() {
        assert_eq!(cut(&[b"one\r\ntw", b"o\n\nthree"]), ["one", "two", "", "three"]);
        assert_eq!(cut(&[b""]), Vec::<String>::new());
        assert_eq!(cut(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let long = vec![b'x'; LINE_BYTES_MAX];
        let lines = cut(&[&long, &long, b"\nshort\n"]);
        assert!(
            lines[0].ends_with(&format!("x … ({LINE_BYTES_MAX} bytes more)")),
            "{:.40}",
            lines[0]
        );
        assert_eq!(lines[1], "short");
    }
}
