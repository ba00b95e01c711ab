//! The fourth step: what the policy says to what was asked. Everything that cannot be judged beyond doubt is refused.
//!
//! A policy that observes is asked all the same, and its answer is recorded while the call passes.

use domain::policy::verdict::Verdict;
use domain::policy::{Arguments, Call, Reason, Target};
use domain::{Decision, Era, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};
use service_kit::Problem;

use crate::exchange::{Exchange, PROTOCOL_VERSION};
use crate::inspect::{InspectFault, Inspected, Message};
use crate::rate::Rate;
use crate::refusal::Refusal;

const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The revision that knows batches, which is also that of requests without a word about theirs.
const BATCHES: &str = "2025-03-26";

/// JSON-RPC and MCP codes for what is wrong with the message itself.
const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const HEADER_MISMATCH: i64 = -32_020;

type Inspection<'a> = Result<Option<Inspected<'a>>, InspectFault>;

/// Judges the request, and notes what the policy said.
pub(crate) fn authorize(
    exchange: &mut Exchange,
    head: &request::Parts,
    inspected: &Inspection<'_>,
) -> Result<(), Box<Refusal>> {
    if !exchange.policy.judges() {
        exchange.notes_decision(Decision::Allow, Reason::Allowed.as_str());
        return Ok(());
    }
    if let Err(doubt) = clear(exchange, head, inspected) {
        return if exchange.policy.enforces() {
            Err(doubt)
        } else {
            exchange.notes_shadow(Decision::Deny, doubt.problem.code);
            Ok(())
        };
    }
    match inspected {
        Ok(Some(Inspected::One(message))) => judge(exchange, message),
        Ok(Some(Inspected::Batch(messages))) => messages.iter().try_for_each(|message| judge(exchange, message)),
        _ => decide(exchange, Target::Open, Arguments::Json("")),
    }
}

/// Whether the message means one thing only, to whomever reads it.
fn clear(exchange: &Exchange, head: &request::Parts, inspected: &Inspection<'_>) -> Result<(), Box<Refusal>> {
    match inspected {
        Err(InspectFault::NotJson) => Err(unclear(PARSE_ERROR, "the body is not JSON")),
        Err(InspectFault::Unclear(why)) => Err(unclear(INVALID_REQUEST, why)),
        Ok(None) if head.method == Method::POST => Err(unclear(INVALID_REQUEST, "the body is empty")),
        Ok(Some(Inspected::One(message))) if exchange.era() == Some(Era::Modern) => agree(&head.headers, message),
        Ok(None | Some(Inspected::One(_))) => Ok(()),
        Ok(Some(Inspected::Batch(messages))) => {
            let said = head.headers.get(PROTOCOL_VERSION).map(HeaderValue::as_bytes);
            if said.is_some_and(|said| said != BATCHES.as_bytes()) {
                return Err(unclear(INVALID_REQUEST, "this revision of the protocol has no batches"));
            }
            let is_list = |message: &Message<'_>| message.method.as_deref().is_some_and(|method| method.ends_with("/list"));
            if exchange.policy.filters_lists() && messages.iter().any(is_list) {
                return Err(unclear(
                    INVALID_REQUEST,
                    "lists are not answered in batches; ask for them one by one",
                ));
            }
            Ok(())
        }
    }
}

/// Whether the headers that modern requests are routed by say what the body says.
fn agree(headers: &HeaderMap, message: &Message<'_>) -> Result<(), Box<Refusal>> {
    let Some(method) = message.method.as_deref() else {
        return Ok(());
    };
    let params = &message.params;
    let name = match method {
        "tools/call" | "prompts/get" => params.name.as_deref(),
        "resources/read" => params.uri.as_deref(),
        _ => None,
    };
    let version = params.meta.protocol_version.as_deref();
    let pairs = [(&PROTOCOL_VERSION, version), (&MCP_METHOD, Some(method)), (&MCP_NAME, name)];
    for (header, said) in pairs {
        let Some(said) = said else { continue };
        let mut values = headers.get_all(header).iter();
        let agrees = match (values.next(), values.next()) {
            (Some(value), None) => decoded(value).is_some_and(|value| value == said.as_bytes()),
            _ => false,
        };
        if !agrees {
            let why = format!("the header `{header}` must say what the body says, once");
            let mut refusal = unclear(HEADER_MISMATCH, &why);
            refusal.problem = refusal.problem.with_code("header_mismatch");
            return Err(refusal.because("header_mismatch"));
        }
    }
    Ok(())
}

