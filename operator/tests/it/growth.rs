//! What many servers cost, in requests to the API server.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use kube::api::{DynamicObject, ListParams, PostParams};
use operator::object::Kind;
use serde_json::{Value, json};

use crate::harness::{World, wait_long};

/// Grants of each server, and as many sessions.
const OF_EACH: usize = 10;
/// Requests that make the objects, at a time.
const CREATES: usize = 16;

fn object(namespace: &str, kind: Kind, name: &str, spec: &Value) -> (Kind, DynamicObject) {
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    });
    (kind, serde_json::from_value(object).unwrap())
}

/// Everything about the servers of a size, in the order in which people apply it: what refers to a server comes after it.
fn objects(namespace: &str, size: usize) -> Vec<(Kind, DynamicObject)> {
    let server = |at: usize| {
        let spec = json!({ "image": "registry.example.com/payments:v1", "gateway": { "enabled": true } });
        object(namespace, Kind::Server, &format!("s{at}"), &spec)
    };
    let mut objects: Vec<_> = (0..size).map(server).collect();
    for at in 0..size {
        let server = json!({ "name": format!("s{at}") });
        for one in 0..OF_EACH {
            let subject = json!({ "humanID": format!("human-{one}"), "agentID": "cursor" });
            let grant = json!({ "serverRef": server, "subject": subject, "maxTrust": "high", "allowedSideEffects": ["read"] });
            objects.push(object(namespace, Kind::Grant, &format!("g{at}-{one}"), &grant));
            let session = json!({ "serverRef": server, "subject": subject, "consentedTrust": "medium" });
            objects.push(object(namespace, Kind::Session, &format!("x{at}-{one}"), &session));
        }
    }
    objects
}

async fn make(world: &World, objects: Vec<(Kind, DynamicObject)>) {
    let creates = objects.into_iter().map(|(kind, object)| async move {
        world.api(kind).create(&PostParams::default(), &object).await.unwrap();
    });
    futures::stream::iter(creates)
        .buffer_unordered(CREATES)
        .collect::<Vec<()>>()
        .await;
}

/// Memory of this process, in mebibytes: the operator is the most of it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default()
        / 1024
}

/// Servers with ten grants and ten sessions each.
async fn grow(namespace: &str, sizes: &[usize]) {
    let Some(world) = World::new(namespace).await else { return };
    let mut figures = Vec::new();
    for size in sizes {
        let operator = world.operator(&[]).await;
        make(&world, objects(namespace, *size)).await;
        wait_long("every session to be active", || async {
            let sessions = world.api(Kind::Session).list(&ListParams::default()).await.ok()?.items;
            let active = sessions.iter().filter(|session| session.data["status"]["phase"] == "Active");
            (active.count() == size * OF_EACH).then_some(())
        })
        .await;
        operator.settle().await;
        let all = operator.writes();
        world
            .edit(Kind::Grant, "g0-0", &json!({ "spec": { "maxTrust": "low" } }))
            .await;
        operator.settle().await;
        figures.push((*size, all.clone(), operator.writes_since(&all), resident()));
        world.clean().await;
        operator.stop().await;
    }
    let total = |writes: &BTreeMap<String, u64>| writes.values().sum::<u64>();
    let each = |writes: &BTreeMap<String, u64>, size: usize| total(writes) / size as u64;
    for (size, all, one, resident) in &figures {
        println!(
            "{size} servers with {OF_EACH} grants and {OF_EACH} sessions each: {} writes, {} a server, {resident} MiB resident; {all:?}; a change to one grant: {one:?}",
            total(all),
            each(all, *size),
        );
    }
    for (size, all, one, _) in &figures {
        // Five objects and a status for the server, one for each grant and session; what arrives meanwhile is written once more.
        let (least, most) = (6 + 2 * OF_EACH as u64, 3 * (6 + 2 * OF_EACH as u64));
        let per_server = each(all, *size);
        assert!(
            (least..=most).contains(&per_server),
            "{size} servers took {per_server} writes each: {all:?}"
        );
        let objects = one.iter().filter(|(what, _)| what.starts_with("patch "));
        let objects: u64 = objects.map(|(_, count)| count).sum();
        assert_eq!(objects, 1, "a change to one grant writes one object: {one:?}");
        assert!(total(one) <= 3, "beside it only statuses: {one:?}");
    }
    for pair in figures.windows(2) {
        let [small, large] = [&pair[0], &pair[1]].map(|(size, all, ..)| each(all, *size));
        assert!(
            large <= small + small / 2,
            "requests grow faster than servers: {small} each, then {large} each"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_servers_cost_ten_times_the_requests() {
    grow("op-growth", &[2, 20]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: prints the figures at 10, 100 and 1000 servers"]
async fn a_thousand_servers_cost_a_thousand_times_one() {
    grow("op-growth-large", &[10, 100, 1000]).await;
}
