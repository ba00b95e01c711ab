//! The suite that every queue must pass.
//!
//! A backend names itself as a [`Subject`] and calls [`suite`]. Each check gets a queue of its own.

use std::fmt::Debug;
use std::time::Duration;

use domain::event::WireVersion;
use domain::{Event, EventId, Payload, Timestamp};
use tokio::time::timeout;

use crate::{AppendError, BatchLimit, EventAppender, EventTail, Lag, Lease, Record, TailError};

/// Longest wait for anything; a check that gets here has failed.
const DEADLINE: Duration = Duration::from_secs(20);
/// Room that lets every check but the one of bounds go through.
const ROOMY: u64 = 64 << 20;
/// More than any check appends.
const ALL: BatchLimit = BatchLimit {
    events: 100_000,
    bytes: 64 << 20,
};

/// A queue under test.
pub trait Subject: Sized {
    /// Its appending side.
    type Appender: EventAppender + Clone;
    /// Its reading side.
    type Tail: EventTail;
    /// Whether each offset has a record.
    const DENSE: bool = true;
    /// Whether it refuses what exceeds its bounds until someone commits.
    const BOUNDED: bool = true;
    /// Whether the tail ends once the appenders are gone.
    const ENDS: bool = true;

    /// A queue of its own that holds at most about `bytes_max` bytes, not yet opened.
    fn create(bytes_max: u64) -> impl Future<Output = Self>;
    /// Opens it, after a first time as after the loss of the process. Both sides of the time before are gone by then.
    fn open(&mut self) -> impl Future<Output = (Self::Appender, Self::Tail)>;
    /// Appends a line as it is, event or not.
    fn append_line(&self, appender: &Self::Appender, line: &[u8]) -> impl Future<Output = ()>;
}

/// Runs every check.
pub async fn suite<S: Subject>() {
    hands_out_in_order_what_was_appended::<S>().await;
    keeps_to_the_limits_of_a_lease::<S>().await;
    hands_out_again_what_was_not_committed::<S>().await;
    forgets_what_was_committed::<S>().await;
    refuses_when_full_and_goes_on_after_a_commit::<S>().await;
    isolates_what_is_no_event::<S>().await;
    loses_nothing_when_a_wait_is_dropped::<S>().await;
    wakes_a_waiting_reader::<S>().await;
    tells_how_much_waits::<S>().await;
    ends_when_the_appenders_are_gone::<S>().await;
    appends_from_many_sides_at_once::<S>().await;
}

/// An event told apart by `number`.
pub fn event(number: u64) -> Event {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let received_at = Timestamp::from_seconds(1_800_000_000).plus(Duration::from_millis(number));
    let payload = Payload {
        server: Some("payments".to_owned()),
        namespace: Some("acme".to_owned()),
        tool_name: Some(format!("tool-{}", number % 7)),
        latency_us: Some(number),
        ..Payload::default()
    };
    Event {
        version: WireVersion,
        id: EventId::from_bytes(id),
        timestamp: received_at,
        received_at,
        received_by: Some("k1".to_owned()),
        source: "payments-gateway".to_owned(),
        event_type: "mcp.request".to_owned(),
        trace_id: None,
        span_id: None,
        parent_span_id: None,
        producer: Some("gateway-1".to_owned()),
        producer_seq: Some(number),
        payload: Box::new(payload),
    }
}

/// Events numbered by a range.
pub fn events(numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(event).collect()
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| fail(&format!("{what}: still waiting after {DEADLINE:?}")))
}

#[expect(clippy::panic, reason = "this module is a test")]
fn fail(what: &str) -> ! {
    panic!("{what}")
}

fn done<T, E: Debug>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| fail(&format!("{what}: {error:?}")))
}

async fn append<A: EventAppender>(appender: &A, numbers: std::ops::Range<u64>) {
    done("append", soon("append", appender.append(&events(numbers))).await);
}

async fn next<S: Subject>(tail: &mut S::Tail, limit: BatchLimit) -> Lease {
    let lease = done("next", soon("next", tail.next(limit)).await);
    let offsets: Vec<u64> = lease.records.iter().map(offset).collect();
    let span = lease.span.first..lease.span.end;
    assert!(offsets.is_sorted_by(|one, other| one < other), "offsets rise: {offsets:?}");
    assert!(
        !offsets.is_empty() && offsets.iter().all(|offset| span.contains(offset)),
        "{span:?} holds {offsets:?}"
    );
    if S::DENSE {
        let all: Vec<u64> = span.collect();
        assert_eq!(offsets, all, "each offset of the span has exactly one record");
    }
    lease
}

