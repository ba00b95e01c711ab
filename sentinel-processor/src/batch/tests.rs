use domain::Span;
use proptest::prelude::*;
use sentinel_queue::contract::event;

use super::*;

fn lease(partition: u32, offsets: std::ops::Range<u64>) -> Lease {
    Lease {
        span: Span {
            partition,
            first: offsets.start,
            end: offsets.end,
        },
        records: offsets
            .clone()
            .map(|offset| Record::Event {
                offset,
                event: event(offset),
            })
            .collect(),
        complete_through: Timestamp::from_seconds(i64::try_from(offsets.end).unwrap()),
    }
}

fn spans(leases: &[Lease]) -> Vec<(u32, u64, u64)> {
    leases
        .iter()
        .map(|lease| (lease.span.partition, lease.span.first, lease.span.end))
        .collect()
}

const LIMIT: BatchLimit = BatchLimit {
    events: 10,
    bytes: 1 << 20,
};
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn without_waiting_each_lease_goes_at_once() {
    let mut batcher = Batcher::new(LIMIT, Duration::ZERO);
    assert_eq!(batcher.push(lease(0, 0..3), SECOND), Some(lease(0, 0..3)));
    assert_eq!(batcher.wait(SECOND), None);
}

#[test]
fn neighbours_are_joined_until_many_or_old() {
    let mut batcher = Batcher::new(LIMIT, SECOND);
    assert_eq!(batcher.push(lease(0, 0..3), Duration::ZERO), None);
    assert_eq!((batcher.limit().events, batcher.wait(SECOND / 4)), (7, Some(SECOND * 3 / 4)));
    assert_eq!(
        batcher.push(lease(0, 3..10), SECOND / 2),
        Some(lease(0, 0..10)),
        "ten are enough"
    );
    assert_eq!(batcher.push(lease(0, 10..11), SECOND), None);
    assert_eq!(batcher.due(SECOND * 3 / 2), None);
    assert_eq!(batcher.due(SECOND * 2), Some(lease(0, 10..11)), "a second is enough");
    assert_eq!(batcher.close(), None);
}

#[test]
fn another_partition_or_a_gap_is_never_joined() {
    let mut batcher = Batcher::new(LIMIT, SECOND);
    assert_eq!(batcher.push(lease(0, 0..3), Duration::ZERO), None);
    assert_eq!(batcher.push(lease(1, 3..4), Duration::ZERO), Some(lease(0, 0..3)));
    assert_eq!(batcher.push(lease(1, 7..9), Duration::ZERO), Some(lease(1, 3..4)));
    assert_eq!(batcher.close(), Some(lease(1, 7..9)));
}

#[test]
fn large_events_fill_a_batch_before_many_do() {
    let mut batcher = Batcher::new(
        BatchLimit {
            events: 1_000,
            bytes: 2_000,
        },
        SECOND,
    );
    let mut large = lease(0, 0..1);
    let Record::Event { event, .. } = &mut large.records[0] else {
        panic!()
    };
    event.payload.attributes.insert("note".to_owned(), "x".repeat(3_000));
    assert_eq!(batcher.push(large.clone(), Duration::ZERO), Some(large));
}

#[test]
fn what_is_no_event_goes_aside_and_the_span_keeps_its_place() {
    let mut mixed = lease(3, 5..8);
    mixed.records[1] = Record::Undecodable {
        offset: 6,
        bytes: b"{".to_vec(),
        reason: "half".to_owned(),
    };
    let (batch, letters) = split(mixed, Timestamp::from_seconds(9));
    assert_eq!(batch.events.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [5, 7]);
    assert_eq!(
        batch.span,
        Span {
            partition: 3,
            first: 5,
            end: 8
        }
    );
    let expected = NewDeadLetter {
        set_aside_at: Timestamp::from_seconds(9),
        partition: 3,
        offset: 6,
        reason: "half".to_owned(),
        record: b"{".to_vec(),
    };
    assert_eq!(letters, [expected]);
}

proptest! {
    #[test]
    fn nothing_is_lost_or_reordered(sizes in proptest::collection::vec((1_u64..8, 0_u64..600), 1..30), age_ms in 0_u64..1_000) {
        let mut batcher = Batcher::new(LIMIT, Duration::from_millis(age_ms));
        let (mut out, mut first, mut now) = (Vec::new(), 0, Duration::ZERO);
        for (size, wait_ms) in sizes {
            let size = size.min(batcher.limit().events as u64);
            out.extend(batcher.push(lease(0, first..first + size), now));
            first += size;
            now += Duration::from_millis(wait_ms);
            out.extend(batcher.due(now));
        }
        out.extend(batcher.close());
        prop_assert!(out.iter().all(|lease| lease.records.len() <= LIMIT.events));
        let spans = spans(&out);
        prop_assert!(spans.windows(2).all(|pair| pair[0].2 == pair[1].1), "{:?}", spans);
        prop_assert_eq!((spans[0].1, spans[spans.len() - 1].2), (0, first));
    }

    #[test]
    fn halves_cover_the_same_offsets(count in 2_u64..30) {
        let (batch, _) = split(lease(0, 0..count), Timestamp::default());
        let (first, second) = halve(batch.clone()).unwrap();
        prop_assert_eq!((first.span.first, first.span.end, second.span.end), (0, second.span.first, count));
        prop_assert!(!first.events.is_empty() && !second.events.is_empty());
        let joined: Vec<_> = first.events.into_iter().chain(second.events).collect();
        prop_assert_eq!(joined, batch.events);
    }
}
