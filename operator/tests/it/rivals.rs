//! Operators that die, and API servers that restart.

use operator::object::Kind;
use serde_json::json;

use crate::harness::{World, guide};

#[tokio::test(flavor = "multi_thread")]
async fn one_operator_works_at_a_time_and_the_next_takes_over() {
    let Some(world) = World::new("op-rivals").await else { return };
    let first = world.operator(&["--identity", "first"]).await;
    crate::harness::wait("the first to lead", || async {
        (first.metrics.is_leader.get() == 1).then_some(())
    })
    .await;
    let second = world.operator(&["--identity", "second"]).await;
    world.apply(&guide("op-rivals"));
    world.until(Kind::Ingress, "payments", "to be there", |_| true).await;
    first.settle().await;
    assert_eq!((second.metrics.is_leader.get(), second.writes()), (0, [].into()));
    first.stop().await;
    crate::harness::wait("the second to lead", || async {
        (second.metrics.is_leader.get() == 1).then_some(())
    })
    .await;
    second.settle().await;
    assert_eq!(second.writes(), [].into(), "the first left nothing undone");
    world
        .edit(Kind::Server, "payments", &json!({ "spec": { "servicePort": 81 } }))
        .await;
    world
        .until(Kind::Service, "payments", "to follow", |object| {
            object["spec"]["ports"][0]["port"] == 81
        })
        .await;
    world.clean().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_api_server_is_followed_again() {
    let Some(world) = World::new("op-restart").await else { return };
    let operator = world.operator(&["--no-leader-election"]).await;
    world.apply(&guide("op-restart"));
    world.until(Kind::Ingress, "payments", "to be there", |_| true).await;
    if world.cluster.restart_api_server() {
        crate::harness::wait("the API server to be back", || async {
            world.try_apply(&guide("op-restart").replace("port: 8088", "port: 8089")).ok()
        })
        .await;
        world
            .until(Kind::Deployment, "payments", "to follow", |object| {
                object["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] == 8089
            })
            .await;
    }
    world.clean().await;
    operator.stop().await;
}
