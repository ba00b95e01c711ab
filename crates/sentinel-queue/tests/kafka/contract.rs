//! The suite that every queue must pass.

use kafka_service::Cluster;
use sentinel_queue::contract::{self, Subject};
use sentinel_queue::kafka::{KafkaAppender, KafkaTail};

use crate::support::Names;

struct Kafka(Names);

impl Subject for Kafka {
    type Appender = KafkaAppender;
    type Tail = KafkaTail;
    const DENSE: bool = false;
    const BOUNDED: bool = false;
    const ENDS: bool = false;

    async fn create(_bytes_max: u64) -> Self {
        Self(Names::new(Cluster::shared().bootstrap()))
    }

    async fn open(&mut self) -> (KafkaAppender, KafkaTail) {
        let appender = self.0.appender(&["--kafka-partitions=1", "--kafka-linger-ms=0"]).await;
        (appender, self.0.tail(&[]).await)
    }

    async fn append_line(&self, appender: &KafkaAppender, line: &[u8]) {
        appender.append_line(line).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    contract::suite::<Kafka>().await;
}
