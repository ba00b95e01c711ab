//! Bodies that may not pause for long.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// A body whose reader gives up when the next piece takes longer than a bound. Time in which nobody reads does not count.
#[derive(Debug)]
pub struct IdleTimeout<B> {
    body: B,
    limit: Duration,
    /// Made at the first wait, for most bodies arrive with their headers.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// Why reading such a body failed.
#[derive(Debug, thiserror::Error)]
pub enum BodyIdle {
    #[error("the body paused for longer than {0:?}")]
    Paused(Duration),
    #[error("reading the body")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
}

impl<B> IdleTimeout<B> {
    pub fn new(body: B, limit: Duration) -> Self {
        Self {
            body,
            limit,
            timer: None,
            waiting: false,
        }
    }
}

impl<B> Body for IdleTimeout<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = BodyIdle;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BodyIdle>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = false;
            return Poll::Ready(frame.map(|read| read.map_err(|error| BodyIdle::Broken(error.into()))));
        }
        let limit = this.limit;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !this.waiting {
            this.waiting = true;
            timer.as_mut().reset(Instant::now() + limit);
        }
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Some(Err(BodyIdle::Paused(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
