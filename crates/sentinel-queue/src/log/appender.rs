//! The appending side: encodes in the caller's task, waits for the writer.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use domain::Event;

use super::Clock;
use super::disk::Disk;
use super::encode::{Body, encode, received_min};
use super::format::RECORD_HEADER_BYTES;
use super::shared::Shared;
use super::writer::Writer;
use crate::{AppendError, EventAppender};

/// Appends to the embedded log. Clones append to the same one.
///
/// Dropping the last clone waits until everything queued is written, and ends the writer; the tail then hands out the rest and ends.
#[derive(Debug, Clone)]
pub struct LogAppender(Arc<Open>);

#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl LogAppender {
    pub(super) fn start<D: Disk>(shared: Arc<Shared>, writer: Writer<D>, clock: Clock) -> io::Result<Self> {
        let writer = thread::Builder::new()
            .name("queue-log".to_owned())
            .spawn(move || writer.run(&clock))?;
        Ok(Self(Arc::new(Open {
            shared,
            writer: Some(writer),
        })))
    }

    async fn append_bodies(&self, arrival: super::shared::Arrival<'_>, bodies: Vec<Body>) -> Result<(), AppendError> {
        let bytes = bodies
            .iter()
            .map(|body| (RECORD_HEADER_BYTES + body.bytes.len()) as u64)
            .sum();
        self.0.shared.submit(arrival, bodies, bytes).await
    }

    /// Appends a line as it is, event or not.
    #[cfg(any(test, feature = "test-support"))]
    pub async fn append_line(&self, line: &[u8]) -> Result<(), AppendError> {
        let text = [line, b"\n"].concat();
        let arrival = self.0.shared.arrive(domain::Timestamp::MAX);
        self.append_bodies(arrival, vec![super::encode::body(&text, 1, 0)]).await
    }
}

impl EventAppender for LogAppender {
    async fn append(&self, events: &[Event]) -> Result<(), AppendError> {
        if events.is_empty() {
            return Ok(());
        }
        let arrival = self.0.shared.arrive(received_min(events));
        let bodies = encode(events, self.0.shared.text_bytes_max)?;
        self.append_bodies(arrival, bodies).await
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer thread of the log panicked");
        }
    }
}
