use domain::{Event, EventBatch, EventId, Payload, Span, Timestamp};
use sentinel_store::EventWriter as _;
use sentinel_store::memory::MemoryStore;

use super::*;

async fn insert(store: &MemoryStore, partition: u32, offsets: &[u64]) {
    let event = |offset: u64| Event {
        version: domain::event::WireVersion,
        id: EventId::from_bytes((u128::from(partition) << 64 | u128::from(offset)).to_be_bytes()),
        // The newest by time is not the last to arrive.
        timestamp: Timestamp::from_seconds(i64::try_from(1_000_000 - offset % 7).unwrap()),
        received_at: Timestamp::from_seconds(1_000_000),
        received_by: None,
        source: "test".to_owned(),
        event_type: "mcp.request".to_owned(),
        trace_id: None,
        span_id: None,
        parent_span_id: None,
        producer: None,
        producer_seq: None,
        payload: Box::new(Payload::default()),
    };
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
        return;
    };
    let batch = EventBatch {
        span: Span {
            partition,
            first: *first,
            end: last + 1,
        },
        events: offsets.iter().map(|offset| (*offset, event(*offset))).collect(),
        complete_through: Timestamp::default(),
    };
    store.insert(batch.into()).await.unwrap();
}

#[test]
fn places_read_back() {
    for text in ["0:0", "0:12", "0:12,3:9"] {
        assert_eq!(Place::parse(text).unwrap().to_string(), text);
    }
    for text in [
        "",
        "0",
        "0:",
        ":1",
        "0:-1",
        "0:1,0:2",
        "a:1",
        "0:1,",
        "0:18446744073709551615",
    ] {
        assert_eq!(Place::parse(text), None, "{text}");
    }
}

#[tokio::test]
async fn the_end_is_found_whatever_the_offsets() {
    for offsets in [
        vec![0],
        vec![5],
        vec![0, 1, 2],
        (0..3_000).collect(),
        vec![0, 10_000, 10_001],
        vec![1, 1 << 40, (1 << 40) + 3],
    ] {
        let store = MemoryStore::new();
        assert_eq!(end(&store).await.unwrap(), Place::default());
        insert(&store, 0, &offsets).await;
        insert(&store, 4, &offsets[..1]).await;
        let expected = format!("0:{},4:{}", offsets.last().unwrap(), offsets[0]);
        assert_eq!(end(&store).await.unwrap().to_string(), expected);
    }
}

#[tokio::test]
async fn every_partition_is_followed_and_a_new_one_found() {
    let store = MemoryStore::new();
    insert(&store, 3, &(0..1_200).collect::<Vec<_>>()).await;
    let mut follower = Follower::new(Arc::new(store.clone()), Place::default(), Filter::all(Scope::All));
    let mut seen = Vec::new();
    for turn in 0..3_u8 {
        let (from, wanted) = (u64::from(turn) * 2, if turn == 0 { 1_200 } else { 4 });
        if turn > 0 {
            insert(&store, 1, &[from, from + 1]).await;
            insert(&store, 3, &[1_200 + from, 1_201 + from]).await;
        }
        for _ in 0..wanted {
            let (id, stored) = follower.next().await.unwrap().unwrap();
            assert!(
                id.split(',')
                    .any(|part| part == format!("{}:{}", stored.partition, stored.offset)),
                "{id}"
            );
            seen.push((stored.partition, stored.offset));
        }
    }
    let total = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((seen.len(), total), (1_208, 1_208));
}
