//! How clients get to the pods: Services, and Ingress or `HTTPRoute`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::workload::Pods;
use super::{Desired, Split, canary_name, object, selector};
use crate::args::Settings;
use crate::object::Kind;
use crate::validate::{Checked, Parent, Route, Via};
use crds::server::GATEWAY_ADMIN_PORT;

/// Path below which OAuth clients look for a server's metadata.
const OAUTH_METADATA: &str = "/.well-known/oauth-protected-resource";

/// One Service for all pods, or one each for stable pods and canaries.
pub(super) fn services(checked: &Checked, split: Split) -> Vec<Desired> {
    let name = checked.key.name.clone();
    match split {
        Split::ByPods => vec![service(checked, name, None)],
        Split::Weighted(_) => vec![
            service(checked, name, Some(Pods::Stable)),
            service(checked, canary_name(&checked.key.name), Some(Pods::Canary)),
        ],
    }
}

fn service(checked: &Checked, name: String, pods: Option<Pods>) -> Desired {
    let mut service = object(checked, Kind::Service, name, &[]);
    let target = if checked.gateway.is_some() { "gateway" } else { "http" };
    let mut ports = vec![json!({ "name": "http", "port": checked.service_port, "protocol": "TCP", "targetPort": target })];
    if checked.gateway.is_some() {
        ports.push(json!({ "name": "metrics", "port": GATEWAY_ADMIN_PORT, "protocol": "TCP", "targetPort": "metrics" }));
        service.body["metadata"]["annotations"] = json!({
            "prometheus.io/path": "/metrics",
            "prometheus.io/port": GATEWAY_ADMIN_PORT.to_string(),
            "prometheus.io/scrape": "true",
        });
    }
    service.body["spec"] = json!({
        "type": "ClusterIP",
        "selector": selector(checked, pods.map(Pods::as_str)),
        "ports": ports,
    });
    service
}

/// The Ingress or `HTTPRoute`; with NGINX, a second Ingress carries the canary's weight.
pub(super) fn routes(checked: &Checked, route: &Route, split: Split, settings: &Settings) -> Vec<Desired> {
    match &route.via {
        Via::HttpRoute { parents } => vec![http_route(checked, route, parents, split)],
        Via::Ingress {
            class,
            annotations,
            tls_secret,
        } => {
            let make = |name: String, more: Vec<(&str, String)>| {
                let mut annotations = annotations.clone();
                for (name, value) in class_annotations(class, settings).into_iter().chain(more) {
                    annotations.entry(name.to_owned()).or_insert(value);
                }
                ingress(checked, route, &name, class, &annotations, tls_secret.as_deref())
            };
            let mut ingresses = vec![make(checked.key.name.clone(), Vec::new())];
            if let Split::Weighted(weight) = split {
                ingresses.push(make(
                    canary_name(&checked.key.name),
                    vec![
                        ("nginx.ingress.kubernetes.io/canary", "true".to_owned()),
                        ("nginx.ingress.kubernetes.io/canary-weight", weight.to_string()),
                    ],
                ));
            }
            ingresses
        }
    }
}

/// What each class of ingress controller needs to be told.
fn class_annotations<'a>(class: &str, settings: &Settings) -> Vec<(&'a str, String)> {
    match class {
        "traefik" => {
            let entrypoints = (
                "traefik.ingress.kubernetes.io/router.entrypoints",
                settings.ingress_entrypoints.clone(),
            );
            let tls = settings
                .ingress_tls
                .then(|| ("traefik.ingress.kubernetes.io/router.tls", "true".to_owned()));
            std::iter::once(entrypoints).chain(tls).collect()
        }
        // Streams are long and their pieces small: buffering would hold answers back, and a minute of silence is no fault.
        "nginx" => vec![
            ("nginx.ingress.kubernetes.io/proxy-buffering", "off".to_owned()),
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "3600".to_owned()),
            ("nginx.ingress.kubernetes.io/ssl-redirect", settings.ingress_tls.to_string()),
        ],
        _ => Vec::new(),
    }
}

fn paths(route: &Route) -> Vec<String> {
    let oauth = route.is_oauth.then(|| format!("{OAUTH_METADATA}{}", route.path));
    std::iter::once(route.path.clone()).chain(oauth).collect()
}

fn ingress(
    checked: &Checked,
    route: &Route,
    name: &str,
    class: &str,
    annotations: &BTreeMap<String, String>,
    tls_secret: Option<&str>,
) -> Desired {
    let mut ingress = object(checked, Kind::Ingress, name.to_owned(), &[]);
    let backend = json!({ "service": { "name": name, "port": { "number": checked.service_port } } });
    let paths: Vec<Value> = paths(route)
        .into_iter()
        .map(|path| json!({ "path": path, "pathType": "Prefix", "backend": backend }))
        .collect();
    let mut rule = json!({ "http": { "paths": paths } });
    if !route.host.is_empty() {
        rule["host"] = json!(route.host);
    }
    let mut spec = json!({ "ingressClassName": class, "rules": [rule] });
    if let Some(secret) = tls_secret {
        let hosts: Vec<&str> = [route.host.as_str()].into_iter().filter(|host| !host.is_empty()).collect();
        spec["tls"] = json!([{ "hosts": hosts, "secretName": secret }]);
    }
    if !annotations.is_empty() {
        ingress.body["metadata"]["annotations"] = json!(annotations);
    }
    ingress.body["spec"] = spec;
    ingress
}

fn http_route(checked: &Checked, route: &Route, parents: &[Parent], split: Split) -> Desired {
    let mut object = object(checked, Kind::HttpRoute, checked.key.name.clone(), &[]);
    let backend = |name: &str, weight: u8| json!({ "group": "", "kind": "Service", "name": name, "port": checked.service_port, "weight": weight });
    let backends = match split {
        Split::ByPods => vec![backend(&checked.key.name, 1)],
        Split::Weighted(weight) => vec![
            backend(&checked.key.name, 100 - weight.min(100)),
            backend(&canary_name(&checked.key.name), weight),
        ],
    };
    let matches: Vec<Value> = paths(route)
        .into_iter()
        .map(|path| json!({ "path": { "type": "PathPrefix", "value": path } }))
        .collect();
    let parents: Vec<Value> = parents
        .iter()
        .map(|parent| {
            let mut value = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": parent.name });
            for (field, text) in [("namespace", &parent.namespace), ("sectionName", &parent.section)] {
                if let Some(text) = text {
                    value[field] = json!(text);
                }
            }
            value
        })
        .collect();
    object.body["spec"] = json!({
        "parentRefs": parents,
        // No bound: streams stay open for hours, and the gateway bounds what must not.
        "rules": [{ "matches": matches, "backendRefs": backends, "timeouts": { "request": "0s" } }],
    });
    if !route.host.is_empty() {
        object.body["spec"]["hostnames"] = json!([route.host]);
    }
    object
}

/// Scheme and host of the route, when it has a host.
pub(crate) fn base_url(checked: &Checked, settings: &Settings) -> Option<String> {
    let route = checked.route.as_ref().ok().filter(|route| !route.host.is_empty())?;
    let is_tls = match &route.via {
        Via::Ingress { tls_secret, .. } => tls_secret.is_some() || settings.ingress_tls,
        Via::HttpRoute { .. } => settings.ingress_tls,
    };
    Some(format!("{}://{}", if is_tls { "https" } else { "http" }, route.host))
}
