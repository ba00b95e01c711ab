//! Several tails share the work: claims move with partitions, and who lost one settles nothing.

use std::collections::BTreeMap;
use std::error::Error as _;

use kafka_service::Cluster;
use sentinel_queue::kafka::KafkaTail;
use sentinel_queue::{BatchLimit, EventAppender as _, EventTail as _, Lease, Record, Remedy, contract};

use crate::support::{Names, events_of, soon, until};

const FEW: BatchLimit = BatchLimit {
    events: 3,
    bytes: 1 << 20,
};

async fn next(tail: &mut KafkaTail) -> Lease {
    soon("a lease", tail.next(FEW)).await.unwrap()
}

fn numbers(lease: &Lease) -> Vec<u64> {
    let number = |record: &Record| match record {
        Record::Event { event, .. } => event.producer_seq,
        Record::Undecodable { .. } => None,
    };
    lease.records.iter().filter_map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_was_handed_out_comes_again_with_the_same_span() {
    let names = Names::new(Cluster::shared().bootstrap());
    let appender = names.appender(&["--kafka-partitions=1"]).await;
    appender.append(&contract::events(0..5)).await.unwrap();
    appender.append(&contract::events(5..10)).await.unwrap();
    let mut first = names.tail(&[]).await;
    let spans = [next(&mut first).await.span, next(&mut first).await.span];
    soon("commit", first.commit(0, spans[0].end)).await.unwrap();
    // Not committed again; it goes as a process that is killed goes.
    drop(first);
    let mut second = names.tail(&[]).await;
    let limit = BatchLimit { events: 100, ..FEW };
    let again = soon("a lease", second.next(limit)).await.unwrap();
    assert_eq!(
        (again.span, numbers(&again)),
        (spans[1], vec![3, 4, 5]),
        "the claim, not the limit"
    );
    let rest = soon("a lease", second.next(limit)).await.unwrap();
    assert_eq!((rest.span.first, numbers(&rest)), (spans[1].end, vec![6, 7, 8, 9]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_with_their_claims_and_late_commits_are_kept_from_the_group() {
    let names = Names::new(Cluster::shared().bootstrap());
    let appender = names.appender(&["--kafka-partitions=2"]).await;
    let mut first = names.tail(&[]).await;
    until("the first has both", || first.partitions() == [0, 1]).await;
    appender.append(&events_of(0..40, 8)).await.unwrap();
    let mut handed: BTreeMap<u32, Vec<Lease>> = BTreeMap::new();
    for _ in 0..6 {
        let lease = next(&mut first).await;
        handed.entry(lease.span.partition).or_default().push(lease);
    }
    let mut second = names.tail(&[]).await;
    until("each has one", || {
        first.partitions().len() == 1 && second.partitions().len() == 1
    })
    .await;
    let moved = second.partitions()[0];
    let leases = &handed[&moved];
    // The first still stores what it was given, and settles it. The group must not hear of it.
    soon("a late commit", first.commit(moved, leases[0].span.end)).await.unwrap();
    for lease in leases {
        let again = next(&mut second).await;
        assert_eq!(
            (again.span, numbers(&again)),
            (lease.span, numbers(lease)),
            "all of it comes again, as it was"
        );
    }
    drop(second);
    until("the first has both again", || first.partitions() == [0, 1]).await;
    let mut seen = Vec::new();
    while seen.iter().filter(|lease: &&Lease| lease.span.partition == moved).count() < leases.len() {
        seen.push(next(&mut first).await);
    }
    let back = seen.iter().find(|lease| lease.span.partition == moved).unwrap();
    assert_eq!(
        back.span.first, leases[0].span.end,
        "what it knows to be final does not come again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_holds_less_than_the_group_has_read_stops_the_reader() {
    let names = Names::new(Cluster::shared().bootstrap());
    let appender = names.appender(&["--kafka-partitions=1"]).await;
    appender.append(&contract::events(0..1)).await.unwrap();
    names.commit_record(5);
    let mut tail = names.tail(&[]).await;
    let fault = soon("a fault", async {
        loop {
            if let Err(fault) = tail.next(FEW).await
                && fault.remedy() == Remedy::Stop
            {
                break fault;
            }
        }
    });
    let cause = fault.await.source().unwrap().to_string();
    assert!(cause.contains("holds record 0 where 5 was due"), "{cause}");
}
