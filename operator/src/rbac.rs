//! The roles the operator needs, and no more: generated from what the code does, so that neither runs ahead of the other.
//!
//! No Secret is read or written but the operator's own certificate, in its own namespace.

use serde_json::{Value, json};

use crate::object::Kind;

/// What is done with each kind, across the cluster.
fn verbs(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Server | Kind::Grant | Kind::Session | Kind::Pod => &["get", "list", "watch"],
        // Server-side apply of a new object needs `create` beside `patch`.
        Kind::ConfigMap
        | Kind::Service
        | Kind::Deployment
        | Kind::Ingress
        | Kind::HttpRoute
        | Kind::NetworkPolicy
        | Kind::PodDisruptionBudget => &["create", "delete", "get", "list", "patch", "watch"],
        Kind::Event => &["create"],
        Kind::Lease => &["create", "get", "update"],
    }
}

/// Service account, roles and bindings, for namespace `mcp-runtime`.
pub fn objects() -> Vec<Value> {
    const NAME: &str = "mcp-operator";
    const NAMESPACE: &str = "mcp-runtime";
    let rule = |kind: Kind, suffix: &str, verbs: &[&str]| {
        let (group, _, _, plural) = kind.names();
        json!({ "apiGroups": [group], "resources": [format!("{plural}{suffix}")], "verbs": verbs })
    };
    let custom = [Kind::Server, Kind::Grant, Kind::Session];
    let mut rules: Vec<Value> = custom
        .into_iter()
        .chain([Kind::Pod])
        .chain(Kind::OWNED)
        .chain([Kind::Event])
        .map(|kind| rule(kind, "", verbs(kind)))
        .collect();
    rules.extend(custom.map(|kind| rule(kind, "/status", &["patch"])));
    // Owner references that block deletion are allowed to whom may change the owner's finalizers.
    rules.push(rule(Kind::Server, "/finalizers", &["update"]));
    // Whether a gateway's token is good is the API server's to say.
    rules.push(json!({ "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] }));
    // Of webhooks, only which authority ours are believed by.
    rules.push(json!({
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        "resourceNames": [crate::webhook::NAME],
        "verbs": ["patch"],
    }));
    // Names cannot bound what is created; what is read and replaced is that one Secret.
    let secrets = |verbs: &[&str]| json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": verbs });
    let mut own_secret = secrets(&["get", "update"]);
    own_secret["resourceNames"] = json!([crate::authority::SECRET_NAME]);
    let subject = json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }]);
    let reference = |kind: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME });
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": NAME, "namespace": NAMESPACE } }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": NAME }, "rules": rules }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": NAME },
            "roleRef": reference("ClusterRole"), "subjects": subject,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": NAME, "namespace": NAMESPACE },
            "rules": [rule(Kind::Lease, "", verbs(Kind::Lease)), own_secret, secrets(&["create"])],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": NAME, "namespace": NAMESPACE },
            "roleRef": reference("Role"), "subjects": subject,
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_reaches_secrets_of_others_or_everything() {
        let objects = objects();
        let text = serde_json::to_string(&objects).unwrap();
        assert!(!text.contains("\"*\""), "{text}");
        for object in &objects {
            if object["kind"] == "ClusterRole" {
                assert!(!object.to_string().contains("secrets"), "{object}");
            }
        }
        assert!(text.contains(r#""resourceNames":["mcp-operator-tls"]"#), "{text}");
    }
}
