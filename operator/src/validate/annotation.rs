//! Which annotations a tenant may put on its Ingress.
//!
//! An ingress controller obeys annotations, and some of them reach further than the Ingress they are on: they inject configuration,
//! claim other hosts, or rewrite paths. So the harmless ones are listed, and the rest is refused.

use std::collections::BTreeMap;

use super::{Fault, Reason};

const HARMLESS: &[&str] = &[
    "cert-manager.io/cluster-issuer",
    "cert-manager.io/issuer",
    "nginx.ingress.kubernetes.io/backend-protocol",
    "nginx.ingress.kubernetes.io/client-body-buffer-size",
    "nginx.ingress.kubernetes.io/force-ssl-redirect",
    "nginx.ingress.kubernetes.io/limit-connections",
    "nginx.ingress.kubernetes.io/limit-rpm",
    "nginx.ingress.kubernetes.io/limit-rps",
    "nginx.ingress.kubernetes.io/proxy-body-size",
    "nginx.ingress.kubernetes.io/proxy-buffering",
    "nginx.ingress.kubernetes.io/proxy-connect-timeout",
    "nginx.ingress.kubernetes.io/proxy-read-timeout",
    "nginx.ingress.kubernetes.io/proxy-send-timeout",
    "nginx.ingress.kubernetes.io/ssl-redirect",
    "traefik.ingress.kubernetes.io/router.entrypoints",
    "traefik.ingress.kubernetes.io/router.tls",
    "traefik.ingress.kubernetes.io/router.tls.certresolver",
];

/// The annotations, when all of them are allowed.
pub(super) fn allowed(wanted: &BTreeMap<String, String>, more: &[String]) -> Result<BTreeMap<String, String>, Fault> {
    let fits = |name: &str, rule: &str| match rule.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == rule,
    };
    let refused: Vec<&str> = wanted
        .keys()
        .map(String::as_str)
        .filter(|name| !HARMLESS.contains(name) && !more.iter().any(|rule| fits(name, rule.trim())))
        .collect();
    if refused.is_empty() {
        return Ok(wanted.clone());
    }
    Err(Fault::new(
        Reason::RouteRefused,
        format!(
            "spec.ingressAnnotations must not set {}; an administrator can allow it with the operator's --ingress-annotations-allowed",
            refused.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_that_reach_further_are_refused_by_name() {
        let wanted = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        for harmless in [
            "nginx.ingress.kubernetes.io/proxy-read-timeout",
            "acme.example/a",
            "acme.example/team",
        ] {
            assert!(
                allowed(&wanted(harmless), &["acme.example/*".to_owned()]).is_ok(),
                "{harmless}"
            );
        }
        for reaching in [
            "nginx.ingress.kubernetes.io/configuration-snippet",
            "nginx.ingress.kubernetes.io/server-alias",
            "nginx.ingress.kubernetes.io/rewrite-target",
            "traefik.ingress.kubernetes.io/router.middlewares",
            "external-dns.alpha.kubernetes.io/hostname",
        ] {
            let fault = allowed(&wanted(reaching), &["acme.example/*".to_owned()]).unwrap_err();
            assert!(fault.message.contains(reaching), "{fault}");
        }
    }
}
