//! The suite that every store must pass.
//!
//! Most of it compares a store's answers with those of the [`MemoryStore`] on the same events, which are generated from a seed: a
//! failure names the seed. A store under test must keep events of November 2026 (no retention), and begin empty.

mod generate;

use std::collections::HashSet;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use domain::analytics::{EventsPage, Horizon, Served, StoredEvent};
use domain::{EventBatch, Position, Span, Timestamp};

use crate::memory::MemoryStore;
use crate::query::{
    Dimension, EventQuery, Filter, Metric, Order, Scope, SeriesQuery, ToolsQuery, UsageQuery, ValuesQuery, Watermark,
};
use crate::{EventReader, EventWriter, Inserted, QueryError, Reader, UsageReader as _};
use generate::Random;

pub use generate::{batches, filter};

/// Filters compared per set of events.
const FILTERS: usize = 10;

/// Anything that stores and answers.
pub trait Store: EventWriter + Reader {}
impl<T: EventWriter + Reader> Store for T {}

/// Runs every case, each on an empty store from `make`.
pub async fn every_case<S: Store, F: Future<Output = S>>(make: impl Fn() -> F) {
    an_empty_store_answers_with_empty_lists(&make().await).await;
    what_is_inserted_is_visible_at_once_and_told(&make().await).await;
    inserting_again_or_overlapping_changes_nothing(&make().await).await;
    paging_never_repeats_nor_skips_while_events_come_in(&make().await).await;
    a_follower_sees_every_event_once(&make().await).await;
    wrong_questions_are_refused(&make().await).await;
    for seed in [1, 2] {
        answers_are_those_of_the_reference(&make().await, seed).await;
    }
}

/// A filter without since and until is of no window; the questions that need one get all of November 2026.
fn windowed(mut filter: Filter) -> Filter {
    filter.since.get_or_insert(generate::BEGIN);
    filter.until.get_or_insert(generate::BEGIN.plus(Duration::from_hours(24 * 5)));
    filter
}

fn everything() -> Filter {
    windowed(Filter::all(Scope::All))
}

async fn insert(store: &impl EventWriter, batch: EventBatch) -> Inserted {
    store.insert(batch.into()).await.expect("inserting a batch of sound events")
}

async fn page(store: &impl EventReader, filter: &Filter, order: Order, limit: u32) -> EventsPage {
    store
        .events(EventQuery {
            filter: filter.clone(),
            order,
            limit,
        })
        .await
        .expect("answering a page of events")
}

/// Lists are empty, totals zero, gaps filled, and nothing fails.
pub async fn an_empty_store_answers_with_empty_lists(store: &impl Store) {
    let nothing = MemoryStore::new();
    compare(store, &nothing, &everything(), "an empty store").await;
    assert_eq!(
        page(store, &Filter::all(Scope::All), Order::Newest(None), 10).await.events,
        []
    );
    let storage = store.storage().await.expect("answering the size of the store");
    assert_eq!(
        (storage.events, storage.events_in_memory, storage.oldest, storage.newest),
        (0, 0, None, None)
    );
}

/// Every query that begins after an insert sees it, its watermark tells so, and a flush changes no answer.
pub async fn what_is_inserted_is_visible_at_once_and_told(store: &impl Store) {
    let mut horizon = store.horizon();
    let mut seen = Watermark::default();
    let mut events = 0;
    for batch in batches(11, 60).into_iter().take(4) {
        let count = batch.events.len() as u64;
        let through = batch.complete_through;
        assert_eq!(
            insert(store, batch).await,
            Inserted {
                stored: count,
                duplicates: 0
            }
        );
        events += count;
        let told = *horizon.borrow_and_update();
        assert!(told.version > seen.version, "an insert must change the watermark's version");
        assert_eq!(told.complete_through, through.max(seen.complete_through));
        seen = told;
        let page = page(store, &Filter::all(Scope::All), Order::Newest(None), 1_000).await;
        assert_eq!(page.events.len() as u64, events, "a query after an insert sees all of it");
        assert!(page.horizon.complete_through >= through);
    }
    let before = page(store, &Filter::all(Scope::All), Order::Arrival(None), 1_000).await;
    store.flush().await.expect("flushing");
    let after = page(store, &Filter::all(Scope::All), Order::Arrival(None), 1_000).await;
    assert_eq!(before.events, after.events, "a flush changes no answer");
    let later = seen.complete_through.plus(Duration::from_secs(9));
    store.advance(later);
    assert_eq!(
        store.horizon().borrow().complete_through,
        later,
        "advancing tells readers without a batch"
    );
    store.advance(seen.complete_through);
    assert_eq!(
        store.horizon().borrow().complete_through,
        later,
        "what is complete stays complete"
    );
}

