//! Objects that mean harm, or nothing.

use kube::api::DeleteParams;
use operator::object::{Kind, text};
use serde_json::json;

use crate::harness::{World, grant, guide, session};

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_refuses_what_cannot_be_meant() {
    let Some(world) = World::new("op-schema").await else { return };
    let server = |more: &str| guide("op-schema") + more;
    let named = |name: &str| guide("op-schema").replace("name: payments", &format!("name: {name}"));
    let many = (0..300).fold(String::new(), |list, at| list + &format!("  - {{name: V{at}, value: x}}\n"));
    let cases = [
        ("a name of 253 characters", named(&"a".repeat(253))),
        ("a name that begins with a digit", named("9lives")),
        ("no image", server("").replace("  image: registry.example.com/payments\n", "")),
        ("port 0", server("").replace("8088", "0")),
        ("port 70000", server("").replace("8088", "70000")),
        ("equal ports", server("").replace("8088", "8091")),
        ("an upstream elsewhere", server("    upstreamURL: http://10.0.0.1:80\n")),
        ("oauth without issuer", server("  auth: {mode: oauth}\n")),
        ("an unknown mode", server("  auth: {mode: magic}\n")),
        ("an unknown field", server("  replica: 3\n")),
        ("a duration that is none", server("  session: {maxLifetime: forever}\n")),
        (
            "a tool twice",
            server("  tools: [{name: t, sideEffect: read}, {name: t, sideEffect: write}]\n"),
        ),
        ("a tool without side effect", server("  tools: [{name: t}]\n")),
        (
            "a canary of all pods",
            server("  replicas: 2\n  rollout: {strategy: Canary, canaryReplicas: 2}\n"),
        ),
        ("300 variables", server(&format!("  envVars:\n{many}"))),
        (
            "a prefix with a query",
            server("").replace("publicPathPrefix: payments", "publicPathPrefix: 'a?b'"),
        ),
        (
            "a prefix that climbs",
            server("").replace("publicPathPrefix: payments", "publicPathPrefix: 'a/../b'"),
        ),
        ("a team with blanks", server("  teamID: 'a b'\n")),
        (
            "a session of nobody",
            session("op-schema", "s", "payments").replace("{humanID: ada, agentID: cursor}", "{}"),
        ),
        (
            "a session until tomorrow",
            session("op-schema", "s", "payments") + "  expiresAt: tomorrow\n",
        ),
        (
            "a side effect twice",
            grant("op-schema", "g", "payments").replace("[read]", "[read, read]"),
        ),
        ("a grant without server", grant("op-schema", "g", "''")),
    ];
    let mut said = Vec::new();
    for (what, yaml) in cases {
        let Err(message) = world.try_apply(&yaml) else {
            panic!("{what} was taken")
        };
        said.push(format!("{what}: {}", message.lines().take(2).collect::<String>()));
    }
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("a{50,}", "<a…>");
    settings.add_filter("<nil>", "");
    // Other versions have other words.
    if world.cluster.is_ours() {
        settings.bind(|| insta::assert_snapshot!(said.join("\n")));
    }
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_to_install_are_taken_as_they_are() {
    let Some(world) = World::new("op-install").await else { return };
    let folder = crate::cluster::root().join("deploy/operator");
    let dry = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "-k",
        folder.to_str().unwrap(),
    ];
    let said = world.cluster.kubectl(&dry, "").unwrap();
    assert!(
        said.contains("deployment.apps/mcp-operator") && said.contains("clusterrole.rbac"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_maps_beyond_reason_are_refused_and_strange_ones_pass() {
    let Some(world) = World::new("op-strange").await else { return };
    let operator = world.operator(&[]).await;
    let variables = (0..200).fold(String::new(), |list, at| {
        list + &format!("  - {{name: V{at}, value: '{}'}}\n", "ü".repeat(100))
    });
    let strange = guide("op-strange")
        + &format!(
            "  envVars:\n{variables}  tools:\n  - {{name: 'größe \u{1F980}', description: \"{}\", sideEffect: read}}\n",
            "ø".repeat(4000)
        );
    world.apply(&strange);
    // Names of grants and sessions may be as long as Kubernetes lets them be.
    let long = format!("{}.{}", "a".repeat(63), "b".repeat(189));
    world.apply(&(grant("op-strange", &long, "payments") + &session("op-strange", &long, "payments")));
    let map = world
        .until(Kind::ConfigMap, "payments-gateway-policy", "to hold all of it", |map| {
            map["data"]["policy.json"]
                .as_str()
                .is_some_and(|text| text.matches(&long).count() == 2 && text.contains("größe \u{1F980}"))
        })
        .await;
    assert!(text(&map, "/metadata/name") == "payments-gateway-policy");
    world
        .until(Kind::Session, &long, "to be active", |object| {
            text(object, "/status/phase") == "Active"
        })
        .await;
    let huge = (0..65).fold(String::new(), |list, at| list + &format!("k{at}: v, "));
    let labels = guide("op-strange") + &format!("  tools: [{{name: t, sideEffect: read, labels: {{{huge}}}}}]\n");
    assert!(world.try_apply(&labels).is_err(), "65 labels");
    assert!(
        world.try_apply(&grant("op-strange", &"a".repeat(254), "payments")).is_err(),
        "a name of 254 characters"
    );
    assert!(
        world.try_apply(&grant("op-strange", "größe", "payments")).is_err(),
        "a name beyond ASCII"
    );
    world.clean().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_object_of_the_same_name_is_left_alone() {
    let Some(world) = World::new("op-taken").await else { return };
    world.apply("apiVersion: v1\nkind: Service\nmetadata: {name: payments, namespace: op-taken}\nspec: {selector: {app: theirs}, ports: [{port: 1}]}\n");
    let operator = world.operator(&[]).await;
    world.apply(&guide("op-taken"));
    let server = world.until_phase("payments", "Error").await;
    assert!(
        text(&server, "/status/message").contains("Service op-taken/payments exists and is not this server's"),
        "{server:#}"
    );
    let service = world.get(Kind::Service, "payments").await.unwrap();
    assert_eq!(text(&service, "/spec/selector/app"), "theirs");
    // The rest is there all the same, and the name is taken over once it is free.
    world.until(Kind::Deployment, "payments", "to be there", |_| true).await;
    world
        .api(Kind::Service)
        .delete("payments", &DeleteParams::default())
        .await
        .unwrap();
    world
        .until(Kind::Service, "payments", "to be ours", |object| {
            text(object, "/spec/selector/app") == "payments"
        })
        .await;
    world.clean().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_claimant_of_a_route_is_refused_until_the_first_lets_go() {
    let Some(world) = World::new("op-route").await else { return };
    let operator = world.operator(&[]).await;
    world.apply(&guide("op-route"));
    world.until(Kind::Ingress, "payments", "to be there", |_| true).await;
    world.apply(&guide("op-route").replace("name: payments", "name: zz-rival"));
    let rival = world
        .until(Kind::Server, "zz-rival", "to be refused", |object| {
            text(object, "/status/message").contains("claimed it first")
        })
        .await;
    assert!(text(&rival, "/status/message").contains("MCPServer op-route/payments"));
    assert!(world.get(Kind::Ingress, "zz-rival").await.is_none());
    world
        .edit(
            Kind::Server,
            "payments",
            &json!({ "spec": { "publicPathPrefix": "elsewhere" } }),
        )
        .await;
    world.until(Kind::Ingress, "zz-rival", "to be there", |_| true).await;
    world.clean().await;
    operator.stop().await;
}
