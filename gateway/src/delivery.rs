//! Carries events from the queue to ingest: in batches, as newline-delimited JSON, compressed unless ingest is on this machine, again and again until ingest says that
//! they are durable. The ids stay the same, so whatever arrives twice counts once.
//!
//! While ingest is away, events stay in memory, or go to the spool when there is one. What ingest refuses for good is counted and let
//! go: sending it again would be refused again.

mod send;
mod spool;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use domain::Event;
use http::Uri;
use service_kit::tasks::Shutdown;
use service_kit::{Backoff, BackoffPolicy, Stage, Tasks};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::forward;
use crate::record::Recorder;
use send::{Sender, Sent};
use spool::{Spool, Spooled};

/// Cheap and already five times smaller: events of one batch resemble each other.
const ZSTD_LEVEL: i32 = 1;
/// What an event usually takes as JSON.
const LINE_BYTES: usize = 1_024;

/// Where events go, and how patiently.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Where ingest takes events.
    pub ingest: Uri,
    /// The key of this sender.
    pub api_key: ApiKey,
    /// Most events of one batch.
    pub batch_events_max: usize,
    /// Approximate memory of one batch.
    pub batch_bytes_max: usize,
    /// How batches travel.
    pub coding: Coding,
    /// How long the first event of a batch waits for company.
    pub linger: Duration,
    /// Longest time for ingest to answer.
    pub request_timeout: Duration,
    /// Longest time for sending what is left when the process stops.
    pub drain_timeout: Duration,
    /// Pauses between attempts.
    pub backoff: BackoffPolicy,
    pub spool: Option<SpoolConfig>,
}

/// How batches travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As they are: on this very machine, compression costs more than it saves.
    Plain,
    Zstd,
}

impl Coding {
    /// What suits the way to an address.
    fn to(address: &Uri) -> Self {
        let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_near = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if is_near { Self::Plain } else { Self::Zstd }
    }
}

/// Where events wait on disk while ingest is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    pub folder: PathBuf,
    /// Bytes of all files together; beyond, events stay in memory.
    pub bytes_max: u64,
}

/// The key that ingest knows the sender by.
#[derive(Clone, PartialEq, Eq)]
pub enum ApiKey {
    /// Ingest asks for none.
    None,
    Value(String),
    /// Read again when ingest refuses it, so that it can be replaced while we run.
    File(PathBuf),
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Value(_) => "Value(…)",
            Self::File(_) => "File(…)",
        })
    }
}

impl DeliveryConfig {
    pub fn new(ingest: Uri, api_key: ApiKey) -> Self {
        Self {
            coding: Coding::to(&ingest),
            ingest,
            api_key,
            batch_events_max: 1_000,
            batch_bytes_max: 2 << 20,
            linger: Duration::from_millis(20),
            request_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            backoff: BackoffPolicy {
                pause_max: Duration::from_secs(5),
                ..BackoffPolicy::default()
            },
            spool: None,
        }
    }
}

