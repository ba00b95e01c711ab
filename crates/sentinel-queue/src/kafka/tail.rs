//! The reading side: a member of the group.

mod group;
mod partition;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use domain::Timestamp;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task;
use tokio::time::{Instant, sleep_until, timeout};

use super::args::TailConfig;
use super::client::{ConnectError, io_error, settings};
use super::topic::{Wanted, ensure};
use crate::{BatchLimit, EventTail, Lag, Lease, TailError};
use group::{Context, Group, Outcome, look_after};
use partition::{Claim, Cut, Step};

/// Looking at a partition for what waits takes no more than one record of it.
const LOOK: BatchLimit = BatchLimit { events: 1, bytes: 1 };
/// The longest a poll may be missing before the group takes our partitions: the thread polls many times a second.
const POLL_PAUSE_MAX: Duration = Duration::from_mins(5);

/// The longest a caller waits for a commit. The commit itself may still succeed: it is left to end, and no second one goes beside it.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(10);

type Moving = task::JoinHandle<KafkaResult<Outcome>>;
type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// Reads events as a member of a group: its partitions are shared among all processes of the group, and move when one comes or goes.
///
/// A lease is claimed before it is handed out, and handed out with the same span by whoever reads the partition next, until it is
/// committed. Leases of a partition that moves away are not handed out any more, and commits of it are kept from the group.
pub struct KafkaTail {
    group: Arc<Group>,
    member: Option<JoinHandle<()>>,
    lease_age_max: Duration,
    /// Partition to look at first, so that a busy one does not starve the others.
    turn: u32,
    /// A lease that is not handed out yet.
    draft: Option<Draft>,
    /// Its claim, on its way.
    claiming: Option<Moving>,
    /// A commit, on its way.
    settling: Option<Moving>,
    clock: Clock,
}

struct Draft {
    epoch: u64,
    cut: Cut,
}

impl std::fmt::Debug for KafkaTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaTail")
            .field("topic", &self.group.topic)
            .finish_non_exhaustive()
    }
}

impl KafkaTail {
    /// Reaches the brokers, makes the topic where it is missing, and joins the group. Partitions come a moment later.
    pub async fn connect(
        config: TailConfig,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Result<Self, ConnectError> {
        ensure(&config.connection, &Wanted::events(&config.connection, None)).await?;
        let group = Group::new(config.connection.topic.clone());
        let consumer = Arc::new(consumer(&config, &group)?);
        group.set_consumer(&consumer);
        let fault = |source| ConnectError::Client {
            brokers: config.connection.brokers.clone(),
            source,
        };
        consumer.subscribe(&[&config.connection.topic]).map_err(fault)?;
        let shared = Arc::clone(&group);
        let member = thread::Builder::new()
            .name("queue-kafka".to_owned())
            .spawn(move || look_after(&shared, consumer))
            .map_err(ConnectError::Thread)?;
        Ok(Self {
            group,
            member: Some(member),
            lease_age_max: config.lease_age_max,
            turn: 0,
            draft: None,
            claiming: None,
            settling: None,
            clock: Box::new(clock),
        })
    }

    /// Partitions that are this process's to read at this moment.
    pub fn partitions(&self) -> Vec<u32> {
        self.group.lock().held.keys().copied().collect()
    }

    /// Records that the brokers forgot before anyone read them: the topic's retention is too short, or the processors were away too long.
    pub fn lost_records(&self) -> u64 {
        self.group.lock().lost
    }

    /// Looks for a lease. `None`, and until when to wait for more, when there is none yet.
    fn look(&mut self, limit: BatchLimit) -> Result<Result<Draft, Option<Instant>>, TailError> {
        let mut state = self.group.lock();
        let numbers: Vec<u32> = state.held.keys().copied().collect();
        let behind = numbers.iter().position(|number| *number >= self.turn).unwrap_or(0);
        let mut due: Option<Instant> = None;
        for number in numbers[behind..].iter().chain(&numbers[..behind]).copied() {
            state.fill(number, limit);
            if let Some(rewound) = &state.rewound {
                return Err(TailError::Unusable(io::Error::other(rewound.clone())));
            }
            let Some(held) = state.held.get_mut(&number) else { continue };
            match held.partition.cut(limit, self.lease_age_max, Instant::now()) {
                Step::Cut(cut) => {
                    let epoch = held.epoch;
                    self.turn = number + 1;
                    return Ok(Ok(Draft { epoch, cut }));
                }
                Step::Wait(until) => due = Some(due.map_or(until, |due| due.min(until))),
                Step::Empty => {}
            }
        }
        match state.fault.take() {
            Some(error) => Err(TailError::Unavailable(io_error(error))),
            None => Ok(Err(due)),
        }
    }

    /// As [`Self::look`]; decoding leaves the thread's other tasks to another thread where there is one.
    fn look_aside(&mut self, limit: BatchLimit) -> Result<Result<Draft, Option<Instant>>, TailError> {
        if Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread) {
            task::block_in_place(|| self.look(limit))
        } else {
            self.look(limit)
        }
    }

