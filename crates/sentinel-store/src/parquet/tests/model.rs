use std::collections::HashSet;
use std::sync::Arc;

use domain::{Event, EventBatch, EventId, Span, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::events::{Hand, NOON, counted, event, id, merge, still};
use crate::EventWriter as _;
use crate::parquet::{ParquetConfig, ParquetStore};

/// Mostly new ids in nearly the order of their making; some come again, now or much later, and some are of another version.
fn next_id(random: &mut SmallRng, number: u64) -> EventId {
    match random.random_range(0..20) {
        0 => id(random.random_range(0..=number)),
        1 => id(number.saturating_sub(random.random_range(0..40))),
        2 | 3 => {
            let mut bytes = *id(random.random_range(0..=number)).as_bytes();
            bytes[6] = 0x40 | (bytes[6] & 0x0f);
            EventId::from_bytes(bytes)
        }
        _ => id(number),
    }
}

/// What the queue holds: two partitions.
fn queue(random: &mut SmallRng) -> [Vec<Event>; 2] {
    let mut queue = [Vec::new(), Vec::new()];
    for number in 0..1_500 {
        let mut event = event(number);
        event.id = next_id(random, number);
        event.timestamp = Timestamp::from_seconds(NOON + random.random_range(-200_000..0));
        queue[random.random_range(0..2)].push(event);
    }
    queue
}

async fn check(store: &ParquetStore, queue: &[Vec<Event>; 2], ends: [usize; 2], seed: u64) {
    let known: HashSet<EventId> = queue
        .iter()
        .zip(ends)
        .flat_map(|(events, end)| events[..end].iter().map(|event| event.id))
        .collect();
    assert_eq!(counted(store).await, known.len() as u64, "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_id_counts_once() {
    for seed in 0..6 {
        let mut random = SmallRng::seed_from_u64(seed);
        let queue = queue(&mut random);
        let folder = tempfile::tempdir().unwrap();
        let hand = Hand::at(NOON);
        let config = ParquetConfig {
            recent_ids_max: 100,
            ..still(folder.path())
        };
        let mut store = ParquetStore::open(config.clone(), hand.clock()).unwrap();
        let mut ends = [0_usize; 2];
        while ends != [queue[0].len(), queue[1].len()] {
            match random.random_range(0..20) {
                0 => {
                    drop(store);
                    store = ParquetStore::open(config.clone(), hand.clock()).unwrap();
                    for (partition, end) in ends.iter_mut().enumerate() {
                        *end = usize::try_from(store.durable_end(u32::try_from(partition).unwrap())).unwrap();
                    }
                    check(&store, &queue, ends, seed).await;
                }
                1 | 2 => store.flush().await.unwrap(),
                3 => merge(&store).await.unwrap(),
                _ => {
                    let partition = random.random_range(0..2);
                    let first = ends[partition].saturating_sub(random.random_range(0..30));
                    let end = (first + random.random_range(0..150)).min(queue[partition].len());
                    let span = Span {
                        partition: u32::try_from(partition).unwrap(),
                        first: first as u64,
                        end: end as u64,
                    };
                    let events = (first..end)
                        .map(|offset| (offset as u64, queue[partition][offset].clone()))
                        .collect();
                    store
                        .insert(Arc::new(EventBatch {
                            span,
                            events,
                            complete_through: Timestamp::MIN,
                        }))
                        .await
                        .unwrap();
                    ends[partition] = ends[partition].max(end);
                }
            }
        }
        check(&store, &queue, ends, seed).await;
    }
}
