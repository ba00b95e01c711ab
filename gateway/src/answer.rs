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
use crate::list::{ListFilter, Unreadable};
use crate::tools::Tap;
use crate::upstream::Lease;

/// Why an answer breaks off on its way through.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    #[error("reading the server's answer")]
    Upstream(#[source] Box<dyn Error + Send + Sync>),
    #[error("the server's list cannot be read, so it cannot be shortened to what the caller may use")]
    List,
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
    /// Ends a stream that would otherwise outlast the process, or what its policy allows, for the reason it gives then.
    stop: Option<BoxFuture<'static, Option<&'static str>>>,
    /// Looks at the first event of a stream that may be a legacy one.
    endpoint: Option<EndpointEdit>,
    /// Reads which tools the server lists.
    tap: Option<Tap>,
    /// Shortens lists to what the caller may use.
    lists: Option<ListFilter>,
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
        stop: Option<BoxFuture<'static, Option<&'static str>>>,
    ) -> Self {
        let passing = Passing {
            body: theirs.body,
            lease: theirs.lease,
            endpoint: exchange.may_name_endpoint().then(EndpointEdit::default),
            tap: exchange.tap(),
            lists: exchange.list_filter(),
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
            Source::Theirs(passing) => passing.over || (!passing.is_edited() && passing.body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ours(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            // How long it will be is not known before it is edited.
            Source::Theirs(passing) if passing.is_edited() => SizeHint::default(),
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
            && let Poll::Ready(reason) = stop.as_mut().poll(context)
        {
            self.over = true;
            let ending = reason.map_or(Ending::Complete, Ending::Refused);
            let words = reason.and_then(|_| self.exchange.last_words(ending));
            self.exchange.ends(ending);
            return Poll::Ready(words.map(|words| Ok(Frame::data(words))));
        }
        match self.poll_theirs(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = false;
                if let Some(bytes) = frame.data_ref() {
                    self.exchange.passes(bytes);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(fault))) => {
                let reason = match &fault {
                    AnswerFault::List => "list_unreadable",
                    _ => "upstream_broken",
                };
                self.breaks(Ending::Broken(reason), fault)
            }
            Poll::Ready(None) => {
                self.over = true;
                self.complete();
                Poll::Ready(self.exchange.last_words(Ending::Complete).map(|words| Ok(Frame::data(words))))
            }
            Poll::Pending => self.poll_idle(context),
        }
    }

    /// The next frame of the server, as the client may see it.
    fn poll_theirs(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        loop {
            let next = ready!(Pin::new(&mut self.body).poll_frame(context));
            if let (Some(tap), Some(Ok(frame))) = (&mut self.tap, &next)
                && let Some(bytes) = frame.data_ref()
            {
                tap.feed(bytes);
            }
            if !self.is_edited() {
                return Poll::Ready(next.map(|frame| frame.map_err(|error| AnswerFault::Upstream(error.into()))));
            }
            let edited = match next {
                None => self.rest(),
                Some(Err(error)) => return Poll::Ready(Some(Err(AnswerFault::Upstream(error.into())))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => match self.edited(&bytes) {
                        Ok(bytes) if bytes.is_empty() => continue,
                        edited => edited,
                    },
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
            };
            return Poll::Ready(match edited {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => Some(Ok(Frame::data(bytes))),
                Err(Unreadable) => Some(Err(AnswerFault::List)),
            });
        }
    }

    /// The server's last byte has come.
    fn complete(&mut self) {
        self.lease.done();
        if let Some(tap) = self.tap.take() {
            self.exchange.sees_tools(tap);
        }
    }

    fn is_edited(&self) -> bool {
        self.endpoint.is_some() || self.lists.is_some()
    }

    /// What may pass now of a piece and those before it.
    fn edited(&mut self, bytes: &Bytes) -> Result<Bytes, Unreadable> {
        let bytes = match self.endpoint.as_mut().map(|edit| edit.feed(bytes, &self.exchange.site)) {
            None => bytes.clone(),
            Some(Fed::Held) => return Ok(Bytes::new()),
            Some(Fed::Done(bytes)) => {
                self.endpoint = None;
                bytes
            }
        };
        match &mut self.lists {
            None => Ok(bytes),
            Some(lists) => lists.feed(&bytes),
        }
    }

    /// What was held back, at the end.
    fn rest(&mut self) -> Result<Bytes, Unreadable> {
        let held = self.endpoint.take().map(|mut edit| edit.rest()).unwrap_or_default();
        let Some(mut lists) = self.lists.take() else { return Ok(held) };
        let first = lists.feed(&held)?;
        let last = lists.end()?;
        Ok(if first.is_empty() {
            last
        } else {
            [first, last].concat().into()
        })
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
        let words = match fault {
            AnswerFault::List => self.exchange.instead_of_list(),
            _ => self.exchange.last_words(ending).filter(|_| room),
        };
        Poll::Ready(Some(words.map_or(Err(fault), |words| Ok(Frame::data(words)))))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // A body of known length is dropped after its last byte without being asked for more.
        if self.body.is_end_stream() {
            self.exchange.ends(Ending::Complete);
            self.complete();
        }
    }
}
