//! Mode `mtls`: a client certificate with one SPIFFE id, `spiffe://<trust domain>/ns/<namespace>/session/<session>`, which names a session of
//! the policy. Who the session was made for is who calls.
//!
//! Where a proxy ends the clients' TLS, its own certificate must have the id that is trusted; then it says in a header whose certificate
//! it checked. That header is worth nothing from anybody else.

use domain::Timestamp;
use http::HeaderMap;
use service_kit::tls::PeerCertificate;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{Caller, VERIFIED_SPIFFE, unproven};
use crate::exchange::Exchange;
use crate::refusal::Refusal;

const HINT: &str =
    "call with a client certificate whose only URI is `spiffe://<trust domain>/ns/<namespace>/session/<session>`";

/// What a certificate says.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    id: String,
    expires_at: Timestamp,
}

pub(super) fn identify(
    exchange: &Exchange,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
) -> Result<Caller, Box<Refusal>> {
    let Some(certificate) = certificate else {
        return Err(unproven(
            "missing_client_certificate",
            "this server asks for a client certificate, and none was shown",
            HINT,
        ));
    };
    let shown = read(certificate.as_der())?;
    let is_proxy = exchange.shared.limits.identity.trusted_proxy.as_deref() == Some(&*shown.id);
    let told = is_proxy.then(|| told(headers)).transpose()?;
    let id = told.unwrap_or(&shown.id);
    let Some((namespace, session)) = session(id, exchange.policy.auth().trust_domain.trim()) else {
        return Err(unproven(
            "invalid_spiffe_identity",
            "the certificate names no session of this server's trust domain",
            HINT,
        ));
    };
    Ok(Caller {
        certified: Some(Box::new((namespace.to_owned(), session.to_owned()))),
        is_verified: true,
        expires_at: Some(shown.expires_at),
        ..Caller::default()
    })
}

/// Whose certificate the proxy checked: said once, and by it alone, since proxies replace what clients send.
fn told(headers: &HeaderMap) -> Result<&str, Box<Refusal>> {
    let mut values = headers.get_all(&VERIFIED_SPIFFE).iter();
    match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(id), None) if !id.trim().is_empty() => Ok(id.trim()),
        _ => Err(unproven(
            "missing_verified_identity",
            format!("the proxy does not say once, in `{VERIFIED_SPIFFE}`, whose certificate it checked"),
            HINT,
        )),
    }
}

/// An X.509 SVID has exactly one URI among its names. The handshake has proven the rest.
fn read(der: &[u8]) -> Result<Shown, Box<Refusal>> {
    let invalid = |message: &str| unproven("invalid_spiffe_identity", message, HINT);
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| invalid("the certificate cannot be read"))?;
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| invalid("the names in the certificate cannot be read"))?;
    let mut ids = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(id) => Some(*id),
            _ => None,
        });
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(Shown {
            id: id.to_owned(),
            expires_at: Timestamp::from_seconds(certificate.validity().not_after.timestamp()),
        }),
        (None, _) => Err(invalid("the certificate has no SPIFFE id")),
        (Some(_), Some(_)) => Err(unproven(
            "ambiguous_spiffe_identity",
            "the certificate has more than one SPIFFE id",
            HINT,
        )),
    }
}

/// Namespace and name of the session. Trust domains have no case; the names are those of Kubernetes objects, so nothing in them
/// is escaped.
fn session<'i>(id: &'i str, trust_domain: &str) -> Option<(&'i str, &'i str)> {
    let (domain, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    let mut segments = path.split('/');
    let parts = (segments.next()?, segments.next()?, segments.next()?, segments.next()?);
    let ("ns", namespace, "session", name) = parts else {
        return None;
    };
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let is_ours = !trust_domain.is_empty() && domain.eq_ignore_ascii_case(trust_domain);
    (is_ours && segments.next().is_none() && plain(namespace) && plain(name)).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::session;

    #[test]
    fn only_the_id_of_a_session_in_the_trust_domain_names_one() {
        for (id, named) in [
            ("spiffe://prod.example/ns/acme/session/s-1", Some(("acme", "s-1"))),
            ("spiffe://PROD.example/ns/acme/session/s-1", Some(("acme", "s-1"))),
            ("spiffe://other.example/ns/acme/session/s-1", None),
            ("spiffe://prod.example.evil/ns/acme/session/s-1", None),
            ("spiffe://prod.example/ns/acme/sa/s-1", None),
            ("spiffe://prod.example/ns/acme/session/", None),
            ("spiffe://prod.example/ns//session/s-1", None),
            ("spiffe://prod.example/ns/acme/session/s-1/x", None),
            ("spiffe://prod.example/ns/acme/session/s-1?x=1", None),
            ("spiffe://prod.example/ns/ac%2Fme/session/s-1", None),
            ("https://prod.example/ns/acme/session/s-1", None),
            ("spiffe://", None),
            ("", None),
        ] {
            assert_eq!(session(id, "prod.example"), named, "{id}");
        }
        assert_eq!(session("spiffe:///ns/acme/session/s-1", ""), None);
    }
}
