//! Streams of events and logs.

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use futures::StreamExt as _;
use http::Request;
use serde_json::Value;

use crate::world::{ACME, ADMIN, World, event, soon};

/// A client of server-sent events.
struct Client {
    body: BodyDataStream,
    text: String,
    last_id: Option<String>,
}

impl Client {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
            last_id: None,
        }
    }

    async fn follow(world: &World, uri: &str, key: &str, last_id: Option<&str>) -> Self {
        let mut request = Request::get(uri).header("host", "localhost").header("x-api-key", key);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        Self::of(world.send(request.body(Body::empty()).unwrap()).await)
    }

    /// The data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let Some(id) = field("id:") {
                    self.last_id = Some(id.to_owned());
                }
                if let Some(data) = field("data:") {
                    return Some(serde_json::from_str(data).unwrap());
                }
            }
            let piece = soon("a piece of the stream", self.body.next()).await?.unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn offsets(&mut self, count: usize) -> Vec<u64> {
        let mut offsets = Vec::new();
        for _ in 0..count {
            let event = self.next().await.expect("the stream goes on");
            assert_eq!(
                self.last_id.as_deref(),
                Some(format!("{}:{}", event["partition"], event["offset"]).as_str())
            );
            offsets.push(event["offset"].as_u64().unwrap());
        }
        offsets
    }
}

#[tokio::test]
async fn a_stream_begins_now_and_goes_on_in_order_of_arrival() {
    let world = World::new();
    world.store.fill(50).await;
    let mut client = Client::follow(&world, "/api/v1/events/stream", ADMIN, None).await;
    for at in 50..60 {
        // Later arrivals are older by their own time: arrival decides.
        world.store.insert(event(at, at * 10)).await;
    }
    assert_eq!(client.offsets(10).await, (50..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_resumed_stream_misses_and_repeats_nothing() {
    let world = World::new();
    let (mut seen, mut last, mut at) = (Vec::new(), Some("0:0".to_owned()), 0);
    world.store.fill(1).await;
    for turn in 0..6 {
        for _ in 0..7 {
            at += 1;
            world.store.insert(event(at, 0)).await;
        }
        let mut client = Client::follow(&world, "/api/v1/events/stream", ADMIN, last.as_deref()).await;
        seen.extend(client.offsets(3 + turn % 2).await);
        // Inserted while the client is connected, and seen by the next one only.
        at += 1;
        world.store.insert(event(at, 0)).await;
        last = client.last_id;
    }
    let mut client = Client::follow(&world, &format!("/api/v1/events/stream?after={}", last.unwrap()), ADMIN, None).await;
    let rest = usize::try_from(at).unwrap() - seen.len();
    seen.extend(client.offsets(rest).await);
    assert_eq!(seen, (1..=at).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_is_filtered_and_confined() {
    let world = World::new();
    let mut all = Client::follow(&world, "/api/v1/events/stream?outcome=denied", ADMIN, Some("0:0")).await;
    let mut acme = Client::follow(&world, "/api/v1/events/stream", ACME, Some("0:0")).await;
    world.store.fill(1_200).await;
    assert_eq!(all.offsets(600).await, (0..600).map(|at| at * 2 + 1).collect::<Vec<_>>());
    assert_eq!(acme.offsets(599).await, (1..600).map(|at| at * 2).collect::<Vec<_>>());
}

#[tokio::test]
async fn streams_end_cleanly_when_the_service_stops() {
    let world = World::new();
    let mut events = Client::follow(&world, "/api/v1/events/stream", ADMIN, None).await;
    let mut logs = Client::follow(&world, "/api/v1/sentinel/logs/gateway?follow=true", ADMIN, None).await;
    assert!(world.running.stop().await.is_clean());
    assert_eq!(events.next().await, None);
    logs.text.clear();
    while let Some(piece) = soon("the end of the log", logs.body.next()).await {
        assert!(piece.is_ok());
    }
}

#[tokio::test]
async fn logs_are_a_list_or_lines_or_events() {
    let world = World::new();
    let lines = world.get("/api/v1/sentinel/logs/gateway?tail=2").await;
    assert_eq!(lines.as_array().unwrap().len(), 2);
    let mut ndjson = Client::of(
        world
            .call("GET", "/api/v1/sentinel/logs/gateway?follow=true", Some(ADMIN), "")
            .await,
    );
    let first = soon("a line", ndjson.body.next()).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&first).unwrap()["message"], "line 0");
    let request = Request::get("/api/v1/sentinel/logs/gateway?follow=true")
        .header("x-api-key", ADMIN)
        .header("accept", "text/event-stream");
    let mut sse = Client::of(world.send(request.body(Body::empty()).unwrap()).await);
    assert_eq!(sse.next().await.unwrap()["message"], "line 0");
    assert_eq!(
        world
            .call("GET", "/api/v1/sentinel/logs/nothing", Some(ADMIN), "")
            .await
            .status(),
        404
    );
    assert_eq!(
        world
            .call("GET", "/api/v1/sentinel/logs/nothing?follow=true", Some(ADMIN), "")
            .await
            .status(),
        404
    );
}