/// The same span, a part of it, a longer one, and the same ids under other offsets.
#[expect(clippy::too_many_lines, reason = "one story told in steps, each building on the one before")]
pub async fn inserting_again_or_overlapping_changes_nothing(store: &impl Store) {
    let reference = MemoryStore::new();
    let batch = batches(5, 200).remove(0);
    let count = batch.events.len() as u64;
    insert(&reference, batch.clone()).await;
    let half = batch.span.first + batch.span.len() / 2;
    let mut head = batch.clone();
    head.span.end = half;
    head.events.retain(|(offset, _)| *offset < half);
    let heads = head.events.len() as u64;
    assert_eq!(
        insert(store, head).await,
        Inserted {
            stored: heads,
            duplicates: 0
        }
    );
    assert_eq!(
        insert(store, batch.clone()).await,
        Inserted {
            stored: count - heads,
            duplicates: heads
        }
    );
    assert_eq!(
        insert(store, batch.clone()).await,
        Inserted {
            stored: 0,
            duplicates: count
        }
    );
    store.flush().await.expect("flushing");
    assert_eq!(
        insert(store, batch.clone()).await,
        Inserted {
            stored: 0,
            duplicates: count
        }
    );

    let moved = |partition: u32, first: u64| {
        let mut moved = batch.clone();
        moved.span = Span {
            partition,
            first,
            end: first + batch.span.len(),
        };
        moved
            .events
            .iter_mut()
            .for_each(|(offset, _)| *offset = *offset - batch.span.first + first);
        moved
    };
    let again = moved(batch.span.partition, batch.span.end);
    assert_eq!(
        insert(store, again).await,
        Inserted {
            stored: 0,
            duplicates: count
        },
        "same ids, later offsets"
    );
    let elsewhere = moved(batch.span.partition + 7, 0);
    assert_eq!(
        insert(store, elsewhere).await,
        Inserted {
            stored: 0,
            duplicates: count
        },
        "same ids, other partition"
    );
    compare(store, &reference, &everything(), "after inserting again").await;
}

/// Newest first: events that were there when the first page was asked for come exactly once.
pub async fn paging_never_repeats_nor_skips_while_events_come_in(store: &impl Store) {
    let mut batches = batches(23, 300).into_iter();
    let mut there = HashSet::new();
    for batch in batches.by_ref().take(3) {
        there.extend(batch.events.iter().map(|(_, event)| event.id));
        insert(store, batch).await;
    }
    let filter = Filter::all(Scope::All);
    let (mut seen, mut order) = (HashSet::new(), Order::Newest(None));
    let mut last: Option<(Timestamp, Position)> = None;
    loop {
        let page = page(store, &filter, order, 37).await;
        for stored in &page.events {
            assert!(seen.insert(stored.event.id), "event {} came twice", stored.event.id);
            let key = (stored.event.timestamp, position(stored));
            assert!(last.is_none_or(|last| key < last), "{key:?} after {last:?}");
            last = Some(key);
        }
        if !page.meta.has_more {
            break;
        }
        order = Order::Newest(last);
        if let Some(batch) = batches.next() {
            insert(store, batch).await;
        }
        store.flush().await.expect("flushing");
    }
    assert!(
        there.is_subset(&seen),
        "{} events were skipped",
        there.difference(&seen).count()
    );
}

