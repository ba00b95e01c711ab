//! What goes wrong with operators of this kind, one test a symptom. Those that need a cluster are in `tests/it`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::build::build;
use crate::object::{Key, Kind, text};
use crate::policy::render;
use crate::rbac;
use crate::testing::{check, facts, grant, now, server, session, settings};
use crate::validate::Reason;
use crate::world::Change;

fn document(objects: &[Value]) -> Value {
    let settings = settings(&[]);
    let facts = facts(&settings, objects);
    let server = facts.server.clone().unwrap();
    let policy = render(&facts, server.server.as_ref().unwrap(), "local", now()).unwrap();
    serde_json::from_str(&policy.text).unwrap()
}

fn built(options: &[&str], more: &Value) -> Vec<Value> {
    let settings = settings(options);
    let checked = check(&settings, &[server(more)]).unwrap();
    build(&checked, None, &settings)
        .into_iter()
        .map(|desired| desired.body)
        .collect()
}

fn kind(objects: &[Value], kind: Kind) -> &Value {
    objects.iter().find(|object| object["kind"] == kind.as_str()).unwrap()
}

#[test]
fn the_policy_changes_though_nothing_did() {
    let objects = [
        server(&json!({})),
        grant("a", "mcp-servers", &json!({})),
        grant("b", "mcp-servers", &json!({})),
        session("c", "mcp-servers", &json!({})),
        session("d", "mcp-servers", &json!({})),
    ];
    let mut turned = objects.clone();
    turned.reverse();
    turned.rotate_right(1);
    assert_eq!(document(&objects), document(&turned));
}

#[test]
fn a_full_policy_stops_revocations() {
    let long = "x".repeat(120);
    let ended = json!({ "expiresAt": "2026-11-21T12:00:00Z", "policyVersion": long });
    let sessions = (0..3_500).map(|at| session(&format!("s{at}-{long}"), "mcp-servers", &ended));
    let mut objects = vec![
        server(&json!({})),
        session("revoked", "mcp-servers", &json!({ "revoked": true })),
    ];
    objects.extend(sessions);
    let text = document(&objects).to_string();
    assert!(text.len() < 1_000_000, "what has ended gives way: {}", text.len());
    assert!(
        text.contains("\"revoked\":true"),
        "what is revoked and could be used again is told"
    );
    // When nothing can give way, the last policy stays and the status says so.
    let lasting = json!({ "policyVersion": long, "subject": { "humanID": long } });
    let sessions = (0..3_500).map(|at| session(&format!("s{at}-{long}"), "mcp-servers", &lasting));
    let objects: Vec<Value> = std::iter::once(server(&json!({}))).chain(sessions).collect();
    let settings = settings(&[]);
    let facts = facts(&settings, &objects);
    let spec = facts.server.clone().unwrap();
    let fault = render(&facts, spec.server.as_ref().unwrap(), "local", now()).unwrap_err();
    assert_eq!(fault.reason, Reason::PolicyTooLarge);
    assert!(fault.message.contains("the last one stays in force"), "{fault}");
}

#[test]
fn a_namesake_of_another_namespace_freezes_the_policy() {
    let more = json!({ "allowReferencesFrom": ["friends"] });
    let there = json!({ "serverRef": { "name": "payments", "namespace": "mcp-servers" } });
    let text = document(&[
        server(&more),
        grant("same", "mcp-servers", &json!({})),
        grant("same", "friends", &there),
        session("gone", "mcp-servers", &json!({ "revoked": true })),
    ]);
    assert_eq!(text["grants"].as_array().unwrap().len(), 2);
    assert_eq!(text["sessions"][0]["revoked"], true);
}

