//! The kinds as a Kubernetes API server holds them, and their definitions.
//!
//! The types here are decoded from objects of the API; [`McpServer`] and its siblings are what the rest of the product speaks. The
//! way from one to the other checks the name, which an older API server may have let pass.

use domain::{Namespace, ServerName, Timestamp};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use crate::API_VERSION;
use crate::grant::McpAccessGrant;
pub use crate::grant::McpAccessGrantResource;
use crate::object::{Metadata, ObjectName};
use crate::server::McpServer;
pub use crate::server::McpServerResource;
use crate::session::McpAgentSession;
pub use crate::session::McpAgentSessionResource;

/// An object whose name or namespace no object of ours can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Its name.
    #[error("metadata.name {name:?} is not usable: {expected}")]
    Name {
        /// As it is.
        name: String,
        /// As it should be.
        expected: String,
    },
    /// Its namespace.
    #[error("metadata.namespace {namespace:?} is not usable")]
    Namespace {
        /// As it is.
        namespace: String,
    },
}

impl TryFrom<&McpServerResource> for McpServer {
    type Error = NameError;

    fn try_from(object: &McpServerResource) -> Result<Self, NameError> {
        Ok(Self {
            api_version: API_VERSION.to_owned(),
            kind: "MCPServer".to_owned(),
            metadata: metadata(&object.metadata, ServerName::parse)?,
            spec: object.spec.clone(),
            status: None,
        })
    }
}

impl TryFrom<&McpAccessGrantResource> for McpAccessGrant {
    type Error = NameError;

    fn try_from(object: &McpAccessGrantResource) -> Result<Self, NameError> {
        Ok(Self {
            api_version: API_VERSION.to_owned(),
            kind: "MCPAccessGrant".to_owned(),
            metadata: metadata(&object.metadata, ObjectName::parse)?,
            spec: object.spec.clone(),
            status: None,
        })
    }
}

impl TryFrom<&McpAgentSessionResource> for McpAgentSession {
    type Error = NameError;

    fn try_from(object: &McpAgentSessionResource) -> Result<Self, NameError> {
        Ok(Self {
            api_version: API_VERSION.to_owned(),
            kind: "MCPAgentSession".to_owned(),
            metadata: metadata(&object.metadata, ObjectName::parse)?,
            spec: object.spec.clone(),
            status: None,
        })
    }
}

fn metadata<N, E: ToString>(meta: &ObjectMeta, parse: impl Fn(&str) -> Result<N, E>) -> Result<Metadata<N>, NameError> {
    let (name, namespace) = (
        meta.name.clone().unwrap_or_default(),
        meta.namespace.clone().unwrap_or_default(),
    );
    Ok(Metadata {
        name: parse(&name).map_err(|error| NameError::Name {
            name,
            expected: error.to_string(),
        })?,
        namespace: Namespace::parse(&namespace).map_err(|_| NameError::Namespace { namespace })?,
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        created: (meta.creation_timestamp.as_ref()).and_then(|created| Timestamp::parse(&created.0.to_string()).ok()),
    })
}

/// The definitions of all three kinds, ready to be applied.
pub fn definitions() -> [CustomResourceDefinition; 3] {
    let server_name = json!([{
        "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 52",
        "message": "metadata.name must be 1 to 52 lower-case letters, digits and inner hyphens, and begin with a letter: it becomes the name of a Service, and its canary's"
    }]);
    [
        definition(&McpServerResource::crd(), &["image"], &server_name),
        definition(&McpAccessGrantResource::crd(), &[], &json!([])),
        definition(&McpAgentSessionResource::crd(), &[], &json!([])),
    ]
}

/// What the derived definition lacks: a structural schema has no closed objects and no unsigned formats, and some rules belong to the
/// cluster alone.
fn definition(derived: &CustomResourceDefinition, required: &[&str], rules: &Value) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(derived).expect("a definition is plain data");
    let schema = value
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .expect("the derived definition has a schema");
    tidy(schema);
    let spec = &mut schema["properties"]["spec"];
    let mut names: Vec<Value> = spec["required"].as_array().cloned().unwrap_or_default();
    names.extend(required.iter().map(|name| json!(name)));
    if !names.is_empty() {
        spec["required"] = Value::Array(names);
    }
    if rules.as_array().is_some_and(|rules| !rules.is_empty()) {
        schema["x-kubernetes-validations"] = rules.clone();
    }
    serde_json::from_value(value).expect("the definition stays one")
}

fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("additionalProperties") == Some(&Value::Bool(false)) {
                map.remove("additionalProperties");
            }
            if map.get("default") == Some(&Value::Null) {
                map.remove("default");
            }
            if map
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"))
            {
                map.insert("format".to_owned(), json!("int32"));
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_are_structural() {
        for definition in definitions() {
            let text = serde_json::to_string(&definition).unwrap();
            for word in [
                "\"additionalProperties\":false",
                "\"uint",
                "\"$ref\"",
                "\"oneOf\"",
                "\"anyOf\"",
                "\"const\"",
            ] {
                assert!(!text.contains(word), "{word} in {text}");
            }
        }
    }
}
