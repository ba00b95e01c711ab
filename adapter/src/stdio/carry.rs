//! One request: sent, its answer or stream read, and every id in it answered, come what may.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::{Bridge, legacy};
use crate::message::{Kind, Message};
use crate::reply::{self, Refusal};
use crate::sse;
use crate::upstream::{Answer, is_stream};

/// How much of an answer with an error status is read.
pub(super) const FAULT_BYTES_MAX: usize = 1 << 20;
/// How long a stream may still say something after the answer.
const EPILOGUE_MAX: Duration = Duration::from_millis(250);
/// How long the answer to a cancelled request of the older era is still waited for.
const CANCELLED_WAIT: Duration = Duration::from_secs(10);
/// The headers of a request disagree with its body.
const HEADER_MISMATCH: i64 = -32020;
/// Pages of tools that are read to learn their headers.
const TOOL_PAGES_MAX: usize = 32;

/// Where a stream stands.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) last_id: Option<String>,
    pub(super) retry: Option<Duration>,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everybody who waited has an answer.
    Answered,
    /// It was over before that.
    Cut,
}

/// What an answer leads to.
enum Next {
    Done,
    /// The server forgot the session.
    Revive,
    /// The server missed a header that the tool's schema asks for.
    Learn,
    /// The rest is to be had by taking up the stream.
    Resume(Stream),
}

/// A response, as far as it has to be understood.
#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Message {
    /// Stands for a stream that belongs to no request.
    pub(super) fn nothing() -> Self {
        Self {
            bytes: Bytes::new(),
            kind: Kind::Notification,
            id: None,
            method: None,
            params: crate::message::Params::default(),
        }
    }
}

impl Bridge {
    /// Sees a request to its end.
    pub(super) async fn carry(self: Arc<Self>, message: Message, cancelled: CancellationToken) {
        let mut waiting = message.waiting();
        let given_up = async {
            cancelled.cancelled().await;
            if !message.is_modern() && !self.closing.is_cancelled() {
                // The server was told by a notification and may still answer.
                tokio::time::sleep(CANCELLED_WAIT).await;
            }
        };
        let outcome = tokio::select! {
            outcome = self.ask(&message, &mut waiting) => outcome,
            () = given_up => {
                if !self.closing.is_cancelled() {
                    return;
                }
                Err(Refusal::new(503, "stopping", "the adapter stopped before the server answered"))
            }
        };
        if let Err(refusal) = outcome {
            for id in waiting {
                self.refuse(&id, &refusal).await;
            }
        }
    }

    async fn ask(self: &Arc<Self>, message: &Message, waiting: &mut Vec<String>) -> Result<(), Refusal> {
        if let Some(answer) = self.cache.answer(message) {
            self.upstream.metrics().cache_hits.inc();
            self.write(answer).await;
            return Ok(());
        }
        let (mut is_revived, mut is_learnt) = (false, false);
        loop {
            let standing = self.legacy.standing();
            let answer = self.upstream.send(&self.post(message, &standing)).await?;
            let next = if answer.status.is_success() {
                self.read_answer(message, answer, waiting).await?
            } else {
                let status = answer.status;
                let body = answer.whole(FAULT_BYTES_MAX).await?;
                match fault(message, &standing, status, &body) {
                    Next::Revive if !is_revived => Next::Revive,
                    Next::Learn if !is_learnt => Next::Learn,
                    _ => {
                        self.pass_fault(status, &body, waiting).await;
                        Next::Done
                    }
                }
            };
            match next {
                Next::Done => return Ok(()),
                Next::Revive => {
                    is_revived = true;
                    self.revive(standing.generation).await?;
                }
                Next::Learn => {
                    is_learnt = true;
                    self.learn_tools(message).await?;
                }
                Next::Resume(mut stream) => return self.resume(message, waiting, &mut stream).await,
            }
        }
    }

