//! The first step: who may call at all, how, and with how much.
//!
//! A request with both `Content-Length` and `Transfer-Encoding` is read by its chunks alone, and its connection is closed after the answer:
//! one of the two ways that RFC 9112 allows. hyper hides the length from us, so it cannot be refused here. It smuggles nothing past
//! us: the body that was judged goes to the server with a length of our own making.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::Identity;
use http::{Method, request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use service_kit::Problem;
use service_kit::http::{BodyIdle, IdleTimeout};
use tokio::time::timeout;

use crate::classify::Ending;
use crate::exchange::Exchange;
use crate::gateway::{GatewayLimits, Shared};
use crate::rate::{InFlight, Place, Rates};
use crate::refusal::Refusal;

/// Room for a body before its length is believed. Bodies up to this size are bounded by the number of connections.
const BODY_START_BYTES_MAX: usize = 64 << 10;

/// After this time large bodies of others have gone on their way.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const METHODS: [Method; 4] = [Method::POST, Method::GET, Method::DELETE, Method::OPTIONS];

/// Judges the head of a request.
pub(crate) fn check(limits: &GatewayLimits, head: &request::Parts) -> Result<(), Box<Refusal>> {
    if !METHODS.contains(&head.method) {
        return Err(Refusal::denied("method_not_allowed", Problem::method_not_allowed(&METHODS)));
    }
    match limits.callers.refusal(&head.headers, &head.uri) {
        None => Ok(()),
        Some(reason) => {
            let problem = Problem::forbidden("this gateway is not called by that host or from that origin")
                .with_hint("call it by a name it knows, or add the name to its allowed hosts or origins");
            Err(Refusal::denied(reason, problem))
        }
    }
}

/// Counts of all callers.
#[derive(Debug)]
pub(crate) struct Limiter {
    all: Rates,
    callers: OnceLock<Rates>,
    in_flight: OnceLock<InFlight>,
    grants: OnceLock<Rates>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            all: Rates::with_places(1),
            callers: OnceLock::new(),
            in_flight: OnceLock::new(),
            grants: OnceLock::new(),
        }
    }
}

impl Limiter {
    /// Whether one more request is taken, of whomever.
    pub(crate) fn admit(&self, shared: &Shared) -> Result<(), Box<Refusal>> {
        if shared.in_flight.load(Ordering::Relaxed) > shared.limits.in_flight_max {
            return Err(too_many("too_many_in_flight", RETRY_AFTER));
        }
        let Some(rate) = shared.limits.rate else { return Ok(()) };
        let taken = self.all.take(&(), rate, shared.clock.monotonic());
        taken.map_err(|wait| too_many("rate_limited", wait))
    }

    /// Counts for the rates of grants.
    pub(crate) fn grants(&self) -> &Rates {
        self.grants.get_or_init(Rates::new)
    }

    pub(crate) fn leave(&self, place: Place) {
        if let Some(in_flight) = self.in_flight.get() {
            in_flight.leave(place);
        }
    }
}

/// Whether one more request of this caller is taken. Who names nobody is counted by its address.
pub(crate) fn admit_caller(exchange: &mut Exchange, peer: SocketAddr) -> Result<(), Box<Refusal>> {
    let shared = &exchange.shared;
    let (rate, in_flight_max) = (shared.limits.caller_rate, shared.limits.caller_in_flight_max);
    if rate.is_none() && in_flight_max.is_none() {
        return Ok(());
    }
    let caller = &exchange.caller;
    let session = caller.session.as_ref().map(http::HeaderValue::as_bytes);
    let nobody = caller.identity() == Identity::None && session.is_none();
    let who = (
        nobody.then_some(peer.ip()),
        (&caller.human, &caller.agent, &caller.team, session),
        (&exchange.site.route.namespace, &exchange.site.route.server),
    );
    if let Some(rate) = rate {
        let taken = shared
            .limiter
            .callers
            .get_or_init(Rates::new)
            .take(&who, rate, shared.clock.monotonic());
        taken.map_err(|wait| too_many("rate_limited", wait))?;
    }
    if let Some(max) = in_flight_max {
        let place = shared.limiter.in_flight.get_or_init(InFlight::new).enter(&who, max);
        exchange.place = Some(place.ok_or_else(|| too_many("too_many_in_flight", RETRY_AFTER))?);
    }
    Ok(())
}

fn too_many(reason: &'static str, wait: Duration) -> Box<Refusal> {
    Refusal::denied(
        reason,
        Problem::too_many_requests("there are too many requests at this time", wait),
    )
}

/// A body, with the room it takes.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    pub(crate) room: Option<Room>,
}

impl Held {
    fn small(bytes: Bytes) -> Self {
        Self { bytes, room: None }
    }
}

/// A large body's part of the memory for all of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Room {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            bytes: 0,
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Box<Refusal>> {
        self.bytes += bytes;
        let all = self.shared.bodies_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all <= self.shared.limits.bodies_bytes_max {
            return Ok(());
        }
        let problem = Problem::unavailable("the gateway holds as many large request bodies as it can", RETRY_AFTER);
        Err(Refusal::denied("bodies_too_large", problem))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.bodies_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The whole body: a decision needs all of it.
pub(crate) async fn read(shared: &Arc<Shared>, body: Incoming) -> Result<Held, Box<Refusal>> {
    let limits = &shared.limits;
    if body.is_end_stream() {
        return Ok(Held::small(Bytes::new()));
    }
    if body.size_hint().lower() > limits.body_bytes_max as u64 {
        return Err(too_large(limits));
    }
    let mut body = IdleTimeout::new(body, limits.body_idle_timeout);
    // Nearly every body comes in one piece, which is then taken as it is.
    let first = match body.frame().await {
        None => return Ok(Held::small(Bytes::new())),
        Some(frame) => frame.map_err(|error| unread(&error))?.into_data().unwrap_or_default(),
    };
    if first.len() > limits.body_bytes_max {
        return Err(too_large(limits));
    }
    if body.is_end_stream() {
        return Ok(Held::small(first));
    }
    match timeout(limits.body_timeout, read_rest(shared, first, body)).await {
        Ok(read) => read,
        Err(_elapsed) => Err(too_slow()),
    }
}

async fn read_rest(shared: &Arc<Shared>, first: Bytes, mut body: IdleTimeout<Incoming>) -> Result<Held, Box<Refusal>> {
    let bytes_max = shared.limits.body_bytes_max;
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut room = Room::new(shared);
    let mut whole = BytesMut::with_capacity(first.len() + told.min(BODY_START_BYTES_MAX));
    whole.extend_from_slice(&first);
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| unread(&error))?.into_data() else {
            continue;
        };
        let bytes = whole.len() + piece.len();
        if bytes > bytes_max {
            return Err(too_large(&shared.limits));
        }
        if bytes > BODY_START_BYTES_MAX {
            room.grow(bytes - room.bytes)?;
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Held {
        bytes: whole.freeze(),
        room: (room.bytes > 0).then_some(room),
    })
}

fn too_large(limits: &GatewayLimits) -> Box<Refusal> {
    let problem = Problem::payload_too_large(format!("the body has more than {} bytes", limits.body_bytes_max));
    Refusal::denied("body_too_large", problem)
}

fn too_slow() -> Box<Refusal> {
    Refusal::denied("body_too_slow", Problem::request_timeout("the body took too long to arrive"))
}

fn unread(error: &BodyIdle) -> Box<Refusal> {
    match error {
        BodyIdle::Paused(_) => too_slow(),
        BodyIdle::Broken(_) => Refusal::new(Problem::bad_request("the body broke off"), Ending::ClientGone),
    }
}
