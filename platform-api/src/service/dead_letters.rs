//! Dead letters of the queue, as the API shows and handles them.

use domain::operations::DeadLetter;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use sentinel_queue::dead_letters::{DeadLetters as _, replay};

use super::operations::{ClusterOperations, failed};
use crate::{DeadLetterPage, DeadLetters, OperationError};

impl DeadLetters for ClusterOperations {
    fn dead_letters(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<DeadLetterPage, OperationError>> {
        async move {
            let limit = limit as usize;
            let mut dead_letters = self.letters.list(after, limit + 1).await.map_err(failed)?;
            let has_more = dead_letters.len() > limit;
            dead_letters.truncate(limit);
            Ok(DeadLetterPage { dead_letters, has_more })
        }
        .boxed()
    }

    fn dead_letter(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, OperationError>> {
        async move { self.letters.show(id).await.map_err(failed)?.ok_or_else(|| none_of(id)) }.boxed()
    }

    fn replay_dead_letter(&self, id: u64) -> BoxFuture<'_, Result<(), OperationError>> {
        async move {
            let done = replay(&[id], &self.letters, &self.appender).await.map_err(failed)?;
            match (done.unreadable.first(), done.unknown.first()) {
                (Some((_, reason)), _) => Err(OperationError::Conflict(format!(
                    "dead letter {id} is still no event: {reason}; discard it, or send it corrected"
                ))),
                (None, Some(_)) => Err(none_of(id)),
                (None, None) => Ok(()),
            }
        }
        .boxed()
    }

    fn discard_dead_letter(&self, id: u64) -> BoxFuture<'_, Result<(), OperationError>> {
        async move {
            match self.letters.discard(vec![id]).await.map_err(failed)? {
                0 => Err(none_of(id)),
                _ => Ok(()),
            }
        }
        .boxed()
    }
}

fn none_of(id: u64) -> OperationError {
    OperationError::NotFound(format!(
        "there is no dead letter {id}; `mcp-runtime sentinel dlq list` shows those there are"
    ))
}
