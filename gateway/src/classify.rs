//! How a request ended, from what was seen of it. The order of the tests is the order of precedence.

use domain::{Era, Outcome, ResponseKind};

use crate::scan::Found;

/// The way the exchange of bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// We answered instead of the server, for this reason.
    Refused(&'static str),
    /// There was no answer from the server, for this reason.
    Unanswered(&'static str),
    /// The server's answer broke off, for this reason.
    Broken(&'static str),
    /// The client went away first.
    ClientGone,
    /// All of it passed.
    Complete,
}

/// What was asked, as far as it tells how to read the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A request with an id.
    Answer,
    /// A notification or a response, which is only taken note of.
    Nothing,
    /// A stream of whatever the server has to say.
    Stream,
    /// The end of a session, or a question of a browser.
    Control,
    /// Something that is no message; what the server makes of it is its own affair.
    Unknown,
}

/// Everything that decides the outcome.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) asked: Asked,
    pub(crate) method: Option<&'a str>,
    pub(crate) era: Option<Era>,
    pub(crate) ending: Ending,
    pub(crate) status: u16,
    pub(crate) kind: Option<ResponseKind>,
    /// The message that answers the request, if it came.
    pub(crate) answer: Option<&'a Found>,
    /// The answer is in a coding we do not read.
    pub(crate) unread: bool,
    /// A stream whose events have ids: the client asks for the rest with another request.
    pub(crate) resumable: bool,
    /// The client told that it gave up.
    pub(crate) cancelled: bool,
}

/// The outcome and, unless all went well, the class of the error.
pub(crate) fn classify(seen: &Seen<'_>) -> (Outcome, Option<String>) {
    let named = |outcome, name: &str| (outcome, Some(name.to_owned()));
    match seen.ending {
        Ending::Refused(reason) => return named(Outcome::Denied, reason),
        Ending::Unanswered(reason) => return named(Outcome::TransportError, reason),
        _ => {}
    }
    if seen.status >= 500 {
        return named(Outcome::TransportError, &format!("http_{}", seen.status));
    }
    if seen.cancelled {
        return named(Outcome::Cancelled, "cancelled");
    }
    let probe = seen.method == Some("server/discover") && !(200..300).contains(&seen.status);
    let modern_refusal = seen
        .answer
        .and_then(|answer| answer.code)
        .is_some_and(|code| (-32_099..=-32_020).contains(&code));
    if probe && !modern_refusal && seen.ending == Ending::Complete {
        return (Outcome::EraProbe, None);
    }
    match seen.answer {
        // Servers without streams or sessions say so with 405, and every client copes.
        _ if seen.status == 405 && matches!(seen.asked, Asked::Stream | Asked::Control) => (Outcome::Ok, None),
        Some(answer) => of_answer(answer),
        None => without_answer(seen),
    }
}

fn of_answer(answer: &Found) -> (Outcome, Option<String>) {
    if answer.has_error {
        let class = answer.code.map_or_else(|| "rpc_error".to_owned(), |code| code.to_string());
        return (Outcome::RpcError, Some(class));
    }
    if answer.is_error {
        return (Outcome::ToolError, Some("tool_error".to_owned()));
    }
    match answer.result_type.as_deref() {
        Some("input_required") => (Outcome::InputRequired, None),
        Some("task") => (Outcome::Task, None),
        _ => (Outcome::Ok, None),
    }
}

fn without_answer(seen: &Seen<'_>) -> (Outcome, Option<String>) {
    let failed = |name: &str| (Outcome::TransportError, Some(name.to_owned()));
    match seen.ending {
        Ending::Broken(reason) => return failed(reason),
        // A stream without end is closed by its client, as a rule.
        Ending::ClientGone if seen.asked == Asked::Stream => return (Outcome::Ok, None),
        Ending::ClientGone => return (Outcome::Cancelled, Some("client_disconnected".to_owned())),
        _ => {}
    }
    match (seen.asked, seen.status) {
        (_, status @ 400..) => failed(&format!("http_{status}")),
        (Asked::Answer, _) if seen.unread || seen.resumable => (Outcome::Ok, None),
        (Asked::Answer, _) if seen.kind == Some(ResponseKind::Sse) => failed("stream_without_answer"),
        (Asked::Answer, _) => failed("not_json_rpc"),
        (Asked::Unknown, _) if seen.era.is_none() && seen.kind == Some(ResponseKind::Other) => failed("not_json_rpc"),
        _ => (Outcome::Ok, None),
    }
}

#[cfg(test)]
mod tests;