async fn commit<T: EventTail>(tail: &mut T, end: u64) {
    done("commit", soon("commit", tail.commit(0, end)).await);
}

fn offset(record: &Record) -> u64 {
    match record {
        Record::Event { offset, .. } | Record::Undecodable { offset, .. } => *offset,
    }
}

fn numbers(records: &[Record]) -> Vec<u64> {
    let number = |record: &Record| match record {
        Record::Event { event, .. } => event.producer_seq,
        Record::Undecodable { .. } => None,
    };
    records.iter().filter_map(number).collect()
}

/// Reads until `count` records came.
async fn read<S: Subject>(tail: &mut S::Tail, count: usize, limit: BatchLimit) -> Vec<Record> {
    let (mut records, mut end) = (Vec::new(), None);
    while records.len() < count {
        let lease = next::<S>(tail, limit).await;
        assert_eq!(end.unwrap_or(lease.span.first), lease.span.first, "leases join");
        end = Some(lease.span.end);
        records.extend(lease.records);
    }
    records
}

async fn hands_out_in_order_what_was_appended<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    for first in (0..100).step_by(10) {
        append(&appender, first..first + 10).await;
    }
    let records = read::<S>(&mut tail, 100, ALL).await;
    let expected: Vec<Record> = (0..100)
        .zip(&records)
        .map(|(number, record)| Record::Event {
            offset: if S::DENSE { number } else { offset(record) },
            event: event(number),
        })
        .collect();
    assert_eq!(records, expected);
    append(&appender, 100..100).await;
    append(&appender, 100..101).await;
    assert_eq!(numbers(&next::<S>(&mut tail, ALL).await.records), [100]);
}

async fn keeps_to_the_limits_of_a_lease<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    append(&appender, 0..25).await;
    let limit = BatchLimit {
        events: 10,
        bytes: ALL.bytes,
    };
    let mut seen = Vec::new();
    while seen.len() < 25 {
        let lease = next::<S>(&mut tail, limit).await;
        assert!(lease.records.len() <= 10, "{} records of at most 10", lease.records.len());
        seen.extend(numbers(&lease.records));
    }
    assert_eq!(seen, (0..25).collect::<Vec<_>>());
    append(&appender, 25..30).await;
    for number in 25..30 {
        let lease = next::<S>(&mut tail, BatchLimit { events: 10, bytes: 1 }).await;
        assert_eq!(
            numbers(&lease.records),
            [number],
            "one record goes out even when it alone exceeds the bytes"
        );
    }
}

async fn hands_out_again_what_was_not_committed<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    append(&appender, 0..30).await;
    let limit = BatchLimit {
        events: 7,
        bytes: ALL.bytes,
    };
    let records = read::<S>(&mut tail, 30, limit).await;
    commit(&mut tail, offset(&records[12])).await;
    commit(&mut tail, offset(&records[3])).await;
    drop((appender, tail));
    let (appender, mut tail) = subject.open().await;
    assert_eq!(numbers(&read::<S>(&mut tail, 18, ALL).await), (12..30).collect::<Vec<_>>());
    append(&appender, 30..31).await;
    let lease = next::<S>(&mut tail, ALL).await;
    assert_eq!(numbers(&lease.records), [30]);
    let last = offset(&records[29]);
    assert!(
        lease.span.first > last,
        "offsets go on after a restart: {} after {last}",
        lease.span.first
    );
}

async fn forgets_what_was_committed<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    append(&appender, 0..10).await;
    let records = read::<S>(&mut tail, 10, ALL).await;
    drop((appender, tail));
    let (appender, mut tail) = subject.open().await;
    commit(&mut tail, offset(&records[4])).await;
    assert_eq!(
        numbers(&read::<S>(&mut tail, 6, ALL).await),
        (4..10).collect::<Vec<_>>(),
        "committed before it was handed out"
    );
    let end = offset(&records[9]) + 1;
    commit(&mut tail, end).await;
    drop((appender, tail));
    let (appender, mut tail) = subject.open().await;
    append(&appender, 10..12).await;
    let lease = next::<S>(&mut tail, ALL).await;
    assert_eq!(numbers(&lease.records), [10, 11]);
    assert!(
        lease.span.first >= end && (!S::DENSE || lease.span.first == end),
        "{:?}",
        lease.span
    );
}