/// In order of arrival: everything comes once, also what is inserted while following.
pub async fn a_follower_sees_every_event_once(store: &impl Store) {
    let mut all = Vec::new();
    let mut seen: Vec<StoredEvent> = Vec::new();
    // One partition: across partitions, a place already passed in one says nothing about another.
    for batch in batches(29, 120).into_iter().filter(|batch| batch.span.partition == 0) {
        all.extend(batch.events.iter().map(|(offset, event)| (*offset, event.clone())));
        insert(store, batch).await;
        let after = seen.last().map(position);
        seen.extend(page(store, &Filter::all(Scope::All), Order::Arrival(after), 50).await.events);
    }
    loop {
        let next = page(store, &Filter::all(Scope::All), Order::Arrival(seen.last().map(position)), 50).await;
        seen.extend(next.events);
        if !next.meta.has_more {
            break;
        }
    }
    assert!(!all.is_empty());
    assert_eq!(
        seen.into_iter()
            .map(|stored| (stored.offset, stored.event))
            .collect::<Vec<_>>(),
        all
    );
}

/// Columns that do not exist, values that cannot be, windows without bounds, too many steps.
pub async fn wrong_questions_are_refused(store: &impl Store) {
    fn invalid<T: Debug>(answer: Result<T, QueryError>, part: &str) {
        let error = answer.expect_err("a wrong question must be refused");
        assert!(matches!(error, QueryError::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let with = |name: &str, value: &str| Filter {
        equals: vec![(name.to_owned(), vec![value.to_owned()])],
        ..everything()
    };
    let events = |filter| {
        store.events(EventQuery {
            filter,
            order: Order::Newest(None),
            limit: 1,
        })
    };
    let usage = |filter, step| store.usage(UsageQuery { filter, limit: 1, step });
    let hour = Duration::from_hours(1);
    invalid(events(with("sever", "x")).await, "server");
    invalid(events(with("status", "ok")).await, "whole number");
    invalid(usage(with("decision", "no"), hour).await, "allow, deny");
    invalid(usage(Filter::all(Scope::All), hour).await, "since and until");
    invalid(usage(everything(), Duration::ZERO).await, "step");
    invalid(usage(everything(), Duration::from_secs(1)).await, "longer step");
    invalid(
        store
            .values(ValuesQuery {
                filter: everything(),
                column: "id".to_owned(),
                limit: 1,
            })
            .await,
        "events",
    );
    invalid(
        store
            .values(ValuesQuery {
                filter: everything(),
                column: "tols".to_owned(),
                limit: 1,
            })
            .await,
        "no column",
    );
}

/// The same events, in batches that overlap and repeat ids, and the same questions.
pub async fn answers_are_those_of_the_reference(store: &impl Store, seed: u64) {
    let reference = MemoryStore::new();
    let mut random = Random::new(seed);
    for (at, batch) in batches(seed, 150).into_iter().enumerate() {
        let expected = insert(&reference, batch.clone()).await;
        assert_eq!(insert(store, batch).await, expected, "seed {seed}, batch {at}");
        if random.chance(15) {
            store.flush().await.expect("flushing");
        }
    }
    compare(store, &reference, &everything(), &format!("seed {seed}, everything")).await;
    for at in 0..FILTERS {
        let filter = filter(&mut random);
        compare(store, &reference, &filter, &format!("seed {seed}, filter {at}: {filter:?}")).await;
    }
}

/// Compares every typed answer.
async fn compare(store: &impl Store, reference: &MemoryStore, filter: &Filter, what: &str) {
    for order in [Order::Newest(None), Order::Arrival(None)] {
        for limit in [7, 10_000] {
            let (mut ours, mut theirs) = (
                page(store, filter, order, limit).await,
                page(reference, filter, order, limit).await,
            );
            (ours.horizon, theirs.horizon) = (any_time(ours.horizon), any_time(theirs.horizon));
            same(&ours.events, &theirs.events, what);
            assert_eq!(ours, theirs, "events, {order:?}, limit {limit}, {what}");
        }
    }
    for column in ["source", "tool_name", "status", "decision", "session_id"] {
        let query = || ValuesQuery {
            filter: filter.clone(),
            column: column.to_owned(),
            limit: 9,
        };
        let (ours, theirs) = (values(store, query()).await, values(reference, query()).await);
        assert_eq!(ours, theirs, "values of {column}, {what}");
    }
    let filter = windowed(filter.clone());
    for (step, limit) in [
        (Duration::from_hours(1), 100),
        (Duration::from_hours(24), 3),
        (Duration::from_mins(7), 2),
    ] {
        let (ours, theirs) = (
            usage(store, &filter, step, limit).await,
            usage(reference, &filter, step, limit).await,
        );
        same(&ours.servers, &theirs.servers, what);
        same(&ours.tools, &theirs.tools, what);
        assert_eq!(ours, theirs, "usage by {step:?}, {what}");
    }
    let mut random = Random::new(filter.equals.len() as u64 + 40);
    for metric in METRICS {
        let by = *random.pick(&DIMENSIONS);
        let step = *random.pick(&[Duration::from_hours(1), Duration::from_hours(24), Duration::from_mins(20)]);
        let (ours, theirs) = (
            series(store, &filter, metric, by, step).await,
            series(reference, &filter, metric, by, step).await,
        );
        assert_eq!(ours, theirs, "series of {metric:?} by {by:?} per {step:?}, {what}");
    }
    let query = || ToolsQuery {
        filter: filter.clone(),
        limit: 50,
    };
    let ours = store.tools(query()).await.expect("answering tools");
    let theirs = reference.tools(query()).await.expect("answering tools");
    assert_eq!(ours.tools, theirs.tools, "tools, {what}");
}

/// The first difference alone: whole lists of events cannot be read.
fn same<T: PartialEq + Debug>(ours: &[T], theirs: &[T], what: &str) {
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours, theirs, "row {at}, {what}");
    }
    assert_eq!(ours.len(), theirs.len(), "count of rows, {what}");
}

const METRICS: [Metric; 7] = [
    Metric::Calls,
    Metric::Errors,
    Metric::Denied,
    Metric::LatencyP50,
    Metric::LatencyP95,
    Metric::LatencyP99,
    Metric::Bytes,
];
const DIMENSIONS: [Dimension; 7] = [
    Dimension::None,
    Dimension::Server,
    Dimension::Tool,
    Dimension::Agent,
    Dimension::Human,
    Dimension::Namespace,
    Dimension::Outcome,
];

async fn usage(store: &impl Reader, filter: &Filter, step: Duration, limit: u32) -> domain::analytics::UsageReport {
    let mut report = store
        .usage(UsageQuery {
            filter: filter.clone(),
            limit,
            step,
        })
        .await
        .expect("answering usage");
    (report.horizon, report.served_from) = (any_time(report.horizon), Served::Raw);
    report
}

async fn series(
    store: &impl Reader,
    filter: &Filter,
    metric: Metric,
    by: Dimension,
    step: Duration,
) -> domain::analytics::SeriesReport {
    let query = SeriesQuery {
        filter: filter.clone(),
        metric,
        by,
        step,
        top: 2,
    };
    let mut report = store.series(query).await.expect("answering a series");
    (report.horizon, report.served_from) = (any_time(report.horizon), Served::Raw);
    report
}

async fn values(store: &impl Reader, query: ValuesQuery) -> Vec<domain::analytics::ValueCount> {
    store.values(query).await.expect("answering values")
}

/// Without the time of the answer, which differs, and what is complete, which [`what_is_inserted_is_visible_at_once_and_told`] checks.
fn any_time(_: Horizon) -> Horizon {
    Horizon {
        as_of: Timestamp::default(),
        complete_through: Timestamp::default(),
    }
}

fn position(stored: &StoredEvent) -> Position {
    Position {
        partition: stored.partition,
        offset: stored.offset,
    }
}