/// Why events cannot be delivered at all.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("reading the ingest key from `{}`", path.display())]
    ApiKey {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the ingest key has characters that a header cannot carry")]
    ApiKeyText,
    #[error("opening the spool folder `{}`", folder.display())]
    Spool {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Starts delivering as a task that is drained after the listeners: what the last requests recorded is sent, too.
pub async fn deliver(recorder: Recorder, config: DeliveryConfig, tasks: &Tasks) -> Result<(), DeliveryError> {
    let sender = Sender::new(&config, forward::client(config.request_timeout)).await?;
    let spool = match &config.spool {
        Some(spool) => Some(
            Spool::open(spool, tasks.clock())
                .await
                .map_err(|source| DeliveryError::Spool {
                    folder: spool.folder.clone(),
                    source,
                })?,
        ),
        None => None,
    };
    let courier = Courier {
        backoff: Backoff::new(config.backoff),
        event: recorder.blank(),
        packer: Packer::new(),
        recorder,
        config,
        sender,
        spool,
        held: VecDeque::new(),
        away: false,
    };
    courier.note_spool();
    tracing::info!(ingest = %courier.config.ingest, spool = courier.spool.is_some(), waiting = courier.spool.as_ref().map_or(0, Spool::events), "delivering events");
    let shutdown = tasks.shutdown(Stage::Pipeline);
    tasks.spawn(Stage::Pipeline, "event delivery", courier.run(shutdown));
    Ok(())
}

/// A batch as it goes over the wire.
#[derive(Debug, Clone)]
struct Batch {
    lines: Bytes,
    events: u64,
    /// Compressed, once that was needed.
    packed: Option<Bytes>,
}

struct Courier {
    recorder: Recorder,
    config: DeliveryConfig,
    sender: Sender,
    spool: Option<Spool>,
    backoff: Backoff,
    /// Batches that are neither sent nor in the spool, oldest first: one, or the halves of one that was too large.
    held: VecDeque<Batch>,
    /// Where events are made from drafts, one after the other.
    event: Event,
    packer: Packer,
    /// Ingest did not take the last batch.
    away: bool,
}

impl Courier {
    async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        while !shutdown.is_requested() {
            if self.is_idle() {
                if shutdown.or(self.recorder.filled()).await.is_none() {
                    break;
                }
                let _stopping = shutdown.or(sleep(self.config.linger)).await;
            }
            // Sending may be cut short at shutdown: an unanswered batch stays held, and comes again with the same ids.
            if shutdown.or(self.step()).await.is_some() && self.away {
                self.rest(&shutdown).await;
            }
        }
        self.drain().await;
        Ok(())
    }

    /// Nothing but the queue has events.
    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.spool.as_ref().is_none_or(Spool::is_empty)
    }

    /// Sends one batch: the oldest on disk, else the one in hand, else the next of the queue.
    async fn step(&mut self) {
        if let Some(spooled) = self.spool.as_ref().and_then(Spool::oldest) {
            return self.step_spooled(spooled).await;
        }
        self.hold_next();
        let Some(batch) = self.held.front_mut() else { return };
        let (body, coding) = match self.config.coding {
            Coding::Plain => (batch.lines.clone(), Coding::Plain),
            Coding::Zstd => (batch.packed(&mut self.packer), Coding::Zstd),
        };
        let sent = self.sender.send(body, coding, batch.events).await;
        let Some(batch) = self.held.pop_front() else { return };
        match self.settle(&sent, batch.events) {
            Settled::Done => {}
            Settled::Again => self.held.push_front(batch),
            Settled::Smaller => self.split(&batch),
        }
        if self.away {
            self.put_by().await;
        }
    }

    async fn step_spooled(&mut self, spooled: Spooled) {
        let body = match tokio::fs::read(&spooled.path).await {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                tracing::error!(path = %spooled.path.display(), %error, events = spooled.events, "a spooled batch cannot be read and is given up");
                self.recorder.counts().dropped("call", spooled.events);
                return self.forget(&spooled).await;
            }
        };
        let sent = self.sender.send(body, Coding::Zstd, spooled.events).await;
        match self.settle(&sent, spooled.events) {
            Settled::Done => self.forget(&spooled).await,
            Settled::Again => {}
            Settled::Smaller => {
                tracing::error!(
                    events = spooled.events,
                    "ingest finds a spooled batch too large; it is given up"
                );
                self.recorder.counts().dropped("refused", spooled.events);
                self.forget(&spooled).await;
            }
        }
    }

    async fn forget(&mut self, spooled: &Spooled) {
        if let Some(spool) = &mut self.spool {
            spool.remove(spooled).await;
        }
        self.note_spool();
    }

    /// What an answer means for the batch.
    fn settle(&mut self, sent: &Sent, events: u64) -> Settled {
        let counts = self.recorder.counts();
        match sent {
            Sent::Taken { refused } => {
                let refused = (*refused).min(events);
                counts.delivered.inc_by(events - refused);
                counts.dropped("refused", refused);
                counts.failed(None);
                if std::mem::take(&mut self.away) {
                    tracing::info!("ingest takes events again");
                }
                self.backoff.reset();
                Settled::Done
            }
            Sent::Refused(why) => {
                tracing::error!(events, why, "ingest refused a batch for good");
                counts.dropped("refused", events);
                counts.failed(Some(why.clone()));
                Settled::Done
            }
            Sent::TooLarge => Settled::Smaller,
            Sent::Later(why) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(why, "ingest does not take events; they are kept and sent again");
                }
                counts.failed(Some(why.clone()));
                Settled::Again
            }
        }
    }

    fn split(&mut self, batch: &Batch) {
        if batch.events < 2 {
            tracing::error!("ingest finds a single event too large; it is given up");
            self.recorder.counts().dropped("refused", batch.events);
            return;
        }
        let half = batch.events / 2;
        let ends = memchr::memchr_iter(b'\n', &batch.lines);
        let middle = ends
            .take(usize::try_from(half).unwrap_or(usize::MAX))
            .last()
            .map_or(0, |end| end + 1);
        self.config.batch_events_max = usize::try_from(half).unwrap_or(usize::MAX).max(1);
        self.held
            .push_front(Batch::new(batch.lines.slice(middle..), batch.events - half));
        self.held.push_front(Batch::new(batch.lines.slice(..middle), half));
    }

    /// Sees to it that there is a batch in hand if there is anything to send.
    fn hold_next(&mut self) {
        if !self.held.is_empty() {
            return;
        }
        let drafts = self.recorder.take(self.config.batch_events_max, self.config.batch_bytes_max);
        if drafts.is_empty() {
            return;
        }
        let mut lines = Vec::with_capacity(drafts.len() * LINE_BYTES);
        let mut events = 0;
        for draft in drafts {
            self.recorder.fill(&mut self.event, draft);
            // Writing to memory cannot fail, and every field of an event has a JSON form.
            if serde_json::to_writer(&mut lines, &self.event).is_ok() {
                lines.push(b'\n');
                events += 1;
            }
        }
        self.held.push_back(Batch::new(lines.into(), events));
    }

    /// Moves what is in memory to disk, as far as there is room.
    async fn put_by(&mut self) {
        // Whoever drops this future must not lose a batch, so each stays in hand until it is on disk.
        loop {
            self.hold_next();
            let Some(spool) = &mut self.spool else { break };
            let Some(batch) = self.held.front_mut() else { break };
            let body = batch.packed(&mut self.packer);
            if let Err(error) = spool.store(&body, batch.events).await {
                tracing::debug!(%error, "the spool takes no more; events stay in memory");
                break;
            }
            self.held.pop_front();
        }
        self.note_spool();
    }

    fn note_spool(&self) {
        if let Some(spool) = &self.spool {
            self.recorder.counts().on_disk(spool.events());
        }
    }

    /// Waits before the next attempt, and meanwhile brings what comes in to safety.
    async fn rest(&mut self, shutdown: &Shutdown) {
        let pause = self.backoff.next().unwrap_or(self.config.backoff.pause_max);
        let until = Instant::now() + pause;
        loop {
            let spooling = self.spool.as_ref().is_some_and(Spool::has_room) && self.held.is_empty();
            if !spooling {
                let _stopping = shutdown.or(tokio::time::sleep_until(until)).await;
                return;
            }
            match shutdown.or(timeout_at(until, self.recorder.filled())).await {
                Some(Ok(())) => {
                    // A file per event would cost more than waiting a little for company.
                    let _elapsed = timeout_at(until, sleep(Duration::from_millis(100))).await;
                    self.put_by().await;
                }
                Some(Err(_)) | None => return,
            }
        }
    }

    /// The last chance: sends what is left, or leaves it on disk, or counts it as lost.
    async fn drain(mut self) {
        let deadline = Instant::now() + self.config.drain_timeout;
        if self.away {
            self.put_by().await;
        }
        while !self.held.is_empty() || !self.recorder.is_empty() {
            if timeout_at(deadline, self.step()).await.is_err() {
                break;
            }
            if self.away
                && timeout_at(deadline, sleep(self.backoff.next().unwrap_or_default()))
                    .await
                    .is_err()
            {
                break;
            }
        }
        let _at_last = timeout(Duration::from_secs(1), self.put_by()).await;
        let held = self.held.drain(..).map(|batch| batch.events).sum();
        self.recorder.counts().dropped("call", held);
        let lost = held + self.recorder.abandon() as u64;
        if lost > 0 {
            tracing::error!(
                events = lost,
                "events are lost: ingest did not take them before the process had to stop"
            );
        }
    }
}

enum Settled {
    Done,
    Again,
    Smaller,
}

impl Batch {
    fn new(lines: Bytes, events: u64) -> Self {
        Self {
            lines,
            events,
            packed: None,
        }
    }

    fn packed(&mut self, packer: &mut Packer) -> Bytes {
        self.packed.get_or_insert_with(|| packer.pack(&self.lines)).clone()
    }
}

/// Compresses, with memory that is used again and again.
struct Packer(Option<zstd::bulk::Compressor<'static>>);

impl Packer {
    fn new() -> Self {
        Self(zstd::bulk::Compressor::new(ZSTD_LEVEL).ok())
    }

    fn pack(&mut self, lines: &[u8]) -> Bytes {
        // Compression in memory fails for want of memory only.
        let packed = self.0.as_mut().and_then(|packer| packer.compress(lines).ok());
        packed.unwrap_or_default().into()
    }
}