    /// Reads the answer to a request.
    async fn read_answer(&self, message: &Message, answer: Answer, waiting: &mut Vec<String>) -> Result<Next, Refusal> {
        if is_stream(&answer.headers) {
            let mut stream = Stream::default();
            let ended = self.read_stream(answer, Some(message), waiting, &mut stream).await;
            let can_resume = !message.is_modern() && stream.last_id.as_ref().is_some_and(|id| !id.is_empty());
            return match ended {
                Ok(Ended::Answered) => Ok(Next::Done),
                Ok(Ended::Cut) | Err(_) if can_resume => Ok(Next::Resume(stream)),
                Ok(Ended::Cut) => Err(Refusal::new(502, "broken", "the server's stream ended before the answer")
                    .hint("the call may have happened; look before you repeat it")),
                Err(refusal) => Err(refusal),
            };
        }
        let headers = answer.headers.clone();
        let body = answer.whole(self.config.answer_bytes_max).await?;
        let asked = Asked {
            message,
            headers: &headers,
        };
        self.hand_over(body, Some(&asked), waiting).await;
        if waiting.is_empty() {
            return Ok(Next::Done);
        }
        Err(Refusal::new(
            502,
            "no_answer",
            "the server took the request and did not answer it",
        ))
    }

    /// Hands over what a stream says until it ends, or until the request it belongs to is answered.
    pub(super) async fn read_stream(
        &self,
        mut answer: Answer,
        message: Option<&Message>,
        waiting: &mut Vec<String>,
        stream: &mut Stream,
    ) -> Result<Ended, Refusal> {
        let headers = answer.headers.clone();
        let asked = message.map(|message| Asked {
            message,
            headers: &headers,
        });
        let mut reader = sse::Reader::new(self.config.answer_bytes_max);
        loop {
            let is_answered = message.is_some() && waiting.is_empty();
            let piece = if is_answered {
                tokio::time::timeout(EPILOGUE_MAX, answer.chunk())
                    .await
                    .unwrap_or(Ok(None))
                    .unwrap_or(None)
            } else {
                answer.chunk().await?
            };
            let Some(piece) = piece else {
                return Ok(if is_answered { Ended::Answered } else { Ended::Cut });
            };
            let mut events = Vec::new();
            let fed = reader.feed(&piece, |event| events.push(event));
            for event in events {
                stream.last_id = event.id.or(stream.last_id.take());
                stream.retry = event.retry.or(stream.retry);
                if !event.data.is_empty() {
                    self.hand_over(event.data.into(), asked.as_ref(), waiting).await;
                }
            }
            fed.map_err(|error| Refusal::new(502, "too_large", error.to_string()))?;
        }
    }

    /// Hands a message of the server to the client, and takes from it what has to be known here.
    async fn hand_over(&self, bytes: Bytes, asked: Option<&Asked<'_>>, waiting: &mut Vec<String>) {
        let bytes = reply::on_one_line(bytes);
        let message = match Message::parse(bytes.clone()) {
            Ok(message) => message,
            Err(error) => {
                self.upstream.metrics().unreadable.inc();
                tracing::warn!(error = %service_kit::error::Chain(&error), "the server sent something that is no message");
                return;
            }
        };
        self.upstream.metrics().server_messages.inc();
        if let Kind::Batch(_) = message.kind {
            for part in serde_json::from_slice::<Vec<&RawValue>>(&bytes).unwrap_or_default() {
                if let Ok(part) = Message::parse(Bytes::copy_from_slice(part.get().as_bytes())) {
                    settle(&part, waiting);
                }
            }
        } else if message.is_method("notifications/tools/list_changed") {
            self.cache.clear();
        } else if settle(&message, waiting)
            && let Some(asked) = asked
        {
            self.learn(asked, &bytes);
        }
        self.write(bytes).await;
    }

    /// Remembers what the answer to a request means for later ones.
    fn learn(&self, asked: &Asked<'_>, bytes: &[u8]) {
        let Ok(Response {
            result: Some(result), ..
        }) = serde_json::from_slice(bytes)
        else {
            return;
        };
        match asked.message.method.as_deref() {
            Some("initialize") => self.legacy.begin(asked.message, asked.headers, result.get()),
            Some("tools/list") => {
                self.cache.keep(asked.message, result);
                self.learn_schemas(result.get());
            }
            Some(_) => self.legacy.keep(asked.message),
            None => {}
        }
    }

    fn learn_schemas(&self, result: &str) {
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        schemas.learn(result);
    }

    /// Tells everybody who waits what the server, or somebody before it, said instead of an answer.
    async fn pass_fault(&self, status: StatusCode, body: &Bytes, waiting: &mut Vec<String>) {
        if let Ok(message) = Message::parse(reply::on_one_line(body.clone()))
            && settle(&message, waiting)
        {
            self.write(message.bytes).await;
        }
        let raw = serde_json::from_slice::<Response<'_>>(body)
            .ok()
            .and_then(|response| response.error);
        let raw = raw.filter(|_| rpc_error(body).is_some());
        for id in waiting.drain(..) {
            match raw {
                // An error without the id of its request would reach nobody.
                Some(raw) => self.write(reply::on_one_line(reply::under_id(&id, "error", raw))).await,
                None => self.refuse(&id, &refusal_of(status, body)).await,
            }
        }
    }

