//! A server made of a closure, a gateway in front of it, and a client.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use domain::Event;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use gateway::{Gateway, GatewayLimits, Recorder, RecorderLimits, Route, RouteTable};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use service_kit::http::{HttpLimits, bind, serve_with};
use service_kit::{Running, Stage, Tasks};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: still waiting after {DEADLINE:?}"))
}

pub(crate) async fn until<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut turns = tokio::time::interval(Duration::from_millis(2));
    loop {
        match check() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => panic!("{what}: last saw {seen}"),
            Err(_) => turns.tick().await,
        };
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that sends what comes through the channel; an error breaks it off.
pub(crate) fn channel() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Body) {
    let (sender, receiver) = mpsc::channel(4);
    let frames = futures::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
        let next: Result<Bytes, _> = receiver.recv().await?;
        Some((next.map(Frame::data), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// A stream that begins like this and stays open.
pub(crate) fn endless(first: &'static str) -> Response<Body> {
    let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(first.as_bytes())))]);
    let body = StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync();
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(body)
        .unwrap()
}

pub(crate) fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(full(body))
        .unwrap()
}

pub(crate) fn json(body: impl Into<Bytes>) -> Response<Body> {
    answer(200, "application/json", body)
}

/// Serves a closure.
pub(crate) fn upstream<F>(tasks: &Tasks, handler: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Clone + Send + Sync + 'static,
{
    let make = move |_peer| {
        let handler = handler.clone();
        service_fn(move |request| {
            let answer = handler(request);
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        })
    };
    serve_with(
        "upstream",
        bind(LOCAL).unwrap(),
        make,
        HttpLimits::default(),
        tasks,
        Stage::Query,
    )
    .unwrap()
}

/// A gateway in front of one server.
pub(crate) struct Setup {
    pub(crate) running: Running,
    pub(crate) recorder: Recorder,
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
}

impl Setup {
    pub(crate) fn new<F>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Clone + Send + Sync + 'static,
    {
        Self::with(GatewayLimits::default(), handler)
    }

    pub(crate) fn with<F>(limits: GatewayLimits, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Clone + Send + Sync + 'static,
    {
        Self::on(Tasks::for_test(), limits, handler)
    }

    pub(crate) fn on<F>(running: Running, limits: GatewayLimits, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Clone + Send + Sync + 'static,
    {
        let server = upstream(&running.tasks(), handler);
        Self::before(running, limits, server)
    }

    pub(crate) fn before(running: Running, limits: GatewayLimits, server: SocketAddr) -> Self {
        let tasks = running.tasks();
        let target = format!("http://{server}/mcp").parse().unwrap();
        let routes = RouteTable::new(vec![Route::new("payments", "acme", target).at("payments")]).unwrap();
        let recorder = Recorder::new(RecorderLimits::default());
        let gateway = Gateway::new(routes, recorder.clone(), limits, &tasks);
        let address = gateway::listen(&gateway, bind(LOCAL).unwrap(), &tasks).unwrap();
        Self {
            running,
            recorder,
            gateway,
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(crate) fn request(&self, method: Method, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}/payments/mcp", self.address))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(Full::new(body.into()))
            .unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        soon("sending", self.client.request(request)).await.unwrap()
    }

    pub(crate) async fn post(&self, body: impl Into<Bytes>) -> Response<Bytes> {
        let response = self.send(self.request(Method::POST, body)).await;
        whole(response).await
    }

    /// The next events; there must be that many and no more.
    pub(crate) async fn events(&self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        until("events", || {
            events.extend(self.recorder.drain(100));
            if events.len() >= count {
                Ok(())
            } else {
                Err(format!("{events:?}"))
            }
        })
        .await;
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    pub(crate) async fn event(&self) -> Event {
        self.events(1).await.remove(0)
    }
}

pub(crate) async fn whole(response: Response<Incoming>) -> Response<Bytes> {
    let (head, body) = response.into_parts();
    let body = soon("reading the answer", body.collect()).await.unwrap();
    Response::from_parts(head, body.to_bytes())
}
