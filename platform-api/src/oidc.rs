//! Logging in with an identity provider: its settings, and what follows from them without asking it anything.
//!
//! A login under way is kept nowhere. Whoever starts one gets a random secret, the flow; `state`, `nonce` and the PKCE verifier are
//! hashes of it, so that the answer of the provider fits only whoever holds the flow.

pub(crate) mod provider;

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use serde_json::{Map, Value};
use service_kit::oidc::{Issuer, IssuerFault};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::identity::TeamRole;

/// Largest file of a client's secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Options of logging in with an identity provider.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Identity provider")]
pub struct OidcArgs {
    /// Identity provider (OIDC) that people log in with, such as `https://id.example.com/realms/mcp`; none when absent.
    #[arg(long, env = "OIDC_ISSUER", hide_env_values = true, value_name = "URL")]
    pub oidc_issuer: Option<String>,

    /// What the identity provider knows this platform as.
    #[arg(long, env = "OIDC_CLIENT_ID", hide_env_values = true, value_name = "ID")]
    pub oidc_client_id: Option<String>,

    /// File of the secret that goes with it; none for a public client.
    #[arg(long, env = "OIDC_CLIENT_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    pub oidc_client_secret_file: Option<PathBuf>,

    /// Scopes asked for.
    #[arg(
        long,
        env = "OIDC_SCOPES",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "openid,email,profile",
        value_name = "SCOPE"
    )]
    pub oidc_scopes: Vec<String>,

    /// Claim of the ID token that names a person's groups.
    #[arg(
        long,
        env = "OIDC_GROUPS_CLAIM",
        hide_env_values = true,
        default_value = "groups",
        value_name = "CLAIM"
    )]
    pub oidc_groups_claim: String,

    /// What members of groups are: `GROUP=admin`, `GROUP=team:SLUG` or `GROUP=team:SLUG:owner`. Such a group lets its members in without
    /// an invitation, and takes away at the next login what it gave before.
    #[arg(
        long,
        env = "OIDC_GROUPS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "GROUP=WHAT"
    )]
    pub oidc_groups: Vec<String>,

    /// Pages besides addresses of a person's own machine that a login may return to, such as `https://mcp.example.com/auth/callback`.
    #[arg(
        long,
        env = "OIDC_REDIRECTS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub oidc_redirects: Vec<String>,
}

/// The secret of a client, never part of `Debug`.
#[derive(Clone)]
pub struct ClientSecret(Zeroizing<String>);

impl ClientSecret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

/// Checked settings of an identity provider.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    pub issuer: Issuer,
    pub client_id: String,
    /// None for a public client.
    pub client_secret: Option<ClientSecret>,
    pub scopes: Vec<String>,
    pub groups_claim: String,
    pub groups: Vec<GroupRule>,
    pub redirects: Vec<String>,
}

