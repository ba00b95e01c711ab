//! Faults of a queue, and what to do about each.

use std::io;
use std::path::PathBuf;

/// What the maker of a fault advises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Passing: do the same again, later.
    Retry,
    /// This record will never work: keep it elsewhere and go on.
    SetAside,
    /// Only a person can help.
    Stop,
}

/// Events could not be made durable. Nothing is known about them: send them again.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The queue holds as much as it may until the processor catches up.
    #[error("the queue is full: {bytes} of at most {bytes_max} bytes wait for the processor")]
    Full {
        /// Bytes held.
        bytes: u64,
        /// Bytes allowed.
        bytes_max: u64,
    },
    /// The disk or broker refuses for now.
    #[error("appending to the queue")]
    Unavailable(#[source] io::Error),
    /// One event alone exceeds what a record may hold.
    #[error("an event of {bytes} bytes exceeds the {bytes_max} bytes of a record")]
    TooLarge {
        /// Bytes of the event.
        bytes: usize,
        /// Bytes allowed.
        bytes_max: usize,
    },
    /// The queue was shut down.
    #[error("the queue is closed")]
    Closed,
}

impl AppendError {
    /// What to do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Full { .. } | Self::Unavailable(_) => Remedy::Retry,
            Self::TooLarge { .. } => Remedy::SetAside,
            Self::Closed => Remedy::Stop,
        }
    }
}

/// Events could not be handed out or settled.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The disk or broker refuses for now.
    #[error("reading from the queue")]
    Unavailable(#[source] io::Error),
    /// Bytes that were once durable are not what was written.
    #[error("{} is damaged at byte {at}: {what}; restore it from a backup, or move it away to go on without its events", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// The queue is not the one this reader was reading.
    #[error("going on where this reader was")]
    Unusable(#[source] io::Error),
    /// The queue was shut down and holds nothing more.
    #[error("the queue is closed")]
    Closed,
}

impl TailError {
    /// What to do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unavailable(_) => Remedy::Retry,
            Self::Damaged { .. } | Self::Unusable(_) | Self::Closed => Remedy::Stop,
        }
    }
}