/// The value as it is meant: values that headers cannot carry are wrapped in `=?base64?…?=`.
fn decoded(value: &HeaderValue) -> Option<Vec<u8>> {
    let value = value.as_bytes().trim_ascii();
    let wrapped = value.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?="));
    match wrapped {
        None => Some(value.to_vec()),
        Some(wrapped) => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, wrapped).ok(),
    }
}

fn unclear(code: i64, why: &str) -> Box<Refusal> {
    let problem = Problem::bad_request(format!("the request cannot be judged: {why}"))
        .with_hint("send one plain JSON-RPC 2.0 message of the protocol revision in its headers");
    Refusal::denied("rpc_inspection_failed", problem).with_rpc_code(code)
}

fn judge(exchange: &mut Exchange, message: &Message<'_>) -> Result<(), Box<Refusal>> {
    let Some(method) = message.method.as_deref() else {
        return decide(exchange, Target::Open, Arguments::Json(""));
    };
    let params = &message.params;
    let arguments = Arguments::Json(params.arguments.map_or("", |arguments| arguments.get()));
    if method == "subscriptions/listen" && !params.subscriptions.is_empty() {
        return params
            .subscriptions
            .iter()
            .try_for_each(|uri| decide(exchange, Target::Resource(uri), arguments));
    }
    let name = params.name.as_deref().or(params.reference.name.as_deref());
    let uri = params.uri.as_deref().or(params.reference.uri.as_deref());
    decide(exchange, Target::of(method, name, uri), arguments)
}

fn decide(exchange: &mut Exchange, target: Target<'_>, arguments: Arguments<'_>) -> Result<(), Box<Refusal>> {
    let now = Timestamp::from_nanos(exchange.shared.clock.unix_ns());
    let call = Call {
        target,
        arguments,
        claims: exchange.caller.claims(),
        presented: exchange.caller.presented(),
        last_used: None,
        definition: exchange.definition(),
    };
    let Some(mut verdict) = exchange.policy.decide(call, now) else {
        return Ok(());
    };
    let wait = charge(exchange, &verdict);
    if let Err(_wait) = wait {
        if let Some(shadow) = &mut verdict.shadow {
            (shadow.decision, shadow.reason) = (Decision::Deny, Reason::RateExceeded);
        } else {
            (verdict.decision, verdict.reason) = (Decision::Deny, Reason::RateExceeded);
        }
    }
    exchange.notes_verdict(&verdict);
    match verdict.decision {
        Decision::Allow => Ok(()),
        Decision::Deny => Err(refused(exchange, &verdict, wait.err())),
    }
}

fn charge(exchange: &Exchange, verdict: &Verdict) -> Result<(), std::time::Duration> {
    let judged = verdict.shadow.map_or(verdict.decision, |shadow| shadow.decision);
    if judged == Decision::Deny {
        return Ok(());
    }
    let site = &exchange.site.route;
    let now = exchange.shared.clock.monotonic();
    for charge in &verdict.charges {
        let rate = Rate {
            calls: charge.calls,
            per: charge.per,
        };
        let who = (&site.namespace, &site.server, &charge.grant, &charge.caller);
        exchange.shared.limiter.grants().take(&who, rate, now)?;
    }
    Ok(())
}

/// The answer to what the policy refuses. Most refusals are answers within the protocol, since other statuses end the connections
/// of common clients.
fn refused(exchange: &Exchange, verdict: &Verdict, wait: Option<std::time::Duration>) -> Box<Refusal> {
    let reason = verdict.reason;
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::FORBIDDEN);
    let message = match reason.status() {
        401 => "it is not established who calls",
        429 => "the rate of this grant is used up",
        503 => "there is no policy to judge this call by",
        _ => "the policy of this server refuses the call",
    };
    let mut problem = Problem::new(status, reason.as_str(), message).with_hint(reason.hint());
    if let Some(wait) = wait {
        problem = problem.with_retry_after(wait);
    }
    let refusal = Refusal::denied(reason.as_str(), problem);
    match reason {
        Reason::InsufficientScope => match exchange.scope_challenge(&verdict.missing_scopes) {
            Some(challenge) => refusal.with_challenge(challenge),
            None => refusal,
        },
        _ if status == StatusCode::UNAUTHORIZED => refusal.with_challenge(exchange.challenge(None)),
        _ => refusal.within_protocol(exchange.shared.limits.deny_status),
    }
}
