//! What is applied comes to be, stays as it is, and comes back when somebody changes it.

use kube::api::{DeleteParams, ListParams};
use operator::object::{Kind, text};
use serde_json::json;

use crate::harness::{World, guide};

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_manifest_becomes_a_ready_server_and_then_nothing_is_written() {
    let Some(world) = World::new("op-converge").await else {
        return;
    };
    let operator = world
        .operator(&["--ingest-url", "http://ingest.mcp-sentinel:8081/events"])
        .await;
    world.apply(&guide("op-converge"));
    world.until_phase("payments", "Pending").await;
    world.run_pods("payments", 1).await;
    let server = world.until_phase("payments", "Ready").await;
    assert_eq!(text(&server, "/status/url"), "http://op-converge.example.com/payments/mcp");
    assert!(text(&server, "/status/policy/revision").starts_with("sha256:"));
    let columns = world.cluster.kubectl(&["get", "mcps", "-n", "op-converge"], "").unwrap();
    assert!(columns.contains("Ready") && columns.contains("true"), "{columns}");

    operator.settle().await;
    let before = operator.writes();
    // A touch that changes nothing wakes the operator, and costs no write.
    world
        .edit(
            Kind::Server,
            "payments",
            &json!({ "metadata": { "annotations": { "touched": "1" } } }),
        )
        .await;
    world
        .edit(
            Kind::Deployment,
            "payments",
            &json!({ "metadata": { "annotations": { "theirs": "1" } } }),
        )
        .await;
    operator.settle().await;
    assert_eq!(operator.writes_since(&before), [].into());
    let deployment = world.get(Kind::Deployment, "payments").await.unwrap();
    assert_eq!(
        text(&deployment, "/metadata/annotations/theirs"),
        "1",
        "what others add stays"
    );

    // An operator that starts anew finds everything as it should be.
    operator.stop().await;
    let operator = world
        .operator(&["--ingest-url", "http://ingest.mcp-sentinel:8081/events"])
        .await;
    operator.settle().await;
    assert_eq!(operator.writes(), [].into());
    world.clean().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired_and_what_is_not_wanted_any_more_goes() {
    let Some(world) = World::new("op-drift").await else { return };
    let operator = world.operator(&[]).await;
    world.apply(&guide("op-drift"));
    world.until(Kind::Ingress, "payments", "to be there", |_| true).await;
    operator.settle().await;

    world
        .edit(
            Kind::Service,
            "payments",
            &json!({ "spec": { "selector": { "app": "somebody-else" } } }),
        )
        .await;
    world
        .until(Kind::Service, "payments", "to be repaired", |object| {
            text(object, "/spec/selector/app") == "payments"
        })
        .await;
    world
        .api(Kind::NetworkPolicy)
        .delete("payments-gateway", &DeleteParams::default())
        .await
        .unwrap();
    world
        .until(Kind::NetworkPolicy, "payments-gateway", "to be back", |_| true)
        .await;
    world
        .edit(
            Kind::ConfigMap,
            "payments-gateway-policy",
            &json!({ "data": { "policy.json": "{}" } }),
        )
        .await;
    world
        .until(Kind::ConfigMap, "payments-gateway-policy", "to be repaired", |object| {
            object["data"]["policy.json"]
                .as_str()
                .is_some_and(|text| text.contains("revision"))
        })
        .await;

    world
        .edit(
            Kind::Server,
            "payments",
            &json!({ "spec": { "gateway": { "enabled": false } } }),
        )
        .await;
    world.until_gone(Kind::ConfigMap, "payments-gateway-policy").await;
    world.until_gone(Kind::NetworkPolicy, "payments-gateway").await;
    let deployment = world
        .until(Kind::Deployment, "payments", "to lose its sidecar", |object| {
            object["spec"]["template"]["spec"]["containers"]
                .as_array()
                .is_some_and(|list| list.len() == 1)
        })
        .await;
    assert_eq!(text(&deployment, "/spec/template/spec/containers/0/name"), "payments");

    world
        .api(Kind::Server)
        .delete("payments", &DeleteParams::default())
        .await
        .unwrap();
    world.until_gone(Kind::Deployment, "payments").await;
    world.until_gone(Kind::Service, "payments").await;
    world.clean().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_own_reason_is_the_servers_reason() {
    let Some(world) = World::new("op-reason").await else { return };
    let operator = world.operator(&[]).await;
    world.apply(&guide("op-reason"));
    world.run_pods("payments", 1).await;
    world.until_phase("payments", "Ready").await;
    let pods = world.api(Kind::Pod).list(&ListParams::default()).await.unwrap().items;
    let status = json!({ "status": {
        "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
        "containerStatuses": [{
            "name": "payments", "image": "x", "imageID": "", "ready": false, "restartCount": 7,
            "state": { "waiting": { "reason": "CrashLoopBackOff" } },
            "lastState": { "terminated": { "exitCode": 1, "reason": "Error", "message": "no database" } },
        }],
    } });
    world.set_pod_status(pods[0].metadata.name.as_deref().unwrap(), &status).await;
    let server = world
        .until(Kind::Server, "payments", "to tell why", |object| {
            text(object, "/status/message").contains("no database")
        })
        .await;
    assert_eq!(text(&server, "/status/conditions/0/reason"), "ContainerCrashing");
    let events = world.cluster.kubectl(&["get", "events", "-n", "op-reason"], "").unwrap();
    assert!(
        events.contains("ContainerCrashing") && events.contains("mcpserver/payments"),
        "{events}"
    );
    world.clean().await;
    operator.stop().await;
}
