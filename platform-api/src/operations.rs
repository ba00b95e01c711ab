//! What operators do to a running system: the seam that the standalone process (and later the cluster) implements.

use std::fmt::Debug;

use domain::Timestamp;
use domain::operations::{DeadLetter, KeyView, LogLine, NewKey, SystemStatus};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use service_kit::LogFilter;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Something an operator asked for that was not done. The texts are for who asked.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There is no such thing; the text says which ones there are, where that helps.
    #[error("{0}")]
    NotFound(String),
    /// The wish is wrong; the text says what would be right.
    #[error("{0}")]
    Invalid(String),
    /// The thing is in a state that does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
    /// Our fault.
    #[error("carrying out an operation")]
    Failed(#[source] Source),
}

/// How the system is.
pub trait Status: Debug + Send + Sync + 'static {
    fn system_status(&self) -> BoxFuture<'_, Result<SystemStatus, OperationError>>;

    /// Restarts a component, and waits until it is ready again. Where nobody here can, the text says who can.
    fn restart(&self, component: &str) -> BoxFuture<'_, Result<(), OperationError>> {
        let text = format!("`{component}` is not restarted from here: it is part of a process that somebody else started");
        Box::pin(std::future::ready(Err(OperationError::Conflict(text))))
    }
}

/// Which run of the system a log is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRun {
    /// The one that answers.
    This,
    /// The one before it.
    Previous,
}

/// What components write into their logs. `filter.component` is not set: the component is a key such as `gateway`.
pub trait Logs: Debug + Send + Sync + 'static {
    /// The kept lines that pass, oldest first.
    fn log_lines(&self, component: &str, run: LogRun, filter: LogFilter)
    -> BoxFuture<'_, Result<Vec<LogLine>, OperationError>>;

    /// The kept lines that pass, then every later one, without end.
    fn follow_log_lines(&self, component: &str, filter: LogFilter) -> Result<BoxStream<'static, LogLine>, OperationError>;
}

/// An ingest key to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Namespace it may write; `*` for any.
    pub namespace: String,
    /// Server it may write; absent for any of the namespace.
    pub server: Option<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Events per second it may send.
    pub events_per_second_max: Option<u32>,
    /// What it is for.
    pub note: String,
}

/// The keys that senders of events hold.
pub trait Keys: Debug + Send + Sync + 'static {
    /// Every key, revoked and ended ones too, newest first.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyView>, OperationError>>;

    /// Makes a key. `Ok`: it is kept and works.
    fn create_key(&self, spec: KeySpec) -> BoxFuture<'_, Result<NewKey, OperationError>>;

    /// Ends a key now. Revoking twice is the same as once.
    fn revoke_key(&self, id: &str) -> BoxFuture<'_, Result<KeyView, OperationError>>;

    /// Makes a key with the same rights, and lets the old one end at `old_ends_at`, so that both work meanwhile.
    fn rotate_key(&self, id: &str, old_ends_at: Timestamp) -> BoxFuture<'_, Result<NewKey, OperationError>>;
}

/// Some dead letters, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterPage {
    pub dead_letters: Vec<DeadLetter>,
    pub has_more: bool,
}

/// Records that could not be stored.
pub trait DeadLetters: Debug + Send + Sync + 'static {
    /// Those with an id above `after`, oldest first.
    fn dead_letters(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<DeadLetterPage, OperationError>>;

    /// One of them.
    fn dead_letter(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, OperationError>>;

    /// Sends it through the pipeline again and forgets it here. `Ok`: it is durable in the queue.
    fn replay_dead_letter(&self, id: u64) -> BoxFuture<'_, Result<(), OperationError>>;

    /// Forgets it for good.
    fn discard_dead_letter(&self, id: u64) -> BoxFuture<'_, Result<(), OperationError>>;
}

/// Everything the API asks of the system it runs in.
pub trait Operations: Status + Logs + Keys + DeadLetters {}
impl<T: Status + Logs + Keys + DeadLetters> Operations for T {}