/// What members of a group are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRule {
    group: String,
    gives: Gift,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Gift {
    Admin,
    Team(String, TeamRole),
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OidcConfigError {
    #[error("`--oidc-issuer` needs `--oidc-client-id`: what the provider knows this platform as")]
    ClientId,
    #[error("`--oidc-issuer`")]
    Issuer(#[source] IssuerFault),
    #[error("reading the client's secret in {path}")]
    Secret {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the file of the client's secret {0} is larger than {SECRET_BYTES_MAX} bytes; is it the right one?")]
    SecretTooLarge(PathBuf),
    #[error("`--oidc-groups`: `{0}` is none of `GROUP=admin`, `GROUP=team:SLUG`, `GROUP=team:SLUG:owner`")]
    Group(String),
}

impl TryFrom<OidcArgs> for Option<OidcConfig> {
    type Error = OidcConfigError;

    fn try_from(args: OidcArgs) -> Result<Self, OidcConfigError> {
        let Some(issuer) = args.oidc_issuer else { return Ok(None) };
        Ok(Some(OidcConfig {
            issuer: Issuer::new(&issuer).map_err(OidcConfigError::Issuer)?,
            client_id: args.oidc_client_id.ok_or(OidcConfigError::ClientId)?,
            client_secret: args.oidc_client_secret_file.map(read_secret).transpose()?,
            scopes: args.oidc_scopes,
            groups_claim: args.oidc_groups_claim,
            groups: args
                .oidc_groups
                .iter()
                .map(|text| GroupRule::parse(text))
                .collect::<Result<_, _>>()?,
            redirects: args.oidc_redirects,
        }))
    }
}

fn read_secret(path: PathBuf) -> Result<ClientSecret, OidcConfigError> {
    let read = || -> std::io::Result<Option<String>> {
        let fits = std::fs::metadata(&path)?.len() <= SECRET_BYTES_MAX;
        fits.then(|| std::fs::read_to_string(&path)).transpose()
    };
    match read() {
        Ok(Some(text)) => Ok(ClientSecret::new(text.trim())),
        Ok(None) => Err(OidcConfigError::SecretTooLarge(path)),
        Err(source) => Err(OidcConfigError::Secret { path, source }),
    }
}

impl GroupRule {
    /// Reads `GROUP=admin`, `GROUP=team:SLUG` or `GROUP=team:SLUG:owner`.
    pub fn parse(text: &str) -> Result<Self, OidcConfigError> {
        let fault = || OidcConfigError::Group(text.to_owned());
        // Groups of directories have `=` in their names; what they give has none.
        let (group, gives) = text
            .rsplit_once('=')
            .filter(|(group, _)| !group.is_empty())
            .ok_or_else(fault)?;
        let words: Vec<&str> = gives.split(':').collect();
        let gives = match words.as_slice() {
            ["admin"] => Gift::Admin,
            ["team", slug] if !slug.is_empty() => Gift::Team((*slug).to_owned(), TeamRole::Member),
            ["team", slug, role] if !slug.is_empty() => {
                Gift::Team((*slug).to_owned(), TeamRole::parse(role).ok_or_else(fault)?)
            }
            _ => return Err(fault()),
        };
        Ok(Self {
            group: group.to_owned(),
            gives,
        })
    }
}

/// What a person's groups make them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) admin: bool,
    /// Slugs of teams, each once, with the highest role.
    pub(crate) teams: Vec<(String, TeamRole)>,
}

impl Mapped {
    pub(crate) fn is_empty(&self) -> bool {
        !self.admin && self.teams.is_empty()
    }

    pub(crate) fn of(rules: &[GroupRule], groups: &[String]) -> Self {
        let mut mapped = Self::default();
        for rule in rules.iter().filter(|rule| groups.contains(&rule.group)) {
            match &rule.gives {
                Gift::Admin => mapped.admin = true,
                Gift::Team(slug, role) => match mapped.teams.iter_mut().find(|(known, _)| known == slug) {
                    Some((_, known)) => *known = (*known).max(*role),
                    None => mapped.teams.push((slug.clone(), *role)),
                },
            }
        }
        mapped
    }
}

/// Somebody, as the provider tells of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// Their address, if the provider says that it is theirs.
    pub(crate) email: Option<String>,
    pub(crate) mapped: Mapped,
}

/// Why an ID token that is genuine is still none for this login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PersonFault {
    #[error("the ID token does not say who it is about")]
    Nobody,
    #[error("the ID token was made for another login")]
    Nonce,
    #[error("the ID token was made for another client")]
    Party,
    #[error("the ID token was made too long ago")]
    Old,
}

/// Longest time between an ID token and the login by it, where nothing else ties the two.
const ID_TOKEN_AGE_MAX_S: f64 = 600.0;

impl Person {
    /// Reads the claims of a verified ID token. Without a nonce to compare, it must be fresh.
    pub(crate) fn of(
        config: &OidcConfig,
        claims: &Map<String, Value>,
        nonce: Option<&str>,
        now_s: i64,
    ) -> Result<Self, PersonFault> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let subject = text("sub").ok_or(PersonFault::Nobody)?.to_owned();
        if nonce.is_some_and(|nonce| text("nonce") != Some(nonce)) {
            return Err(PersonFault::Nonce);
        }
        if text("azp").is_some_and(|party| party != config.client_id) {
            return Err(PersonFault::Party);
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        let age = |issued: f64| now_s as f64 - issued;
        let issued = claims.get("iat").and_then(Value::as_f64);
        if nonce.is_none() && issued.is_none_or(|issued| age(issued) > ID_TOKEN_AGE_MAX_S) {
            return Err(PersonFault::Old);
        }
        let is_verified = match claims.get("email_verified") {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => text == "true",
            _ => false,
        };
        let groups = match claims.get(&config.groups_claim) {
            Some(Value::String(group)) => vec![group.clone()],
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            issuer: config.issuer.address().to_owned(),
            subject,
            email: text("email").filter(|_| is_verified).map(str::to_owned),
            mapped: Mapped::of(&config.groups, &groups),
        })
    }
}

/// What a flow's secret stands for.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: Zeroizing<String>,
}

impl Flow {
    pub(crate) fn of(secret: &str) -> Self {
        let derive = |what: &str| hashed(&format!("{what}:{secret}"));
        Self {
            state: derive("state"),
            nonce: derive("nonce"),
            verifier: Zeroizing::new(derive("verifier")),
        }
    }

    /// What the provider compares the verifier with (RFC 7636, `S256`).
    pub(crate) fn challenge(&self) -> String {
        hashed(&self.verifier)
    }
}

fn hashed(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

/// Whether a login may return to a page: one of the settings, or any on the person's own machine.
pub(crate) fn may_return_to(redirects: &[String], page: &str) -> bool {
    if redirects.iter().any(|known| known == page) {
        return true;
    }
    let Ok(uri) = page.parse::<Uri>() else { return false };
    let is_here = matches!(uri.host(), Some("127.0.0.1" | "[::1]" | "localhost"));
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    uri.scheme_str() == Some("http") && is_here && !has_user && !page.contains('#')
}

#[cfg(test)]
mod tests;
