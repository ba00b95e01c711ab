//! What many servers cost, in requests to the API server.

use std::collections::BTreeMap;

use kube::api::ListParams;
use operator::object::Kind;
use serde_json::json;

use crate::harness::{World, grant, guide, session, wait_long};

/// Servers with two grants and two sessions each. Ten here; `cargo test -p operator -- --ignored` goes on to a hundred and a thousand.
async fn grow(namespace: &str, sizes: &[usize]) {
    let Some(world) = World::new(namespace).await else { return };
    let mut figures = Vec::new();
    for size in sizes {
        let operator = world.operator(&[]).await;
        let mut yaml = String::new();
        for at in 0..*size {
            let name = format!("s{at}");
            yaml += "---\n";
            yaml += &guide(namespace)
                .replace("name: payments", &format!("name: {name}"))
                .replace("Prefix: payments", &format!("Prefix: {name}"));
            for one in 0..2 {
                yaml += &grant(namespace, &format!("g{at}-{one}"), &name);
                yaml += &session(namespace, &format!("x{at}-{one}"), &name);
            }
        }
        world.apply(&yaml);
        wait_long("every session to be active", || async {
            let sessions = world.api(Kind::Session).list(&ListParams::default()).await.unwrap().items;
            let active = sessions
                .iter()
                .filter(|session| session.data["status"]["phase"] == "Active")
                .count();
            (active == size * 2).then_some(())
        })
        .await;
        operator.settle().await;
        let all = operator.writes();
        let before = operator.writes();
        world
            .edit(Kind::Grant, "g0-0", &json!({ "spec": { "maxTrust": "low" } }))
            .await;
        operator.settle().await;
        figures.push((*size, all, operator.writes_since(&before)));
        world.clean().await;
        operator.stop().await;
    }
    for (size, all, one) in &figures {
        println!(
            "{size} servers: {} writes, {all:?}; a change to one grant: {one:?}",
            all.values().sum::<u64>()
        );
    }
    let owned = |writes: &BTreeMap<String, u64>| -> u64 {
        writes
            .iter()
            .filter(|(what, _)| what.starts_with("patch "))
            .map(|(_, count)| count)
            .sum()
    };
    for (size, all, one) in &figures {
        // ConfigMap, NetworkPolicy, Deployment, Service, Ingress; the ConfigMap again while grants and sessions arrive.
        let per_server = owned(all) / *size as u64;
        assert!(
            (5..=9).contains(&per_server),
            "{size} servers took {per_server} writes each: {all:?}"
        );
        assert!(one.values().sum::<u64>() <= 3, "a change to one grant took {one:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_servers_cost_ten_times_one() {
    grow("op-growth", &[1, 10]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: prints the figures at 10, 100 and 1000 servers"]
async fn a_thousand_servers_cost_a_thousand_times_one() {
    grow("op-growth-large", &[10, 100, 1000]).await;
}
