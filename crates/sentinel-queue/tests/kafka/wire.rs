//! What others see in the topic, and who may send.

use std::time::Duration;

use kafka_service::Cluster;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use sentinel_queue::kafka::{ConnectError, KafkaAppender};
use sentinel_queue::{AppendError, EventAppender as _, contract};
use tokio::time::Instant;

use crate::support::{DEADLINE, Names, events_of, soon};

fn consumer(names: &Names) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &names.brokers)
        .set("group.id", "stranger")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&names.topic]).unwrap();
    consumer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_consumer_can_read_the_lines_and_the_headers() {
    let names = Names::new(Cluster::shared().bootstrap());
    let appender = names.appender(&["--kafka-partitions=3", "--kafka-compression=zstd"]).await;
    let mut events = events_of(0..30, 3);
    events[0].trace_id = "0af7651916cd43dd8448eb211c80319c".parse().ok();
    events[0].span_id = "b7ad6b7169203331".parse().ok();
    appender.append(&events).await.unwrap();
    let consumer = consumer(&names);
    let (mut records, begun) = (0, Instant::now());
    while records < 3 {
        let Some(message) = tokio::task::block_in_place(|| consumer.poll(Duration::from_millis(100))) else {
            assert!(begun.elapsed() < DEADLINE, "{records} records");
            continue;
        };
        let message = message.unwrap();
        let key = message.key_view::<str>().unwrap().unwrap();
        let text = message.payload_view::<str>().unwrap().unwrap();
        let headers = message.headers().unwrap();
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.key == name);
            found
                .and_then(|header| header.value)
                .map(|value| String::from_utf8(value.to_vec()).unwrap())
        };
        assert_eq!(header("count").as_deref(), Some("10"));
        assert_eq!(header("schema").as_deref(), Some("1"));
        assert_eq!(header("content-type").as_deref(), Some("application/x-ndjson"));
        let traced = key == "acme/server-0";
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
        assert_eq!(header("traceparent"), traced.then_some(traceparent));
        assert_eq!(text.lines().count(), 10);
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(key, format!("acme/{}", row["payload"]["server"].as_str().unwrap()));
        }
        assert!(
            matches!(message.timestamp(), rdkafka::Timestamp::LogAppendTime(_)),
            "{:?}",
            message.timestamp()
        );
        records += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_and_a_password_work_without_tls_and_wrong_ones_do_not() {
    let cluster = Cluster::shared();
    let names = Names::new(cluster.sasl_bootstrap());
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    std::fs::write(&right, "secret\n").unwrap();
    std::fs::write(&wrong, "guess").unwrap();
    let config = |file: &std::path::Path| {
        names.appender_config(&[
            "--kafka-security=sasl_plaintext",
            "--kafka-sasl-username=tester",
            "--kafka-sasl-password-file",
            file.to_str().unwrap(),
            "--kafka-start-timeout-ms=1500",
        ])
    };
    let text = format!("{:?}", config(&right));
    assert!(!text.contains("secret"), "{text}");
    let refused = soon("a refusal", KafkaAppender::connect(config(&wrong))).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused:?}");
    let missing = soon("a refusal", KafkaAppender::connect(config(&dir.path().join("none")))).await;
    assert!(matches!(missing, Err(ConnectError::Secret { .. })), "{missing:?}");
    let appender = soon(
        "the brokers",
        KafkaAppender::connect(names.appender_config(&[
            "--kafka-security=sasl_plaintext",
            "--kafka-sasl-username=tester",
            "--kafka-sasl-password-file",
            right.to_str().unwrap(),
        ])),
    )
    .await
    .unwrap();
    appender.append(&contract::events(0..1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_or_not_fit_is_told_at_start() {
    let names = Names::new(Cluster::shared().bootstrap());
    let fail = async |more: &[&str]| KafkaAppender::connect(names.appender_config(more)).await.unwrap_err();
    let missing = fail(&["--kafka-create-topics=false"]).await;
    assert!(matches!(missing, ConnectError::Missing { .. }), "{missing:?}");
    drop(names.appender(&["--kafka-partitions=1"]).await);
    let unfit = fail(&["--kafka-record-bytes-max=2000000"]).await;
    assert!(
        matches!(
            unfit,
            ConnectError::Unfit {
                setting: "max.message.bytes",
                ..
            }
        ),
        "{unfit:?}"
    );
    let nobody = Names {
        brokers: "127.0.0.1:1".to_owned(),
        ..names
    };
    let config = nobody.appender_config(&["--kafka-start-timeout-ms=500"]);
    let unreachable = soon("a refusal", KafkaAppender::connect(config)).await.unwrap_err();
    assert!(matches!(unreachable, ConnectError::Unreachable { .. }), "{unreachable:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_too_large_is_refused_and_its_neighbours_can_go_without_it() {
    let names = Names::new(Cluster::shared().bootstrap());
    let appender = names
        .appender(&["--kafka-partitions=1", "--kafka-record-bytes-max=2000"])
        .await;
    let mut large = contract::event(1);
    large.payload.tool_name = Some("x".repeat(3_000));
    let refused = appender.append(&[contract::event(0), large]).await.unwrap_err();
    assert!(
        matches!(refused, AppendError::TooLarge { bytes_max: 2_000, .. }),
        "{refused:?}"
    );
    appender.append(&contract::events(0..50)).await.unwrap();
}
