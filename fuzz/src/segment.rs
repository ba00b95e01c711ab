//! A segment file of the embedded log.

use std::fs;
use std::time::Duration;

use domain::Timestamp;
use sentinel_queue::log::{LogConfig, open};
use sentinel_queue::{BatchLimit, EventTail as _};

const LIMIT: BatchLimit = BatchLimit {
    events: 1_000,
    bytes: 1 << 20,
};

/// The newest segment of a folder: opening refuses it or cuts it, and whatever is left is read to its end.
pub(crate) fn read(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder for the log");
    fs::write(folder.path().join("0000000001.log"), bytes).expect("writing the segment");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let now = || Timestamp::from_seconds(1_795_000_000);
    let Ok((_appender, mut tail)) = open(LogConfig::new(folder.path()), now) else {
        return;
    };
    runtime.block_on(async {
        let mut end = 0;
        while tail.lag().events > 0 {
            let next = tokio::time::timeout(Duration::from_mins(1), tail.next(LIMIT)).await;
            let Ok(lease) = next.expect("what waits is handed out") else {
                return;
            };
            assert!(lease.span.first >= end, "reading goes on");
            end = lease.span.end;
        }
    });
}
