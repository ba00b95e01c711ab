use std::collections::BTreeMap;

use super::*;
use crate::contract::{self, Subject, event};

struct Memory {
    bytes_max: u64,
    appender: Option<MemoryAppender>,
}

impl Subject for Memory {
    type Appender = MemoryAppender;
    type Tail = MemoryTail;

    async fn create(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            appender: None,
        }
    }

    /// What "both sides are gone" means for a queue that lives in memory: its contents stay, its reader begins anew.
    async fn open(&mut self) -> (MemoryAppender, MemoryTail) {
        let appender = match self.appender.take() {
            Some(before) => MemoryAppender {
                appended: Arc::new(watch::Sender::new(0)),
                ..before
            },
            None => queue(self.bytes_max).0,
        };
        // Kept with a channel of its own, so that dropping the appender handed out closes the tail.
        self.appender = Some(MemoryAppender {
            appended: Arc::new(watch::Sender::new(0)),
            ..appender.clone()
        });
        let tail = appender.tail();
        (appender, tail)
    }

    async fn append_line(&self, appender: &MemoryAppender, line: &[u8]) {
        appender.append_line(line, Timestamp::from_seconds(1)).unwrap();
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    contract::suite::<Memory>().await;
}

#[tokio::test]
async fn partitions_are_read_in_turn_and_each_in_order() {
    let (appender, mut tail) = partitioned(1 << 20, 4);
    let mut sent: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for number in 0..200 {
        let mut event = event(number);
        let server = format!("server-{}", number % 11);
        event.payload.server = Some(server.clone());
        sent.entry(server).or_default().push(number);
        appender.append(&[event]).await.unwrap();
    }
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut partitions = Vec::new();
    while tail.lag().events > 0 {
        let lease = tail
            .next(BatchLimit {
                events: 5,
                bytes: 1 << 20,
            })
            .await
            .unwrap();
        partitions.push(lease.span.partition);
        for record in lease.records {
            let crate::Record::Event { event, .. } = record else {
                panic!("{record:?}")
            };
            seen.entry(event.server().to_owned()).or_default().extend(event.producer_seq);
        }
    }
    assert_eq!(seen, sent);
    assert_ne!(
        partitions[0], partitions[1],
        "a partition with more does not starve the others: {partitions:?}"
    );
}
