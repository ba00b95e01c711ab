//! The body of an answer on its way to the client. It passes each piece on as it comes, lets the exchange read along, and ends the
//! exchange whichever way it ends itself.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use crate::classify::Ending;
use crate::endpoint::{EndpointEdit, Fed};
use crate::exchange::Exchange;
use crate::upstream::Lease;

/// Why an answer breaks off on its way through.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    #[error("reading the server's answer")]
    Upstream(#[source] Box<dyn Error + Send + Sync>),
    #[error("the server's answer paused for longer than {0:?}")]
    Idle(Duration),
}

/// An answer on its way.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Ours(Option<Bytes>),
    Theirs(Box<Passing>),
}

/// What the server sends, and the connection it comes by.
#[derive(Debug)]
pub(crate) struct Theirs {
    pub(crate) body: Incoming,
    pub(crate) lease: Lease,
}

/// The server's answer, with whom it concerns.
struct Passing {
    body: Incoming,
    lease: Lease,
    exchange: Exchange,
    /// Longest pause, and what watches it; made at the first wait, since most answers come with their head.
    idle_max: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// Ends a stream that would otherwise outlast the process.
    stop: Option<BoxFuture<'static, ()>>,
    /// Looks at the first event of a stream that may be a legacy one.
    endpoint: Option<EndpointEdit>,
    over: bool,
}

impl std::fmt::Debug for Passing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passing")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

impl AnswerBody {
    /// A body of our own. Its exchange, if it had one, has ended.
    pub(crate) fn ours(bytes: Bytes) -> Self {
        Self {
            source: Source::Ours(Some(bytes).filter(|bytes| !bytes.is_empty())),
        }
    }

    pub(crate) fn theirs(
        theirs: Theirs,
        exchange: Exchange,
        idle_max: Option<Duration>,
        stop: Option<BoxFuture<'static, ()>>,
    ) -> Self {
        let passing = Passing {
            body: theirs.body,
            lease: theirs.lease,
            endpoint: exchange.may_name_endpoint().then(EndpointEdit::default),
            exchange,
            idle_max,
            timer: None,
            waiting: false,
            stop,
            over: false,
        };
        Self {
            source: Source::Theirs(Box::new(passing)),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        match &mut self.source {
            Source::Ours(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Theirs(passing) => passing.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ours(bytes) => bytes.is_none(),
            Source::Theirs(passing) => passing.over || (passing.endpoint.is_none() && passing.body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ours(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Theirs(passing) => passing.body.size_hint(),
        }
    }
}

impl Passing {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(context).is_ready()
        {
            self.over = true;
            self.exchange.ends(Ending::Complete);
            return Poll::Ready(None);
        }
        match self.poll_theirs(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = false;
                if let Some(bytes) = frame.data_ref() {
                    self.exchange.passes(bytes);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.breaks(Ending::Broken("upstream_broken"), AnswerFault::Upstream(error.into()))
            }
            Poll::Ready(None) => {
                self.over = true;
                self.lease.done();
                Poll::Ready(self.exchange.last_words(Ending::Complete).map(|words| Ok(Frame::data(words))))
            }
            Poll::Pending => self.poll_idle(context),
        }
    }

    /// The next frame of the server, with the address that legacy streams begin with replaced by ours.
    fn poll_theirs(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let next = ready!(Pin::new(&mut self.body).poll_frame(context));
            let Some(edit) = &mut self.endpoint else {
                return Poll::Ready(next);
            };
            let fed = match &next {
                Some(Ok(frame)) => match frame.data_ref() {
                    Some(bytes) => edit.feed(bytes, &self.exchange.site),
                    None => return Poll::Ready(next),
                },
                // What was held back goes first; the end itself is asked for again.
                None => Fed::Done(edit.rest()),
                Some(Err(_)) => return Poll::Ready(next),
            };
            if let Fed::Done(bytes) = fed {
                self.endpoint = None;
                if !bytes.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                if next.is_none() {
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let Some(limit) = self.idle_max else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + limit);
        }
        ready!(timer.as_mut().poll(context));
        self.breaks(Ending::Broken("timeout"), AnswerFault::Idle(limit))
    }

    /// The client gets an answer that it understands where there is still room for one; otherwise the break is passed on.
    fn breaks(&mut self, ending: Ending, fault: AnswerFault) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        self.over = true;
        let room = self.body.size_hint().exact().is_none();
        let words = self.exchange.last_words(ending).filter(|_| room);
        Poll::Ready(Some(words.map_or(Err(fault), |words| Ok(Frame::data(words)))))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // A body of known length is dropped after its last byte without being asked for more.
        if self.body.is_end_stream() {
            self.exchange.ends(Ending::Complete);
            self.lease.done();
        }
    }
}
