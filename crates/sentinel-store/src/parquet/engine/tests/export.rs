//! Exports.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_every_event_of_the_scope_once_in_order_of_arrival_in_every_format() {
    let bench = Bench::with_events().await;
    let filter = Filter::all(globex());
    let page = bench
        .rows
        .events(EventQuery {
            filter: filter.clone(),
            order: Order::Arrival(None),
            limit: u32::MAX,
        })
        .await
        .unwrap();
    assert!(page.events.len() > 100);
    let whole = async |format| {
        let pieces: Vec<Bytes> = bench
            .export(ExportQuery {
                filter: filter.clone(),
                format,
            })
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        pieces.concat()
    };
    let expected: Vec<_> = page.events.iter().map(|stored| stored.event.clone()).collect();
    let lines = whole(ExportFormat::Ndjson).await;
    let read: Vec<domain::Event> = lines
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(read, expected);

    let arrow = whole(ExportFormat::Arrow).await;
    let batches = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    let read: Vec<_> = batches.flat_map(|batch| to_events(&batch.unwrap()).unwrap()).collect();
    assert_eq!(read, page.events);

    let file = Bytes::from(whole(ExportFormat::Parquet).await);
    let batches = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let read: Vec<_> = batches.flat_map(|batch| to_events(&batch.unwrap()).unwrap()).collect();
    assert_eq!(read, page.events);

    let csv = String::from_utf8(whole(ExportFormat::Csv).await).unwrap();
    assert!(csv.starts_with("id,timestamp,received_at,"), "{csv:.80}");
    for stored in &page.events {
        assert!(csv.contains(&stored.event.id.to_string()));
    }
}