    /// Claims the draft and gives it out; `None` when its partition has moved away.
    async fn claim(&mut self) -> Result<Option<Lease>, TailError> {
        let Some(draft) = &self.draft else { return Ok(None) };
        let (number, epoch) = (draft.cut.span.partition, draft.epoch);
        let outcome = if draft.cut.claim == Claim::Known {
            Ok(Outcome::Done)
        } else {
            if self.claiming.is_none() {
                let group = Arc::clone(&self.group);
                self.claiming = Some(task::spawn_blocking(move || group.commit(number, epoch, 0)));
            }
            answer(&mut self.claiming).await?
        };
        let ours = self.group.lock().ours(number, epoch).is_some();
        match outcome {
            _ if !ours => {
                tracing::info!(partition = number, "a lease is dropped: its partition moved away");
                self.draft = None;
                Ok(None)
            }
            Ok(_) => Ok(self.draft.take().map(|draft| Lease {
                span: draft.cut.span,
                records: draft.cut.records,
                complete_through: draft.cut.complete_through,
            })),
            // The draft stays, and is claimed with the next call, unless the brokers have given its partition away by then.
            Err(error) => Err(TailError::Unavailable(io_error(error))),
        }
    }
}

impl EventTail for KafkaTail {
    async fn next(&mut self, limit: BatchLimit) -> Result<Lease, TailError> {
        loop {
            if let Some(lease) = self.claim().await? {
                return Ok(lease);
            }
            let group = Arc::clone(&self.group);
            // A permit is kept when nobody waits, so what arrives between looking and waiting wakes us.
            let arrived = group.arrived.notified();
            match self.look_aside(limit)? {
                Ok(draft) => self.draft = Some(draft),
                Err(Some(until)) => tokio::select! {
                    () = arrived => {}
                    () = sleep_until(until) => {}
                },
                Err(None) => arrived.await,
            }
        }
    }

    async fn commit(&mut self, partition: u32, end: u64) -> Result<(), TailError> {
        let epoch = {
            let state = self.group.lock();
            let held = state.held.get(&partition);
            if held.is_some_and(|held| held.partition.committed() >= end) {
                return Ok(());
            }
            held.map(|held| held.epoch)
        };
        let outcome = match epoch {
            None => Outcome::Gone,
            Some(epoch) => {
                if self.settling.is_some() {
                    // Of an earlier call that did not wait for it.
                    let _earlier = answer(&mut self.settling).await?;
                }
                let group = Arc::clone(&self.group);
                self.settling = Some(task::spawn_blocking(move || group.commit(partition, epoch, end)));
                let committed = answer(&mut self.settling).await?;
                committed.map_err(|error| TailError::Unavailable(io_error(error)))?
            }
        };
        if outcome == Outcome::Gone {
            // Whoever has it now hands it out again, and the store knows it. Should it come back to us, we know it.
            self.group.settle(partition, end);
        }
        Ok(())
    }

    /// Events decoded are counted; of those still with the brokers the records are counted, and their events reckoned from the size of
    /// those read before. `bytes` is reckoned the same way, of everything the brokers hold of our partitions, before compression.
    fn lag(&self) -> Lag {
        let mut state = self.group.lock();
        let numbers: Vec<u32> = state.held.keys().copied().collect();
        let (mut lag, mut oldest) = (Lag::default(), None::<Timestamp>);
        if let Some(draft) = &self.draft {
            lag.events += draft.cut.records.len() as u64;
            oldest = Some(draft.cut.appended);
        }
        for number in numbers {
            state.fill(number, LOOK);
            let Some(held) = state.held.get(&number) else { continue };
            let (low, end) = held.ends;
            let unread = u64::try_from(end - held.partition.next_record()).unwrap_or(0);
            lag.events += held.partition.waiting(unread);
            lag.bytes += held.partition.bytes(u64::try_from(end - low).unwrap_or(0));
            if unread > 0 || held.partition.has_ready() {
                let at = held.partition.oldest();
                oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
            }
        }
        drop(state);
        // Without a time that is known, none is told.
        let known = oldest.filter(|oldest| *oldest > Timestamp::MIN);
        lag.age = known.map_or(Duration::ZERO, |oldest| (self.clock)().since(oldest));
        lag
    }
}

impl Drop for KafkaTail {
    fn drop(&mut self) {
        self.group.stop();
        if let Some(member) = self.member.take()
            && member.join().is_err()
        {
            tracing::error!("the thread of the kafka group panicked");
        }
    }
}

/// Waits for a commit on its way, which stays there when the wait is dropped or too long.
async fn answer(moving: &mut Option<Moving>) -> Result<KafkaResult<Outcome>, TailError> {
    let Some(running) = moving else { return Ok(Ok(Outcome::Gone)) };
    let fault = |source: io::Error| TailError::Unavailable(source);
    let ended = timeout(COMMIT_WAIT_MAX, running)
        .await
        .map_err(|_| fault(io::ErrorKind::TimedOut.into()))?;
    *moving = None;
    ended.map_err(|error| fault(io::Error::other(error)))
}

fn consumer(config: &TailConfig, group: &Arc<Group>) -> Result<group::Consumer, ConnectError> {
    let mut settings = settings(&config.connection)?;
    settings
        .set("group.id", &config.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", config.session_timeout.as_millis().to_string())
        .set("heartbeat.interval.ms", (config.session_timeout / 6).as_millis().to_string())
        .set(
            "max.poll.interval.ms",
            config.session_timeout.max(POLL_PAUSE_MAX).as_millis().to_string(),
        )
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", (config.fetch_bytes_max / 1_024).to_string())
        .set("topic.metadata.refresh.interval.ms", "30000");
    if let Some(name) = &config.group_instance {
        settings.set("group.instance.id", name);
    }
    settings
        .create_with_context(Context(Arc::clone(group)))
        .map_err(|source| ConnectError::Client {
            brokers: config.connection.brokers.clone(),
            source,
        })
}
