//! The peer: a bare reverse proxy of hyper and its pooled client, that streams bodies and does nothing else.

use std::net::SocketAddr;

use http::{Request, Response, StatusCode, Uri};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

type Forwarder = Client<HttpConnector, Incoming>;

/// Passes requests on until the process ends.
pub async fn run(address: SocketAddr, upstream: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Forwarder = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| forward(client.clone(), upstream, request));
            // A client that goes away within an answer is no fault of ours.
            drop(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(
    client: Forwarder,
    upstream: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Either<Incoming, Empty<Bytes>>>, http::Error> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(upstream.to_string())
        .path_and_query(path)
        .build()?;
    match client.request(request).await {
        Ok(response) => Ok(response.map(Either::Left)),
        Err(_unreachable) => Response::builder()
            .status(StatusCode::BAD_GATEWAY)
            .body(Either::Right(Empty::new())),
    }
}
