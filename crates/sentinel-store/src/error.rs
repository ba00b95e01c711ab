//! Faults of a store, and what to do about each.

/// What the maker of a fault advises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Passing: do the same again, later.
    Retry,
    /// This event will never work: keep it elsewhere and go on.
    SetAside,
    /// Only a person can help.
    Stop,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A batch could not be stored. Nothing is known about it: insert it again.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// The disk or server refuses for now.
    #[error("storing events")]
    Unavailable(#[source] Source),
    /// The event at this offset cannot be stored as it is.
    #[error("storing the event at offset {offset}")]
    Unfit {
        /// Its offset in the batch's partition.
        offset: u64,
        /// Why not.
        #[source]
        source: Source,
    },
    /// What was written is not what is there.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store was shut down.
    #[error("the store is closed")]
    Closed,
}

impl InsertError {
    /// What to do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unavailable(_) => Remedy::Retry,
            Self::Unfit { .. } => Remedy::SetAside,
            Self::Damaged(_) | Self::Closed => Remedy::Stop,
        }
    }
}

/// A question that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The question is wrong; the text is for who asked, and says what would be right.
    #[error("{0}")]
    Invalid(String),
    /// The question took longer, more memory or more rows than allowed; the text is for who asked.
    #[error("{0}")]
    OverLimit(String),
    /// The store failed.
    #[error("answering a query")]
    Failed(#[source] Source),
}
