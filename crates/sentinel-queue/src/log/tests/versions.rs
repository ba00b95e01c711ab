//! Logs as earlier versions of this program left them on disk.

use super::*;

/// What ingest wrote in version 1: three appends of 1, 40 and 1 events, the second one compressed.
const V1: &[u8] = include_bytes!("../../../fixtures/log-v1.log");
/// The same in version 2.
const V2: &[u8] = include_bytes!("../../../fixtures/log-v2.log");

#[tokio::test]
async fn logs_of_every_version_read_and_grow() {
    for (version, bytes) in [(1, V1), (2, V2)] {
        assert_eq!(bytes[4], version, "the fixture is of the version that it is named after");
        let dir = TempDir::new().unwrap();
        std::fs::write(segment::path_of(dir.path(), 1), bytes).unwrap();
        let (appender, mut tail) = open(LogConfig::new(dir.path()), clock()).unwrap();
        appender.append(&events(42..45)).await.unwrap();
        let limit = BatchLimit { events: 42, ..ALL };
        let records = tail.next(limit).await.unwrap().records;
        let written: Vec<domain::Event> = records
            .into_iter()
            .map(|record| match record {
                Record::Event { event, .. } => event,
                Record::Undecodable { .. } => panic!("version {version}: {record:?}"),
            })
            .collect();
        assert_eq!(written.len(), 42, "version {version}");
        for (number, event) in (0_u64..).zip(&written) {
            assert_eq!(event.id.to_string(), format!("0190f1e0-0000-7abc-8def-{number:012}"));
            assert_eq!(event.timestamp.to_string(), format!("2026-11-22T15:04:05.{number:09}Z"));
            assert_eq!(event.received_by.as_deref(), Some("abcdefghijkl"));
            assert_eq!(
                (event.source.as_str(), event.producer_seq),
                ("payments-gateway", Some(number))
            );
            let payload = &event.payload;
            assert_eq!(payload.tool_name, Some(format!("tool-{}", number % 3)));
            assert_eq!((payload.rpc_code, payload.latency_us), (Some(-32_602), Some(number * 1_000)));
            assert_eq!(payload.attributes.get("pod").map(String::as_str), Some("payments-0"));
        }
        assert_eq!(drain(&mut tail).await, [(42, 42), (43, 43), (44, 44)], "version {version}");
    }
}
