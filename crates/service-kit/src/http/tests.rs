use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::http::Response;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use futures::StreamExt as _;
use futures::stream;
use http_body_util::Full;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::{HttpLimits, bind, serve, serve_with};
use crate::problem::{RawBody, with_fallbacks};
use crate::tasks::{Running, RunningOptions, Stage, Tasks};
use crate::testing::{soon, until};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn start(tasks: &Tasks, app: Router, limits: HttpLimits) -> SocketAddr {
    serve("probe", bind(LOCAL).unwrap(), app, limits, tasks, Stage::Intake).unwrap()
}

fn hello() -> Router {
    with_fallbacks(Router::new().route("/", get(async || "hello")))
}

async fn connect(address: SocketAddr) -> TcpStream {
    soon("connecting", TcpStream::connect(address)).await.unwrap()
}

/// Everything the server sends until it closes the connection.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is an end as well.
    let _end = soon("reading to the end", stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

async fn exchange(address: SocketAddr, head: &str) -> String {
    let mut stream = connect(address).await;
    stream
        .write_all(format!("{head}\r\nhost: probe\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    read_to_end(&mut stream).await
}

async fn wait_for_metric(tasks: &Tasks, line: &str) {
    until(line, async || {
        let text = tasks.metrics().encode().unwrap();
        if text.lines().any(|found| found == line) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
}

#[tokio::test]
async fn requests_are_answered_counted_and_traced() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let app = hello().route(
        "/peer",
        get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string()),
    );
    let address = start(&tasks, app, HttpLimits::default());
    assert_ne!(address.port(), 0);
    assert!(exchange(address, "GET / HTTP/1.1").await.ends_with("\r\n\r\nhello"));
    assert!(exchange(address, "GET /peer HTTP/1.1").await.ends_with("\r\n\r\n127.0.0.1"));
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let missing = exchange(address, &format!("GET /nowhere HTTP/1.1\r\n{trace}")).await;
    assert!(
        missing.starts_with("HTTP/1.1 404") && missing.contains("0af7651916cd43dd8448eb211c80319c"),
        "{missing}"
    );
    let wrong = exchange(address, "DELETE / HTTP/1.1").await;
    assert!(
        wrong.starts_with("HTTP/1.1 405") && wrong.contains("allow: GET,HEAD"),
        "{wrong}"
    );
    wait_for_metric(
        &tasks,
        r#"service_kit_http_requests_total{listener="probe",method="GET",status="2xx"} 2"#,
    )
    .await;
    wait_for_metric(
        &tasks,
        r#"service_kit_http_requests_total{listener="probe",method="DELETE",status="4xx"} 1"#,
    )
    .await;
    wait_for_metric(&tasks, r#"service_kit_http_connections_open{listener="probe"} 0"#).await;
    assert!(soon("stopping", running.stop()).await.is_clean());
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_readiness_and_listener_are_gone() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, released) = (Arc::clone(&entered), Arc::clone(&release));
    let slow = get(async move || {
        enter.notify_one();
        released.notified().await;
        "finished"
    });
    let address = start(&tasks, Router::new().route("/", slow), HttpLimits::default());
    let mut idle = connect(address).await;
    let client = exchange(address, "GET / HTTP/1.1");
    let conductor = async {
        soon("entering", entered.notified()).await;
        assert!(tasks.ready_report().ready);
        let stopping = running.stop();
        let watching = async {
            tasks.shutdown(Stage::Intake).requested().await;
            assert!(!tasks.ready_report().ready, "the listener closes before readiness is false");
            until("closing the listener", async || match TcpStream::connect(address).await {
                Ok(_) => Err("an open listener".to_owned()),
                Err(_) => Ok(()),
            })
            .await;
            assert_eq!(
                read_to_end(&mut idle).await,
                "",
                "an idle connection is closed without an answer"
            );
            release.notify_one();
        };
        tokio::join!(stopping, watching).0
    };
    let (answer, report) = soon("draining", async { tokio::join!(client, conductor) }).await;
    assert!(answer.ends_with("\r\n\r\nfinished"), "{answer}");
    assert!(report.is_clean(), "{report:?}");
}

/// The accept loop has no turn between these clients' connecting and the request to stop.
#[tokio::test]
async fn requests_waiting_in_the_kernel_are_answered_while_stopping() {
    let running = Tasks::for_test();
    let address = start(&running.tasks(), hello(), HttpLimits::default());
    let mut clients: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    for client in &mut clients {
        std::io::Write::write_all(client, b"GET / HTTP/1.1\r\nhost: probe\r\n\r\n").unwrap();
    }
    assert!(soon("stopping", running.stop()).await.is_clean());
    for mut client in clients {
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut client, &mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_at_the_deadline_and_named() {
    let options = RunningOptions {
        shutdown_timeout: Duration::from_millis(100),
        ..RunningOptions::default()
    };
    let running = Running::new(&options);
    let tasks = running.tasks();
    let endless = get(async || {
        let first = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"first")) });
        Body::from_stream(first.chain(stream::pending()))
    });
    let address = start(&running.tasks(), Router::new().route("/", endless), HttpLimits::default());
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: probe\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("first") {
        assert!(
            soon("reading", client.read_buf(&mut seen)).await.unwrap() > 0,
            "the answer ended early"
        );
    }
    let report = soon("stopping", running.stop()).await;
    let late: Vec<_> = report.late.iter().map(|late| &*late.task).collect();
    assert_eq!(late, ["http probe"]);
    read_to_end(&mut client).await;
    let line = r#"service_kit_http_connections_broken_total{listener="probe",cause="deadline"} 1"#;
    wait_for_metric(&tasks, line).await;
}

#[tokio::test]
async fn a_panicking_handler_spoils_its_own_request_only() {
    let running = Tasks::for_test();
    let app = hello().route("/panic", get(async || -> &'static str { panic!("the secret is out") }));
    let address = start(&running.tasks(), app, HttpLimits::default());
    let answers = exchange(address, "GET /panic HTTP/1.1\r\nhost: probe\r\n\r\nGET / HTTP/1.1").await;
    assert!(
        answers.starts_with("HTTP/1.1 500") && answers.ends_with("\r\n\r\nhello"),
        "{answers}"
    );
    assert!(!answers.contains("secret"), "{answers}");
    assert!(soon("stopping", running.stop()).await.is_clean());
}

#[tokio::test]
async fn slow_headers_end_the_connection_and_are_counted() {
    let running = Tasks::for_test();
    let limits = HttpLimits {
        header_read_timeout: Duration::from_millis(50),
        ..HttpLimits::default()
    };
    let address = start(&running.tasks(), hello(), limits);
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: pro").await.unwrap();
    read_to_end(&mut client).await;
    let line = r#"service_kit_http_connections_broken_total{listener="probe",cause="header_timeout"} 1"#;
    wait_for_metric(&running.tasks(), line).await;
}

#[tokio::test]
async fn headers_beyond_the_bound_are_refused() {
    let running = Tasks::for_test();
    let limits = HttpLimits {
        header_bytes_max: 1_024,
        ..HttpLimits::default()
    };
    let address = start(&running.tasks(), hello(), limits);
    let answer = exchange(address, &format!("GET / HTTP/1.1\r\nx-long: {}", "x".repeat(2_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused_and_counted() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let address = start(
        &tasks,
        hello(),
        HttpLimits {
            connections_max: 1,
            ..HttpLimits::default()
        },
    );
    let first = connect(address).await;
    wait_for_metric(&tasks, r#"service_kit_http_connections_open{listener="probe"} 1"#).await;
    let mut second = connect(address).await;
    let answer = read_to_end(&mut second).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("too_many_connections"),
        "{answer}"
    );
    wait_for_metric(&tasks, r#"service_kit_http_connections_refused_total{listener="probe"} 1"#).await;
    drop(first);
    wait_for_metric(&tasks, r#"service_kit_http_connections_open{listener="probe"} 0"#).await;
    assert!(exchange(address, "GET / HTTP/1.1").await.ends_with("hello"));
}

#[tokio::test]
async fn bodies_beyond_the_bound_are_refused() {
    let running = Tasks::for_test();
    let app = Router::new().route("/", post(async |RawBody(body): RawBody| body.len().to_string()));
    let address = start(
        &running.tasks(),
        app,
        HttpLimits {
            body_bytes_max: 10,
            ..HttpLimits::default()
        },
    );
    let within = exchange(address, "POST / HTTP/1.1\r\ncontent-length: 0").await;
    assert!(within.starts_with("HTTP/1.1 200"), "{within}");
    let mut client = connect(address).await;
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: probe\r\ncontent-length: 11\r\nconnection: close\r\n\r\n12345678901")
        .await
        .unwrap();
    let beyond = read_to_end(&mut client).await;
    assert!(
        beyond.starts_with("HTTP/1.1 413") && beyond.contains("payload_too_large"),
        "{beyond}"
    );
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let running = Tasks::for_test();
    let app = Router::new().route("/", post(async |RawBody(body): RawBody| body.len().to_string()));
    let limits = HttpLimits {
        body_idle_timeout: Duration::from_millis(50),
        ..HttpLimits::default()
    };
    let address = start(&running.tasks(), app, limits);
    let mut client = connect(address).await;
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: probe\r\ncontent-length: 11\r\n\r\n12345")
        .await
        .unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_hyper_service_is_served_as_it_is() {
    let running = Tasks::for_test();
    let service = |peer: SocketAddr| {
        service_fn(
            move |_request| async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(peer.ip().to_string())))) },
        )
    };
    let listener = bind(LOCAL).unwrap();
    let limits = HttpLimits::default();
    let address = serve_with("plain", listener, service, limits, &running.tasks(), Stage::Intake).unwrap();
    assert!(exchange(address, "GET / HTTP/1.1").await.ends_with("\r\n\r\n127.0.0.1"));
    assert!(soon("stopping", running.stop()).await.is_clean());
}

#[tokio::test]
async fn a_taken_address_is_named_in_the_error() {
    let taken = bind(LOCAL).unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let chain = crate::error::Chain(&error).to_string();
    assert!(chain.starts_with(&format!("listening on {address}: ")), "{chain}");
}
