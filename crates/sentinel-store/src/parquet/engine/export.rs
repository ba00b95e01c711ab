//! Every matching event, encoded piece by piece: one sorted query is read at the speed of who takes the pieces.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio::sync::mpsc;

use super::pages::sorting;
use super::typed::{conditions, times};
use super::{Engine, Tables, fault, sql};
use crate::memory::terms::Terms;
use crate::parquet::convert::to_events;
use crate::parquet::schema::Table;
use crate::query::{ExportFormat, ExportQuery, Order};
use crate::{ByteStream, QueryError};

/// Pieces that wait for who takes them.
const PIECES_MAX: usize = 4;
/// Rows of a row group of an exported Parquet file; a group is held in memory until it is whole.
const GROUP_ROWS: usize = 32_768;

type Piece = Result<Bytes, QueryError>;

impl Engine {
    pub(in crate::parquet) async fn export(
        &self,
        tables: Arc<dyn Tables>,
        query: ExportQuery,
    ) -> Result<ByteStream, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let context = self.session();
        let format = query.format;
        let rows = self
            .run(async move {
                let rows = context.read_table(tables.table(Table::Events, &terms.scope)).map_err(fault)?;
                let wanted = conditions(&terms.conditions).and(times(Table::Events, &[(terms.since, terms.until)]));
                let rows = rows
                    .filter(wanted)
                    .and_then(|rows| rows.sort(sorting(Order::Arrival(None))))
                    .map_err(fault)?;
                // Readers of text want ids as text; readers of columns get the columns of the store.
                let rows = if format == ExportFormat::Csv {
                    rows.select(sql::text_columns(Table::Events)).map_err(fault)?
                } else {
                    rows
                };
                rows.execute_stream().await.map_err(fault)
            })
            .await?;
        let (send, receive) = mpsc::channel(PIECES_MAX);
        // Ends when the last piece is sent, or when nobody receives.
        drop(self.handle.spawn(async move {
            if let Err(error) = encode(rows, format, &send).await {
                drop(send.send(Err(error)).await);
            }
        }));
        Ok(stream::unfold(receive, |mut receive| async {
            receive.recv().await.map(|piece| (piece, receive))
        })
        .boxed())
    }
}

async fn encode(
    mut rows: SendableRecordBatchStream,
    format: ExportFormat,
    send: &mpsc::Sender<Piece>,
) -> Result<(), QueryError> {
    let sink = Sink::default();
    let mut encoder = Encoder::new(format, &rows.schema(), &sink).map_err(fault)?;
    while let Some(batch) = rows.try_next().await.map_err(fault)? {
        encoder.write(&batch, &sink).map_err(fault)?;
        let piece = sink.take();
        if !piece.is_empty() && send.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
    encoder.finish().map_err(fault)?;
    let piece = sink.take();
    if !piece.is_empty() {
        drop(send.send(Ok(piece)).await);
    }
    Ok(())
}

/// Where encoders write, and pieces are taken from.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Encoder {
    Ndjson,
    Csv(Box<arrow::csv::Writer<Sink>>),
    Arrow(Box<StreamWriter<Sink>>),
    Parquet(Box<ArrowWriter<Sink>>),
}

impl Encoder {
    fn new(format: ExportFormat, schema: &SchemaRef, sink: &Sink) -> Result<Self, DataFusionError> {
        Ok(match format {
            ExportFormat::Ndjson => Self::Ndjson,
            ExportFormat::Csv => {
                let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(sink.clone());
                // The header line, also when there is no event.
                writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
                Self::Csv(Box::new(writer))
            }
            ExportFormat::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(sink.clone(), schema)?)),
            ExportFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(GROUP_ROWS))
                    .build();
                Self::Parquet(Box::new(ArrowWriter::try_new(
                    sink.clone(),
                    Arc::clone(schema),
                    Some(properties),
                )?))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch, sink: &Sink) -> Result<(), DataFusionError> {
        match self {
            Self::Ndjson => {
                let mut lines = Vec::new();
                for stored in to_events(batch)? {
                    serde_json::to_writer(&mut lines, &stored.event)
                        .map_err(|error| DataFusionError::External(error.into()))?;
                    lines.push(b'\n');
                }
                sink.clone().write_all(&lines)?;
            }
            Self::Csv(writer) => writer.write(batch)?,
            Self::Arrow(writer) => writer.write(batch)?,
            Self::Parquet(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<(), DataFusionError> {
        match self {
            Self::Ndjson | Self::Csv(_) => {}
            Self::Arrow(mut writer) => writer.finish()?,
            Self::Parquet(writer) => drop(writer.close()?),
        }
        Ok(())
    }
}
