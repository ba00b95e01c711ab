//! What may be published where, and what a published server looks like: pure, so that every rule has a test.

use crds::McpServerSpec;
use crds::server::EnvVar;
use crds::server::GatewaySpec;
use crds::word::AuthMode;
use domain::ServerName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use service_kit::Problem;

use crate::access::{Caller, Standing};
use crate::identity::{ORG_NAMESPACE, PUBLIC_NAMESPACE, SHARED_NAMESPACE, TEAM_NAMESPACE_PREFIX};

/// Ports that a sidecar takes for itself.
const GATEWAY_PORT: u16 = 8091;
/// Names further apart than this are not offered as what was meant.
const SIMILARITY_MIN: f64 = 0.8;
/// Where servers learn their route.
const PATH_VARIABLE: &str = "MCP_PATH";

/// Whom a server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    Tenant,
    Org,
    Public,
}

impl Scope {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Org => "org",
            Self::Public => "public",
        }
    }

    pub(crate) fn of(namespace: &str) -> Self {
        match namespace {
            ORG_NAMESPACE => Self::Org,
            PUBLIC_NAMESPACE => Self::Public,
            _ => Self::Tenant,
        }
    }
}

fn unfit(message: impl Into<String>) -> Problem {
    Problem::unprocessable(message).with_code("invalid")
}

/// The namespace that a publication goes to.
pub(crate) fn target(caller: &Caller, scope: Option<Scope>, namespace: Option<&str>) -> Result<String, Problem> {
    let namespace = namespace.filter(|namespace| !namespace.is_empty());
    let fixed = match scope {
        Some(Scope::Org) => Some(ORG_NAMESPACE),
        Some(Scope::Public) => Some(PUBLIC_NAMESPACE),
        Some(Scope::Tenant) | None => None,
    };
    let chosen = match (fixed, namespace) {
        (Some(fixed), Some(named)) if fixed != named => {
            return Err(
                unfit(format!("this scope publishes to `{fixed}`, and `namespace` is `{named}`"))
                    .with_hint("leave `namespace` out, or publish with scope tenant"),
            );
        }
        (Some(fixed), _) => fixed.to_owned(),
        (None, Some(named)) => named.to_owned(),
        (None, None) => own_namespace(caller)?,
    };
    if scope == Some(Scope::Tenant) && Scope::of(&chosen) != Scope::Tenant {
        return Err(
            unfit(format!("`{chosen}` is a catalogue, not a team's namespace")).with_hint("publish with scope org or public")
        );
    }
    allowed(caller, &chosen).map(|()| chosen)
}

/// The one namespace that can be meant when none is named.
fn own_namespace(caller: &Caller) -> Result<String, Problem> {
    let teams = caller.principal.as_ref().map_or(&[][..], |principal| &principal.teams);
    let within = caller.namespaces.as_deref().unwrap_or_default();
    match (teams, within) {
        (_, [only]) => Ok(only.clone()),
        ([only], []) => Ok(only.namespace.clone()),
        ([], []) if caller.admin => Ok(SHARED_NAMESPACE.to_owned()),
        ([], []) => Err(unfit("you are in no team, so there is no namespace to publish to")
            .with_hint("ask an administrator to add you to a team, or publish with --scope org")),
        (teams, _) => {
            let slugs: Vec<_> = teams.iter().map(|team| team.slug.as_str()).collect();
            Err(unfit(format!("you are in several teams: {}", slugs.join(", ")))
                .with_hint("name one with --team or --namespace"))
        }
    }
}

/// Whether a caller may publish to a namespace.
pub(crate) fn allowed(caller: &Caller, namespace: &str) -> Result<(), Problem> {
    match caller.standing(namespace) {
        Standing::Stranger => Err(Problem::forbidden(format!("the namespace `{namespace}` is not one of yours"))
            .with_code("forbidden_namespace")
            .with_hint("see yours: mcp-runtime auth status")),
        Standing::Reader => Err(Problem::forbidden(format!("only administrators publish to `{namespace}`"))
            .with_code("forbidden_namespace")
            .with_hint("publish to your team with --scope tenant, or to everybody with --scope org")),
        Standing::Member | Standing::Owner => Ok(()),
    }
}