#[test]
fn a_policy_of_later_looks_older_when_a_clock_is_set_back() {
    let settings = settings(&[]);
    let objects = [server(&json!({})), grant("a", "mcp-servers", &json!({}))];
    let mut world = crate::testing::world(&settings, &objects);
    let key = Key::of(&objects[0]);
    let checked = check(&settings, &objects).unwrap();
    let policy = |facts: &crate::world::Facts, now| {
        let server = facts.server.clone().unwrap();
        render(facts, server.server.as_ref().unwrap(), "local", now).unwrap()
    };
    let later = now().plus(std::time::Duration::from_hours(1));
    let first = policy(&world.fetch(&key), later);
    for object in build(&checked, Some(&first), &settings) {
        world.observe(object.kind, Change::Set(object.body));
    }
    assert_eq!(policy(&world.fetch(&key), now()), first, "the same is from when it was");
    world.observe(Kind::Grant, Change::Set(grant("b", "mcp-servers", &json!({}))));
    let second = policy(&world.fetch(&key), now());
    assert!(
        second.generated_at > first.generated_at,
        "{} {}",
        first.generated_at,
        second.generated_at
    );
}

#[test]
fn the_author_of_a_server_replaces_its_sidecar_or_goes_around_it() {
    let objects = built(&[], &json!({ "gateway": { "image": "mine" } }));
    let pod = &kind(&objects, Kind::Deployment)["spec"]["template"]["spec"];
    let sidecar = pod["containers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|container| container["name"] == "mcp-gateway");
    assert_eq!(
        sidecar.unwrap()["image"],
        "r.example/mcp-gateway:1",
        "the operator's, whatever the author names"
    );
    let ports = &kind(&objects, Kind::NetworkPolicy)["spec"]["ingress"][0]["ports"];
    let ports: Vec<_> = ports
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["port"].as_u64().unwrap())
        .collect();
    assert_eq!(
        ports,
        [8091, 9103],
        "the server's own port is reached from within the pod alone"
    );
    let service = kind(&objects, Kind::Service);
    assert_eq!(text(service, "/spec/ports/0/targetPort"), "gateway");
}

#[test]
fn credentials_of_the_platform_land_beside_tenants() {
    let objects = built(&[], &json!({ "useProvisionedRegistry": true }));
    assert!(objects.iter().all(|object| object["kind"] != "Secret"));
    for role in rbac::objects() {
        if role["kind"] == "ClusterRole" {
            assert!(!role.to_string().contains("secrets"), "{role}");
        }
    }
}

#[test]
fn the_server_gets_a_token_of_the_cluster() {
    let objects = built(&[], &json!({}));
    let pod = &kind(&objects, Kind::Deployment)["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    for container in pod["containers"].as_array().unwrap() {
        let has_token = container["volumeMounts"].to_string().contains("policy-token");
        assert_eq!(has_token, container["name"] == "mcp-gateway", "{container:#}");
    }
}

#[test]
fn links_say_http_behind_tls() {
    let objects = built(&["--ingress-host", "mcp.example.com", "--ingress-tls"], &json!({}));
    let text = kind(&objects, Kind::Deployment).to_string();
    assert!(text.contains("https://mcp.example.com"), "{text}");
}

#[test]
fn servers_cannot_reach_what_they_need() {
    let objects = built(&[], &json!({}));
    assert_eq!(
        kind(&objects, Kind::NetworkPolicy)["spec"]["policyTypes"],
        json!(["Ingress"]),
        "egress is left alone"
    );
}

#[test]
fn the_workload_fits_no_other_image() {
    let more = json!({
        "runAsUser": 1000, "command": ["serve"], "args": ["--fast"], "nodeSelector": { "disk": "fast" }, "replicas": 2,
    });
    let objects = built(&[], &more);
    let pod = &kind(&objects, Kind::Deployment)["spec"]["template"]["spec"];
    let own = &pod["containers"][0];
    let mut told = String::new();
    for field in [
        &pod["securityContext"]["runAsUser"],
        &own["command"],
        &own["args"],
        &pod["nodeSelector"],
        &own["volumeMounts"][0]["mountPath"],
    ] {
        let _written = write!(told, "{field} ");
    }
    assert_eq!(told, r#"1000 ["serve"] ["--fast"] {"disk":"fast"} "/tmp" "#);
    assert_eq!(kind(&objects, Kind::PodDisruptionBudget)["spec"]["maxUnavailable"], 1);
}
