//! Grants and sessions reach the policy, and learn what became of them.

use operator::object::{Kind, text};
use serde_json::{Value, json};

use crate::harness::{World, grant, guide, session};

fn document(map: &Value) -> Value {
    serde_json::from_str(map["data"]["policy.json"].as_str().unwrap_or("null")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_the_policy_with_three_writes() {
    let Some(world) = World::new("op-access").await else { return };
    let operator = world.operator(&[]).await;
    world.apply(&(guide("op-access") + &grant("op-access", "cursor", "payments") + &session("op-access", "ada", "payments")));
    let map = "payments-gateway-policy";
    world
        .until(Kind::ConfigMap, map, "to know the session", |map| {
            document(map)["sessions"][0]["name"] == "ada"
        })
        .await;
    world
        .until(Kind::Session, "ada", "to be active", |object| {
            text(object, "/status/phase") == "Active"
        })
        .await;
    operator.settle().await;
    let before = operator.writes();
    world
        .edit(Kind::Session, "ada", &json!({ "spec": { "revoked": true } }))
        .await;
    world
        .until(Kind::ConfigMap, map, "to know the revocation", |map| {
            document(map)["sessions"][0]["revoked"] == true
        })
        .await;
    world
        .until(Kind::Session, "ada", "to be inactive", |object| {
            text(object, "/status/conditions/0/reason") == "Revoked"
        })
        .await;
    operator.settle().await;
    let expected = [
        ("patch configmaps", 1),
        ("patch_status mcpservers", 1),
        ("patch_status mcpagentsessions", 1),
    ];
    assert_eq!(
        operator.writes_since(&before),
        expected.map(|(what, count)| (what.to_owned(), count)).into()
    );
    world.clean().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_from_another_namespace_counts_only_where_it_is_admitted() {
    let Some(world) = World::new("op-foreign").await else { return };
    world.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: op-intruder}\n");
    let operator = world.operator(&[]).await;
    world.apply(&guide("op-foreign"));
    let foreign =
        grant("op-intruder", "mine", "payments").replace("{name: payments}", "{name: payments, namespace: op-foreign}");
    world.apply(&foreign);
    let phase = |phase: &str| {
        world
            .cluster
            .kubectl(
                &[
                    "wait",
                    "-n",
                    "op-intruder",
                    "mcpg/mine",
                    &format!("--for=jsonpath={{.status.phase}}={phase}"),
                    "--timeout=60s",
                ],
                "",
            )
            .unwrap()
    };
    phase("Error");
    let map = world
        .until(Kind::ConfigMap, "payments-gateway-policy", "to be there", |_| true)
        .await;
    assert_eq!(document(&map)["grants"], Value::Null);
    world
        .edit(
            Kind::Server,
            "payments",
            &json!({ "spec": { "allowReferencesFrom": ["op-intruder"] } }),
        )
        .await;
    phase("Active");
    world
        .until(Kind::ConfigMap, "payments-gateway-policy", "to admit it", |map| {
            document(map)["grants"][0]["name"] == "mine"
        })
        .await;
    world
        .cluster
        .kubectl(&["delete", "-n", "op-intruder", "mcpg/mine"], "")
        .unwrap();
    world.clean().await;
    operator.stop().await;
}
