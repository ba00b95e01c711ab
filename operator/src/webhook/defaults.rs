//! What people leave out, filled in where they then see it.

use crds::cluster::McpServerResource;
use domain::Timestamp;
use serde_json::{Value, json};

use crate::object::text;

/// The JSON patch that fills in what is not there. An object that cannot be read is left to the schema.
pub(super) fn patch(object: &Value, now: Timestamp) -> Vec<Value> {
    let missing = |field: &str| object.pointer(&format!("/spec/{field}")).is_none_or(Value::is_null);
    let add = |field: &str, value: Value| json!({ "op": "add", "path": format!("/spec/{field}"), "value": value });
    match text(object, "/kind") {
        "MCPServer" => {
            let mut read = object.clone();
            if let Some(fields) = read.as_object_mut() {
                fields.remove("status");
            }
            let Ok(server) = serde_json::from_value::<McpServerResource>(read) else {
                return Vec::new();
            };
            let name = text(object, "/metadata/name");
            [
                ("port", json!(server.spec.port())),
                ("servicePort", json!(server.spec.service_port())),
                ("publicPathPrefix", json!(name)),
            ]
            .into_iter()
            .filter(|(field, value)| missing(field) && !value.as_str().is_some_and(str::is_empty))
            .map(|(field, value)| add(field, value))
            .collect()
        }
        // What was revoked is told for a while, counted from then.
        "MCPAgentSession" if object.pointer("/spec/revoked") == Some(&Value::Bool(true)) && missing("revokedAt") => {
            vec![add("revokedAt", json!(now.to_string()))]
        }
        _ => Vec::new(),
    }
}
