//! The client of the API server, with every request counted by verb and resource.

use std::sync::Arc;

use anyhow::Context as _;
use http::{Method, Uri};
use kube::Client;
use kube::client::ClientBuilder;
use tower::util::MapRequestLayer;

use crate::metrics::OperatorMetrics;
use crate::object::Kind;

/// Connects the way `kubectl` does: from a service account, or from a kubeconfig.
pub async fn connect(metrics: &Arc<OperatorMetrics>) -> anyhow::Result<Client> {
    let config = kube::Config::infer()
        .await
        .context("finding the cluster; run in a pod, or set KUBECONFIG")?;
    with_config(config, metrics)
}

/// Connects to a known cluster.
pub fn with_config(config: kube::Config, metrics: &Arc<OperatorMetrics>) -> anyhow::Result<Client> {
    let metrics = Arc::clone(metrics);
    let count = MapRequestLayer::new(move |request: http::Request<kube::client::Body>| {
        let (verb, resource) = verb_and_resource(request.method(), request.uri());
        metrics.count_request(verb, resource);
        request
    });
    let builder = ClientBuilder::try_from(config).context("preparing a client for the API server")?;
    Ok(builder.with_layer(&count).build())
}

const KINDS: [Kind; 13] = [
    Kind::Server,
    Kind::Grant,
    Kind::Session,
    Kind::Pod,
    Kind::ConfigMap,
    Kind::Service,
    Kind::Deployment,
    Kind::Ingress,
    Kind::HttpRoute,
    Kind::NetworkPolicy,
    Kind::PodDisruptionBudget,
    Kind::Event,
    Kind::Lease,
];

/// What a request does, to which kind. `/status` counts as its own verb, since it is another write.
fn verb_and_resource(method: &Method, uri: &Uri) -> (&'static str, &'static str) {
    let mut segments = uri.path().trim_matches('/').split('/').peekable();
    let resource = segments
        .find_map(|segment| KINDS.into_iter().map(|kind| kind.names().3).find(|plural| *plural == segment))
        .unwrap_or("other");
    let (is_named, is_status) = (segments.next().is_some(), segments.next() == Some("status"));
    let verb = match (method.as_str(), is_status) {
        ("GET", _) if uri.query().is_some_and(|query| query.contains("watch=")) => "watch",
        ("GET", _) if is_named => "get",
        ("GET", _) => "list",
        ("POST", _) => "create",
        ("PATCH" | "PUT", true) => "patch_status",
        ("PATCH", false) => "patch",
        ("PUT", false) => "update",
        ("DELETE", _) => "delete",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_as_roles_name_them() {
        for (method, uri, expected) in [
            ("GET", "/apis/apps/v1/deployments?&labelSelector=a", ("list", "deployments")),
            (
                "GET",
                "/apis/apps/v1/deployments?&watch=true&timeoutSeconds=290",
                ("watch", "deployments"),
            ),
            ("GET", "/apis/apps/v1/namespaces/a/deployments/b", ("get", "deployments")),
            (
                "PATCH",
                "/api/v1/namespaces/a/configmaps/b?&force=true",
                ("patch", "configmaps"),
            ),
            (
                "PATCH",
                "/apis/mcpruntime.org/v1alpha1/namespaces/a/mcpservers/b/status?",
                ("patch_status", "mcpservers"),
            ),
            ("DELETE", "/api/v1/namespaces/a/services/b", ("delete", "services")),
            ("POST", "/apis/events.k8s.io/v1/namespaces/a/events?", ("create", "events")),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b?",
                ("update", "leases"),
            ),
            ("GET", "/version", ("list", "other")),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(verb_and_resource(&method, &uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