/// Reads a value strictly. A misspelt field is told with the one that is most like it.
pub(crate) fn strict<T: DeserializeOwned>(value: Value, what: &str) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| {
        let text = error.to_string();
        let Some((start, known)) = text.split_once(", expected ") else {
            return unfit(format!("{what}: {text}"));
        };
        let wrong = start.split('`').nth(1).unwrap_or_default();
        let nearest = known
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|name| (strsim::jaro_winkler(name, wrong), name))
            .filter(|(score, _)| *score >= SIMILARITY_MIN)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((_, name)) if start.contains("unknown") => {
                unfit(format!("{what}: {start}")).with_hint(format!("did you mean `{name}`?"))
            }
            _ => unfit(format!("{what}: {text}")),
        }
    })
}

/// The spec as it is kept: strict, complete where we know better, and free of contradictions.
pub(crate) fn complete(
    name: &ServerName,
    namespace: &str,
    team: Option<&str>,
    registry: Option<&str>,
    mut spec: McpServerSpec,
) -> Result<McpServerSpec, Problem> {
    let reached = spec.gateway.as_ref().is_some_and(|gateway| gateway.upstream_url.is_some());
    if !reached && spec.command.is_empty() && spec.image.as_deref().is_none_or(|image| image.trim().is_empty()) {
        return Err(unfit(
            "the server has neither `image` nor `command` nor `gateway.upstreamURL`, so nothing says what to run",
        )
        .with_hint("give an image: mcp-runtime server deploy NAME --image IMAGE --tag TAG"));
    }
    match (spec.team_id.as_deref(), team) {
        (None | Some(""), team) => spec.team_id = team.map(str::to_owned),
        (Some(named), Some(team)) if named == team => {}
        (Some(named), _) => {
            return Err(Problem::forbidden(format!(
                "`teamID` is `{named}`, which does not own the namespace `{namespace}`"
            ))
            .with_hint("leave `teamID` out: it follows from the namespace"));
        }
    }
    spec.image = spec.image.map(|image| full_image(&image, namespace, registry));
    let prefix = spec
        .public_path_prefix
        .as_deref()
        .map_or("", |prefix| prefix.trim_matches('/'));
    let prefix = if prefix.is_empty() { name.as_str() } else { prefix }.to_owned();
    let path = format!("/{prefix}/mcp");
    spec.public_path_prefix = Some(prefix);
    spec.gateway.get_or_insert_with(|| GatewaySpec {
        enabled: true,
        ..GatewaySpec::default()
    });
    spec.env_vars.retain(|variable| variable.name != PATH_VARIABLE);
    spec.env_vars.push(EnvVar {
        name: PATH_VARIABLE.to_owned(),
        value: path,
    });
    check(&spec)?;
    Ok(spec)
}

/// Whether running the server means starting a program where the platform itself runs, with its rights.
pub(crate) fn runs_on_our_machine(spec: &McpServerSpec) -> bool {
    !spec.command.is_empty() && spec.image.as_deref().is_none_or(|image| image.trim().is_empty())
}

/// A short name means the platform's registry, and there the place of the scope.
fn full_image(image: &str, namespace: &str, registry: Option<&str>) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let has_host = image.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    let Some(registry) = registry.filter(|_| !has_host) else {
        return image.to_owned();
    };
    if image.contains('/') {
        return format!("{registry}/{image}");
    }
    let place = match Scope::of(namespace) {
        Scope::Org => "org",
        Scope::Public => "public",
        Scope::Tenant => namespace.strip_prefix(TEAM_NAMESPACE_PREFIX).unwrap_or(namespace),
    };
    format!("{registry}/{place}/{image}")
}

/// Rules across fields, as the schema of the custom resource has them.
fn check(spec: &McpServerSpec) -> Result<(), Problem> {
    if let Some(gateway) = &spec.gateway
        && gateway.enabled
        && spec.port() == gateway.port.unwrap_or(GATEWAY_PORT)
    {
        return Err(unfit(format!("`port` and `gateway.port` are both {}", spec.port())));
    }
    if let Some(auth) = &spec.auth {
        let blank = |text: &Option<String>| text.as_deref().is_none_or(|text| text.trim().is_empty());
        if auth.mode() == AuthMode::Oauth && blank(&auth.issuer_url) {
            return Err(unfit("`auth.mode` oauth needs `auth.issuerURL`"));
        }
        if auth.mode() == AuthMode::Mtls && (blank(&auth.trust_domain) || !spec.is_governed()) {
            return Err(unfit("`auth.mode` mtls needs `auth.trustDomain` and `gateway.enabled`"));
        }
    }
    for (at, tool) in spec.tools.iter().enumerate() {
        if tool.name.trim().is_empty() {
            return Err(unfit(format!("`tools[{at}].name` is empty")));
        }
        if spec.tools.iter().take(at).any(|other| other.name == tool.name) {
            return Err(unfit(format!("`tools` names `{}` twice", tool.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
