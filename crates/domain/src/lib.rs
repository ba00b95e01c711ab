//! The words every other crate speaks: ids, the event, positions in a queue, and the answers of analytics queries.
//!
//! Nothing here does I/O, knows a runtime or reads a clock. Whatever crosses a process boundary is defined here or in
//! `crds`, and only there.

pub mod alerts;
pub mod analytics;
pub mod delivery;
pub mod event;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod ids;
pub mod inventory;
pub mod operations;
pub mod policy;
pub mod time;

mod json_text;
mod text_enum;

pub use delivery::{EventBatch, Position, Span};
pub use event::columns::{COLUMNS, Column, Kind, Value};
pub use event::{Decision, Era, Event, EventFault, FaultCode, Identity, Outcome, Payload, ResponseKind};
pub use ids::{EventId, Namespace, ServerName, SpanId, TraceId};
pub use time::Timestamp;
