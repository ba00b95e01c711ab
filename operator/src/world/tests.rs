use serde_json::json;

use super::*;
use crate::testing::{grant, merge, server, session, settings, world};

fn key() -> Key {
    Key::new("mcp-servers", "payments")
}

#[test]
fn a_change_is_about_the_servers_it_names_and_no_others() {
    let settings = settings(&[]);
    let mut other = server(&json!({ "publicPathPrefix": "other" }));
    merge(&mut other, &json!({ "metadata": { "name": "other", "uid": "u2" } }));
    let mut world = world(&settings, &[server(&json!({})), other]);
    let mut g = grant("g", "mcp-servers", &json!({}));
    assert_eq!(world.observe(Kind::Grant, Change::Set(g.clone())), [key()].into());
    assert!(world.observe(Kind::Grant, Change::Set(g.clone())).is_empty(), "nothing new");
    // A grant that moves is about both.
    merge(
        &mut g,
        &json!({ "metadata": { "generation": 2 }, "spec": { "serverRef": { "name": "other" } } }),
    );
    assert_eq!(
        world.observe(Kind::Grant, Change::Set(g)),
        [key(), Key::new("mcp-servers", "other")].into()
    );
    assert!(world.fetch(&key()).grants.is_empty());
    assert_eq!(
        world.observe(Kind::Grant, Change::Gone(Key::new("mcp-servers", "g"))),
        [Key::new("mcp-servers", "other")].into()
    );
}

#[test]
fn our_own_status_is_no_news_and_anybody_elses_is() {
    let mut world = world(&settings(&[]), &[server(&json!({}))]);
    let mut object = server(&json!({}));
    object["status"] = json!({ "phase": "Pending" });
    assert_eq!(world.observe(Kind::Server, Change::Set(object.clone())), [key()].into());
    assert!(world.observe(Kind::Server, Change::Set(object)).is_empty());
}

#[test]
fn an_object_that_cannot_be_read_is_still_known() {
    let mut world = world(&settings(&[]), &[]);
    let mut object = server(&json!({ "port": "many" }));
    object["status"] = json!({ "conditions": "nonsense" });
    world.observe(Kind::Server, Change::Set(object));
    let facts = world.fetch(&key());
    assert!(facts.server.unwrap().server.is_err());
    let broken = session("s", "mcp-servers", &json!({ "expiresAt": "tomorrow" }));
    assert_eq!(world.observe(Kind::Session, Change::Set(broken)), [key()].into());
    assert!(world.fetch(&key()).sessions[0].access.is_err());
}

#[test]
fn an_older_state_of_a_live_object_is_passed_over() {
    let mut world = world(&settings(&[]), &[server(&json!({}))]);
    let live = |version: &str| {
        json!({
            "metadata": {
                "name": "payments", "namespace": "mcp-servers", "uid": "c1", "resourceVersion": version,
                "labels": { MANAGED_BY: MANAGED_BY_US },
                "ownerReferences": [{ "apiVersion": crds::API_VERSION, "kind": "MCPServer", "name": "payments", "uid": "uid-payments", "controller": true }],
            },
        })
    };
    assert_eq!(world.observe(Kind::Service, Change::Set(live("12"))), [key()].into());
    assert!(world.observe(Kind::Service, Change::Set(live("9"))).is_empty());
    assert_eq!(world.observe(Kind::Service, Change::Set(live("13"))), [key()].into());
    // Without our label it is not ours any more, which is news for its server.
    let mut stripped = live("14");
    stripped["metadata"]["labels"] = json!({});
    assert_eq!(world.observe(Kind::Service, Change::Set(stripped)), [key()].into());
    assert!(world.fetch(&key()).live.is_empty());
}

#[test]
fn a_route_that_is_let_go_wakes_whom_waits_for_it() {
    let settings = settings(&[]);
    let mut rival = server(&json!({}));
    merge(
        &mut rival,
        &json!({ "metadata": { "name": "rival", "uid": "u2", "creationTimestamp": "2026-11-02T00:00:00Z" } }),
    );
    let mut world = world(&settings, &[server(&json!({})), rival]);
    let rival = Key::new("mcp-servers", "rival");
    assert_eq!(world.fetch(&rival).route_holder, Some(key()));
    assert_eq!(
        world.observe(Kind::Server, Change::Gone(key())),
        [key(), rival.clone()].into()
    );
    assert_eq!(world.fetch(&rival).route_holder, None);
}
