//! Objects for tests, as the API server would send them.

use serde_json::{Value, json};

use crate::args::{Args, Config, Settings};
use crate::object::{Key, Kind};
use crate::validate::{Checked, Fault, validate};
use crate::world::{Change, Facts, World};

pub(crate) fn settings(options: &[&str]) -> Settings {
    use clap::Parser as _;
    let args =
        Args::try_parse_from([&["mcp-operator", "--gateway-image", "r.example/mcp-gateway:1"], options].concat()).unwrap();
    Config::try_from(args.operator).unwrap().settings
}

/// The manifest of the publishing guide, with `more` merged into its spec.
pub(crate) fn server(more: &Value) -> Value {
    let mut object = json!({
        "apiVersion": crds::API_VERSION,
        "kind": "MCPServer",
        "metadata": {
            "name": "payments", "namespace": "mcp-servers", "uid": "uid-payments", "generation": 3,
            "creationTimestamp": "2026-11-01T00:00:00Z",
        },
        "spec": {
            "description": "Payments MCP server for invoice lookup and refund workflows.",
            "image": "registry.example.com/payments",
            "imageTag": "v1.0.0",
            "port": 8088,
            "publicPathPrefix": "payments",
            "gateway": { "enabled": true },
        },
    });
    merge(&mut object["spec"], more);
    object
}

pub(crate) fn grant(name: &str, namespace: &str, more: &Value) -> Value {
    access(
        "MCPAccessGrant",
        name,
        namespace,
        &json!({ "maxTrust": "high", "allowedSideEffects": ["read"] }),
        more,
    )
}

pub(crate) fn session(name: &str, namespace: &str, more: &Value) -> Value {
    access(
        "MCPAgentSession",
        name,
        namespace,
        &json!({ "consentedTrust": "medium" }),
        more,
    )
}

fn access(kind: &str, name: &str, namespace: &str, base: &Value, more: &Value) -> Value {
    let mut object = json!({
        "apiVersion": crds::API_VERSION,
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": 1 },
        "spec": { "serverRef": { "name": "payments" }, "subject": { "agentID": "cursor" } },
    });
    merge(&mut object["spec"], base);
    merge(&mut object["spec"], more);
    object
}

/// A world with these objects, each by its own kind.
pub(crate) fn world(settings: &Settings, objects: &[Value]) -> World {
    let mut world = World::new(&settings.ingress_host);
    for object in objects {
        world.observe(kind(object), Change::Set(object.clone()));
    }
    world
}

fn kind(object: &Value) -> Kind {
    let all = [Kind::Server, Kind::Grant, Kind::Session, Kind::Pod]
        .into_iter()
        .chain(Kind::OWNED);
    all.into_iter().find(|kind| object["kind"] == kind.as_str()).unwrap()
}

pub(crate) fn facts(settings: &Settings, objects: &[Value]) -> Facts {
    world(settings, objects).fetch(&Key::of(&objects[0]))
}

/// What becomes of the first of these objects.
pub(crate) fn check(settings: &Settings, objects: &[Value]) -> Result<Checked, Vec<Fault>> {
    let facts = facts(settings, objects);
    let server = facts.server.clone().unwrap();
    match &server.server {
        Ok(spec) => validate(&facts, spec, &server.uid, settings),
        Err(error) => Err(vec![Fault::invalid(error.clone())]),
    }
}

pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The time of tests.
pub(crate) fn now() -> domain::Timestamp {
    domain::Timestamp::parse("2026-11-22T00:00:00Z").unwrap()
}
