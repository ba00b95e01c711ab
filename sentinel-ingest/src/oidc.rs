//! Bearer tokens of an identity provider (OIDC) instead of ingest keys: good ones open ingest for the namespaces that a claim names.

use std::sync::Arc;

use domain::Namespace;
use domain::event::NamespaceRule;
use service_kit::oidc::{Issuer, Moment, Refusal, Token};

use crate::keys::{ANY_NAMESPACE, Grant};

/// Most namespaces of one token.
const NAMESPACES_MAX: usize = 1_000;
/// Longest subject that is repeated in events.
const SUBJECT_CHARS_MAX: usize = 100;

/// Options of the identity provider. Flatten this group into the arguments of a service.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Ingest tokens")]
pub struct OidcArgs {
    /// Issuer whose bearer tokens are taken beside ingest keys, such as `https://id.example.com/realms/mcp`.
    #[arg(
        long = "ingest-oidc-issuer",
        env = "SENTINEL_INGEST_OIDC_ISSUER",
        hide_env_values = true,
        value_name = "URL",
        requires = "audience"
    )]
    pub issuer: Option<String>,

    /// Audience that a token has to name.
    #[arg(
        id = "audience",
        long = "ingest-oidc-audience",
        env = "SENTINEL_INGEST_OIDC_AUDIENCE",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub audience: Option<String>,

    /// Claim that names the namespaces a token may write: a text or a list of texts; `*` stands for all.
    #[arg(
        long = "ingest-oidc-namespaces-claim",
        env = "SENTINEL_INGEST_OIDC_NAMESPACES_CLAIM",
        hide_env_values = true,
        default_value = "namespaces",
        value_name = "CLAIM"
    )]
    pub namespaces_claim: String,
}

/// Settings of the identity provider that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    #[error("--ingest-oidc-issuer is `{0}`, but needs to be an https address (http only towards this machine), without query")]
    Issuer(String),
    #[error("--ingest-oidc-audience is missing or empty; without it a token meant for another service would do")]
    Audience,
    #[error("--ingest-oidc-namespaces-claim is empty")]
    Claim,
}

/// Whose tokens open ingest, and for what. Clones share the issuer's keys.
#[derive(Clone, Debug)]
pub struct Oidc {
    issuer: Issuer,
    audience: Arc<str>,
    namespaces_claim: Arc<str>,
}

/// Why a token opens nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenRefusal {
    #[error(transparent)]
    Token(#[from] Refusal),
    #[error("the bearer token names no namespace that it may write")]
    Namespaces,
}

impl Oidc {
    /// `None` when no issuer is named.
    pub fn from_args(args: &OidcArgs) -> Result<Option<Self>, OidcError> {
        let Some(issuer) = &args.issuer else { return Ok(None) };
        let issuer = Issuer::new(issuer).map_err(|fault| OidcError::Issuer(fault.0))?;
        let audience = args.audience.as_deref().filter(|audience| !audience.trim().is_empty());
        if args.namespaces_claim.trim().is_empty() {
            return Err(OidcError::Claim);
        }
        Ok(Some(Self {
            issuer,
            audience: audience.ok_or(OidcError::Audience)?.into(),
            namespaces_claim: args.namespaces_claim.as_str().into(),
        }))
    }

    /// What the token's holder may send.
    pub(crate) async fn verify(&self, token: &str, now: Moment) -> Result<Grant, TokenRefusal> {
        let token = self.issuer.verify(token, &[&self.audience], now).await?;
        grant(&token, &self.namespaces_claim).ok_or(TokenRefusal::Namespaces)
    }
}

fn grant(token: &Token, namespaces_claim: &str) -> Option<Grant> {
    let subject: String = token.subject().chars().take(SUBJECT_CHARS_MAX).collect();
    Some(Grant {
        id: format!("oidc:{subject}"),
        rule: rule(token.texts(namespaces_claim))?,
    })
}

fn rule(mut names: Vec<&str>) -> Option<NamespaceRule> {
    names.sort_unstable();
    names.dedup();
    if names == [ANY_NAMESPACE] {
        return Some(NamespaceRule::Any);
    }
    if names.len() > NAMESPACES_MAX {
        return None;
    }
    // One name that cannot be a namespace makes the whole claim doubtful.
    let mut namespaces: Vec<_> = names.into_iter().map(Namespace::parse).collect::<Result<_, _>>().ok()?;
    match namespaces.len() {
        0 => None,
        1 => namespaces.pop().map(|only| NamespaceRule::Only(only, None)),
        _ => Some(NamespaceRule::OneOf(namespaces.into())),
    }
}

#[cfg(test)]
mod tests {
    use domain::Namespace;
    use domain::event::NamespaceRule;

    use super::{Oidc, OidcArgs, OidcError, rule};

    #[test]
    fn a_claim_names_one_namespace_several_or_all_beyond_doubt() {
        let [acme, beta] = ["acme", "beta"].map(|name| Namespace::parse(name).unwrap());
        assert_eq!(rule(vec!["acme", "acme"]), Some(NamespaceRule::Only(acme.clone(), None)));
        assert_eq!(rule(vec!["beta", "acme"]), Some(NamespaceRule::OneOf([acme, beta].into())));
        assert_eq!(rule(vec!["*"]), Some(NamespaceRule::Any));
        for doubtful in [vec![], vec!["acme", "Not A Label"], vec!["acme", "*"]] {
            assert_eq!(rule(doubtful.clone()), None, "{doubtful:?}");
        }
    }

    #[test]
    fn settings_that_open_too_much_are_refused() {
        let with = |issuer: &str, audience: &str| {
            Oidc::from_args(&OidcArgs {
                issuer: Some(issuer.to_owned()),
                audience: Some(audience.to_owned()),
                namespaces_claim: "namespaces".to_owned(),
            })
        };
        assert_eq!(
            with("http://id.example.com", "a").unwrap_err(),
            OidcError::Issuer("http://id.example.com".to_owned())
        );
        assert_eq!(with("https://id.example.com", " ").unwrap_err(), OidcError::Audience);
        assert!(with("https://id.example.com/realms/mcp/", "a").is_ok());
        assert!(Oidc::from_args(&OidcArgs::default()).unwrap().is_none());
    }
}