async fn refuses_when_full_and_goes_on_after_a_commit<S: Subject>() {
    if !S::BOUNDED {
        return;
    }
    let mut subject = S::create(64 << 10).await;
    let (appender, mut tail) = subject.open().await;
    let mut count = 0_u64;
    let refused = loop {
        assert!(count < 100_000, "a bound of 64 KiB holds {count} events");
        match soon("append", appender.append(&events(count..count + 10))).await {
            Ok(()) => count += 10,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused:?}");
    let whole = usize::try_from(count).unwrap_or(usize::MAX);
    assert_eq!(
        numbers(&read::<S>(&mut tail, whole, ALL).await),
        (0..count).collect::<Vec<_>>(),
        "all that was accepted is there"
    );
    commit(&mut tail, count).await;
    append(&appender, count..count + 10).await;
    assert_eq!(
        numbers(&read::<S>(&mut tail, 10, ALL).await),
        (count..count + 10).collect::<Vec<_>>()
    );
}

async fn isolates_what_is_no_event<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    append(&appender, 0..2).await;
    subject.append_line(&appender, b"{\"v\":99,\"half\":").await;
    append(&appender, 3..5).await;
    let records = read::<S>(&mut tail, 5, ALL).await;
    assert_eq!(numbers(&records), [0, 1, 3, 4]);
    match &records[2] {
        Record::Undecodable { offset, bytes, reason } => {
            assert_eq!(bytes.as_slice(), b"{\"v\":99,\"half\":".as_slice());
            assert!(!S::DENSE || *offset == 2, "{offset}");
            assert!(!reason.is_empty());
        }
        Record::Event { .. } => fail("half a line is no event"),
    }
}

async fn loses_nothing_when_a_wait_is_dropped<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    let mut seen = Vec::new();
    for number in 0..50 {
        // Polled once and dropped, before and after there is something.
        poll_once(&mut tail, &mut seen).await;
        append(&appender, number..number + 1).await;
        poll_once(&mut tail, &mut seen).await;
    }
    while seen.len() < 50 {
        seen.extend(numbers(&next::<S>(&mut tail, ALL).await.records));
    }
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
}

async fn poll_once<T: EventTail>(tail: &mut T, seen: &mut Vec<u64>) {
    tokio::select! {
        biased;
        lease = tail.next(ALL) => seen.extend(numbers(&done("next", lease).records)),
        () = std::future::ready(()) => {}
    }
}

async fn wakes_a_waiting_reader<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    let (lease, ()) = tokio::join!(next::<S>(&mut tail, ALL), append(&appender, 0..1));
    assert_eq!(numbers(&lease.records), [0]);
}

async fn tells_how_much_waits<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    let Lag { events, age, .. } = tail.lag();
    assert_eq!((events, age), (0, Duration::ZERO));
    append(&appender, 0..10).await;
    soon("the lag of ten events", async {
        // A queue across the network hears of them a moment later.
        while tail.lag().events != 10 || tail.lag().bytes == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    read::<S>(
        &mut tail,
        10,
        BatchLimit {
            events: 4,
            bytes: ALL.bytes,
        },
    )
    .await;
    let Lag { events, age, .. } = tail.lag();
    assert_eq!(
        (events, age),
        (0, Duration::ZERO),
        "handed out does not wait, committed or not"
    );
}

async fn ends_when_the_appenders_are_gone<S: Subject>() {
    if !S::ENDS {
        return;
    }
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    append(&appender, 0..5).await;
    drop(appender);
    assert_eq!(numbers(&read::<S>(&mut tail, 5, ALL).await), (0..5).collect::<Vec<_>>());
    let end = soon("the end", tail.next(ALL)).await;
    assert!(matches!(end, Err(TailError::Closed)), "{end:?}");
}

async fn appends_from_many_sides_at_once<S: Subject>() {
    let mut subject = S::create(ROOMY).await;
    let (appender, mut tail) = subject.open().await;
    let mut sides = tokio::task::JoinSet::new();
    for side in 0..16_u64 {
        let appender = appender.clone();
        sides.spawn(async move {
            for turn in 0..10 {
                append(&appender, side * 1_000 + turn * 3..side * 1_000 + turn * 3 + 3).await;
            }
        });
    }
    while let Some(side) = soon("appending", sides.join_next()).await {
        done("appending", side);
    }
    let seen = numbers(&read::<S>(&mut tail, 16 * 30, ALL).await);
    for side in 0..16_u64 {
        let own: Vec<u64> = seen.iter().copied().filter(|number| number / 1_000 == side).collect();
        assert_eq!(
            own,
            (side * 1_000..side * 1_000 + 30).collect::<Vec<_>>(),
            "order of one sender"
        );
    }
}