    /// Reads the list of tools, for the headers that their schemas ask for.
    async fn learn_tools(&self, call: &Message) -> Result<(), Refusal> {
        let mut cursor: Option<Box<RawValue>> = None;
        for _page in 0..TOOL_PAGES_MAX {
            let Some(list) = list_like(call, cursor.as_deref()) else {
                return Ok(());
            };
            let answer = self.upstream.send(&self.post(&list, &legacy::Standing::default())).await?;
            let Some(result) = one_answer(answer, self.config.answer_bytes_max).await? else {
                return Ok(());
            };
            self.learn_schemas(&result);
            cursor = serde_json::from_str::<Page>(&result).ok().and_then(|page| page.next);
            if cursor.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// What an answer with an error status asks for.
fn fault(message: &Message, standing: &legacy::Standing, status: StatusCode, body: &[u8]) -> Next {
    if legacy::is_lost(standing, message, status, body) {
        return Next::Revive;
    }
    let is_mismatch = rpc_error(body).is_some_and(|error| error.code == HEADER_MISMATCH);
    if message.is_modern() && message.is_method("tools/call") && is_mismatch {
        return Next::Learn;
    }
    Next::Done
}

/// What a response answers, with the head it came under.
struct Asked<'a> {
    message: &'a Message,
    headers: &'a HeaderMap,
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "nextCursor")]
    next: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RpcFault {
    code: i64,
}

/// The problem body of a gateway or of anything else on the way.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    hint: Option<String>,
}

fn rpc_error(body: &[u8]) -> Option<RpcFault> {
    let error = serde_json::from_slice::<Response<'_>>(body).ok()?.error?;
    serde_json::from_str(error.get()).ok()
}

/// Takes the request that a message answers from those that wait; `false` when it answers none of them.
fn settle(message: &Message, waiting: &mut Vec<String>) -> bool {
    let Some(id) = message.answers(waiting).map(str::to_owned) else {
        return false;
    };
    waiting.retain(|waiting| *waiting != id);
    true
}

/// What an answer that is no JSON-RPC means to whoever waits.
pub(super) fn refusal_of(status: StatusCode, body: &[u8]) -> Refusal {
    let problem = serde_json::from_slice::<Problem>(body).ok();
    let told = problem.as_ref().and_then(|problem| problem.message.clone());
    let text = told.unwrap_or_else(|| format!("the server answered {status}"));
    let refusal = Refusal::new(i64::from(status.as_u16()), "refused", text);
    match problem.and_then(|problem| problem.hint) {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}

/// The result in the answer to a request of our own, whichever form it comes in.
pub(super) async fn one_answer(mut answer: Answer, bytes_max: usize) -> Result<Option<String>, Refusal> {
    let result = |bytes: &[u8]| {
        let response = serde_json::from_slice::<Response<'_>>(bytes).ok()?;
        response.result.map(|result| result.get().to_owned())
    };
    if !is_stream(&answer.headers) {
        return Ok(result(&answer.whole(bytes_max).await?));
    }
    let mut reader = sse::Reader::new(bytes_max);
    while let Some(piece) = answer.chunk().await? {
        let mut found = None;
        let fed = reader.feed(&piece, |event| found = found.take().or_else(|| result(&event.data)));
        fed.map_err(|error| Refusal::new(502, "too_large", error.to_string()))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// A request for the tools, under the same `_meta` as a call.
fn list_like(call: &Message, cursor: Option<&RawValue>) -> Option<Message> {
    #[derive(Deserialize)]
    struct Call<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: &'a RawValue,
    }
    let meta = serde_json::from_slice::<Call<'_>>(&call.bytes).ok()?.params.meta.get();
    let cursor = cursor.map_or_else(String::new, |cursor| format!(r#""cursor":{},"#, cursor.get()));
    let text = format!(r#"{{"jsonrpc":"2.0","id":"adapter-tools","method":"tools/list","params":{{{cursor}"_meta":{meta}}}}}"#);
    Message::parse(text.into()).ok()
}
