//! The sidecar before a governed server, and where its events go.

use crds::server::{DEFAULT_EVENT_TYPE, GatewaySpec};
use crds::{McpServer, SecretKeyRef};

use super::workload::amounts;
use super::{Fault, Gateway, Recording, is_http};
use crate::args::Settings;

pub(super) fn gateway(server: &McpServer, settings: &Settings, faults: &mut Vec<Fault>) -> Option<Gateway> {
    let spec = &server.spec;
    let named = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let Some(gateway) = spec.gateway.as_ref().filter(|gateway| gateway.enabled) else {
        let analytics = spec.analytics.as_ref().filter(|analytics| !analytics.disabled);
        if analytics.is_some_and(|analytics| {
            named(&analytics.ingest_url)
                .or(named(&analytics.source))
                .or(named(&analytics.event_type))
                .is_some()
                || analytics.api_key_secret_ref.is_some()
        }) {
            faults.push(Fault::invalid(
                "spec.analytics records calls that pass the gateway; set spec.gateway.enabled, or remove it",
            ));
        }
        return None;
    };
    let resources = amounts("spec.gateway.resources", gateway.resources.as_ref(), faults);
    Some(Gateway {
        port: gateway.port(),
        upstream: upstream(gateway, spec.port(), faults),
        strip_prefix: gateway.strip_prefix().map(str::to_owned),
        resources,
        recording: recording(server, settings, faults),
    })
}

/// The sidecar guards the server of its own pod, so it forwards nowhere else.
fn upstream(gateway: &GatewaySpec, port: u16, faults: &mut Vec<Fault>) -> String {
    let Some(url) = gateway.upstream_url.as_deref().map(str::trim).filter(|url| !url.is_empty()) else {
        return format!("http://127.0.0.1:{port}");
    };
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let host = authority.map(|authority| authority.rsplit_once(':').map_or(authority, |(host, _)| host));
    if !matches!(host, Some("127.0.0.1" | "localhost" | "[:" | "[::1]")) || url.contains('@') {
        faults.push(Fault::invalid(
            "spec.gateway.upstreamURL must point into the pod itself, such as http://127.0.0.1:8088",
        ));
    }
    url.to_owned()
}

fn recording(server: &McpServer, settings: &Settings, faults: &mut Vec<Fault>) -> Option<Recording> {
    let analytics = server.spec.analytics.clone().unwrap_or_default();
    if analytics.disabled {
        return None;
    }
    let named = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let url = named(analytics.ingest_url).or_else(|| settings.ingest_url.clone())?;
    if !is_http(&url) {
        faults.push(Fault::invalid("spec.analytics.ingestURL must begin with http:// or https://"));
    }
    Some(Recording {
        url,
        source: named(analytics.source).unwrap_or_else(|| format!("{}-gateway", server.metadata.name)),
        event_type: named(analytics.event_type).unwrap_or_else(|| DEFAULT_EVENT_TYPE.to_owned()),
        key: analytics.api_key_secret_ref.unwrap_or_else(|| SecretKeyRef {
            name: settings.ingest_key_secret.clone(),
            key: "api-key".to_owned(),
        }),
    })
}
