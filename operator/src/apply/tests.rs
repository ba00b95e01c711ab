use super::*;
use crate::testing::merge;

fn live(mut body: Value, more: &Value) -> BTreeMap<(Kind, String), Arc<Value>> {
    body["metadata"]["uid"] = json!("u1");
    merge(&mut body, more);
    BTreeMap::from([((Kind::Service, "payments".to_owned()), Arc::new(body))])
}

fn desired() -> Desired {
    Desired {
        kind: Kind::Service,
        name: "payments".to_owned(),
        body: json!({
            "metadata": {
                "name": "payments",
                "annotations": { DESIRED: "d1" },
                "ownerReferences": [{ "apiVersion": crds::API_VERSION, "kind": "MCPServer", "name": "payments", "uid": "s1", "controller": true }],
            },
            "spec": {
                "ports": [{ "name": "http", "port": 80 }],
                "limits": { "cpu": "1000m" },
                "hosts": ["a", "b"],
                "empty": "",
            },
        }),
    }
}

#[test]
fn what_others_add_and_what_the_server_normalises_needs_no_call() {
    let others = json!({
        "metadata": { "labels": { "theirs": "x" }, "annotations": { "theirs": "x" } },
        "spec": { "clusterIP": "10.0.0.1", "limits": { "cpu": "1" }, "ports": [{ "name": "theirs" }, { "name": "http", "port": 80, "protocol": "TCP" }] },
    });
    let mut live = live(desired().body, &others);
    let object = Arc::make_mut(live.get_mut(&(Kind::Service, "payments".to_owned())).unwrap());
    object["spec"].as_object_mut().unwrap().remove("empty");
    assert_eq!(plan(vec![desired()], &live, "s1"), []);
}

#[test]
fn drift_is_repaired_with_one_call() {
    for drift in [
        json!({ "spec": { "ports": [{ "name": "http", "port": 81 }] } }),
        json!({ "spec": { "limits": { "cpu": "2" } } }),
        json!({ "spec": { "hosts": ["a", "b", "c"] } }),
        json!({ "metadata": { "annotations": { DESIRED: "other" } } }),
    ] {
        let steps = plan(vec![desired()], &live(desired().body, &drift), "s1");
        assert!(
            matches!(&steps[..], [Step::Patch { uid, .. }] if uid == "u1"),
            "{drift}: {steps:?}"
        );
    }
}

#[test]
fn what_nobody_wants_any_more_is_deleted_when_it_is_ours() {
    let stale = live(desired().body, &json!({}));
    assert!(matches!(&plan(Vec::new(), &stale, "s1")[..], [Step::Delete { uid, .. }] if uid == "u1"));
    assert_eq!(plan(Vec::new(), &stale, "another server"), []);
    let leaving = live(
        desired().body,
        &json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
    );
    assert_eq!(plan(Vec::new(), &leaving, "s1"), []);
}

#[test]
fn an_object_of_an_earlier_server_of_that_name_is_not_ours() {
    let live = live(desired().body, &json!({}));
    assert!(matches!(&plan(vec![desired()], &live, "s2")[..], [Step::Create(_)]));
}
