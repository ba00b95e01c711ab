//! Operators that die, and API servers that restart.

use std::process::{Child, Command, Stdio};

use kube::api::{Api, DynamicObject};
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

/// An operator as a process of its own, which can be killed.
struct Process(Child);

impl Process {
    fn start(world: &World, identity: &str) -> Self {
        let args = [
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--tls-port",
            "0",
            "--ingress-readiness",
            "permissive",
        ];
        let child = Command::new(env!("CARGO_BIN_EXE_mcp-operator"))
            .args(args)
            .args([
                "--policy-url",
                "none",
                "--ingress-host",
                "op-killed.example.com",
                "--identity",
                identity,
            ])
            .env("KUBECONFIG", world.cluster.operator_kubeconfig())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is finished or given up.
        let _gone = self.0.kill();
        let _waited = self.0.wait();
    }
}

async fn until_leads(world: &World, identity: &str) {
    let lease: Api<DynamicObject> = Api::namespaced_with(world.admin.clone(), "mcp-runtime", &Kind::Lease.resource());
    crate::harness::wait(&format!("{identity} to lead"), || async {
        let lease = lease.get_opt(operator::lease::LEASE_NAME).await.ok()??;
        (lease.data["spec"]["holderIdentity"] == identity).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_that_are_killed_in_turn_lose_nothing() {
    let Some(world) = World::new("op-killed").await else { return };
    let mut at_work = Process::start(&world, "operator-0");
    until_leads(&world, "operator-0").await;
    world.apply(&guide("op-killed"));
    world.until(Kind::Ingress, "payments", "to be there", |_| true).await;
    for turn in 1..=2 {
        let identity = format!("operator-{turn}");
        let next = Process::start(&world, &identity);
        drop(at_work);
        // Nobody works while the lease is waited out; what changes meanwhile is not lost.
        let port = 80 + turn;
        world
            .edit(Kind::Server, "payments", &json!({ "spec": { "servicePort": port } }))
            .await;
        until_leads(&world, &identity).await;
        world
            .until(Kind::Service, "payments", "to follow", |object| {
                object["spec"]["ports"][0]["port"] == port
            })
            .await;
        at_work = next;
    }
    drop(at_work);
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_are_deleted_and_come_back_are_followed_again() {
    let Some(world) = World::new("op-undefined").await else {
        return;
    };
    if !world.cluster.is_ours() {
        println!("skipped: nobody deletes the definitions of a cluster that is not ours");
        return;
    }
    let operator = world.operator(&["--no-leader-election"]).await;
    world.apply(&guide("op-undefined"));
    world.until(Kind::Ingress, "payments", "to be there", |_| true).await;
    world
        .cluster
        .kubectl(&["delete", "crd", "mcpservers.mcpruntime.org"], "")
        .unwrap();
    world.until_gone(Kind::Deployment, "payments").await;
    crate::harness::wait("the definitions to be back", || async {
        world.try_apply(&operator::print::crds()).ok()?;
        world.try_apply(&guide("op-undefined")).ok()
    })
    .await;
    world.until(Kind::Ingress, "payments", "to be back", |_| true).await;
    world.clean().await;
    operator.stop().await;
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
