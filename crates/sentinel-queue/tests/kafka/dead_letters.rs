//! Dead letters on the brokers: seen by all, kept until discarded.

use domain::Timestamp;
use kafka_service::Cluster;
use sentinel_queue::dead_letters::{DeadLetterError, DeadLetters as _, NewDeadLetter, Replayed, replay};
use sentinel_queue::kafka::KafkaDeadLetters;
use sentinel_queue::{BatchLimit, EventTail as _, Record, contract};

use crate::support::{Names, soon, until};

fn letter(offset: u64, record: &[u8]) -> NewDeadLetter {
    NewDeadLetter {
        set_aside_at: Timestamp::from_seconds(1_800_000_000),
        partition: 2,
        offset,
        reason: "the record is no event".to_owned(),
        record: record.to_vec(),
    }
}

async fn connect(names: &Names, bytes_max: u64) -> KafkaDeadLetters {
    let config = names.tail_config(&["--kafka-dlq-topic", &format!("{}.dlq", names.topic)]);
    soon("dead letters", KafkaDeadLetters::connect(config.connection(), bytes_max))
        .await
        .unwrap()
}

async fn offsets(letters: &KafkaDeadLetters) -> Vec<u64> {
    let listed = letters.list(0, 100).await.unwrap();
    listed.iter().map(|letter| letter.offset).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_kept_shown_and_forgotten_whoever_asks() {
    let names = Names::new(Cluster::shared().bootstrap());
    let (one, other) = (connect(&names, 1 << 20).await, connect(&names, 1 << 20).await);
    one.put(vec![letter(5, b"a"), letter(9, b"b"), letter(5, b"a")])
        .await
        .unwrap();
    one.put(vec![letter(9, b"b"), letter(12, &[b'x'; 700_000])]).await.unwrap();
    assert_eq!(
        offsets(&one).await,
        [5, 9, 12],
        "a record handed out again is the same letter"
    );
    until("the other sees them", || other.count() == 3).await;
    let listed = other.list(0, 2).await.unwrap();
    assert_eq!(other.list(listed[1].id, 10).await.unwrap().len(), 1);
    assert_eq!(other.show(listed[0].id).await.unwrap().as_ref(), Some(&listed[0]));
    assert_eq!(listed[0].record, "a");
    assert_eq!(other.discard(vec![listed[0].id, listed[0].id, 7_777]).await.unwrap(), 1);
    until("the first sees that one is gone", || one.count() == 2).await;
    let full = one.put(vec![letter(20, &[b'y'; 600_000])]).await.unwrap_err();
    assert!(matches!(full, DeadLetterError::Full { .. }), "{full:?}");
    drop((one, other));
    let again = connect(&names, 1 << 20).await;
    assert_eq!(offsets(&again).await, [9, 12], "they outlive the processes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_too_large_for_the_brokers_keep_their_beginning() {
    let names = Names::new(Cluster::shared().bootstrap());
    let letters = connect(&names, 10 << 20).await;
    // As JSON each of these bytes takes six.
    letters.put(vec![letter(1, &[1; 400_000])]).await.unwrap();
    let kept = letters.list(0, 1).await.unwrap().remove(0);
    assert_eq!(kept.record.len(), 100_000);
    assert!(kept.reason.contains("only its beginning"), "{}", kept.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mended_letter_is_appended_again() {
    let names = Names::new(Cluster::shared().bootstrap());
    let letters = connect(&names, 1 << 20).await;
    let appender = names.appender(&["--kafka-partitions=1"]).await;
    let event = contract::event(7);
    letters
        .put(vec![letter(1, &serde_json::to_vec(&event).unwrap()), letter(2, b"nonsense")])
        .await
        .unwrap();
    let ids: Vec<u64> = letters.list(0, 9).await.unwrap().iter().map(|letter| letter.id).collect();
    let Replayed {
        appended, unreadable, ..
    } = replay(&ids, &letters, &appender).await.unwrap();
    assert_eq!((appended, unreadable.len(), letters.count()), (vec![ids[0]], 1, 1));
    let mut tail = names.tail(&[]).await;
    let limit = BatchLimit {
        events: 9,
        bytes: 1 << 20,
    };
    let lease = soon("the event", tail.next(limit)).await.unwrap();
    assert!(
        matches!(&lease.records[..], [Record::Event { event: read, .. }] if *read == event),
        "{lease:?}"
    );
}
