//! Who may pull and who may push: what a request to a registry asks for, and what its caller gets of it.
//!
//! The first part of a repository's name is its scope: `org` and `public` are the catalogues, anything else is the slug or the namespace
//! of a team. Whoever sees the namespace pulls; whoever may publish there pushes, except over the image of a server that is somebody
//! else's.

pub(crate) mod token;

use crate::identity::{ORG_NAMESPACE, PUBLIC_NAMESPACE, SHARED_NAMESPACE, TEAM_NAMESPACE_PREFIX};

/// Longest name of a repository, as registries have it.
const NAME_BYTES_MAX: usize = 255;
/// Scopes of one request.
pub(crate) const SCOPES_MAX: usize = 16;

/// What may be done to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word {
            "pull" => Some(Self::Pull),
            "push" => Some(Self::Push),
            "delete" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Something asked of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Whether one is known at all: `/v2/`.
    Ping,
    /// The list of all repositories.
    Catalog,
    Repository {
        name: String,
        actions: Vec<Action>,
    },
}

/// Reads a scope as the token specification writes it: `repository:acme/payments:pull,push`. What it asks of things we do not know is
/// left out, as the specification wants.
pub(crate) fn parse_scope(scope: &str) -> Option<Asked> {
    // The name may hold a port: the kind is before the first colon, the actions after the last.
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
    match (kind, name) {
        ("registry", "catalog") => Some(Asked::Catalog),
        ("repository", name) if is_name(name) => {
            let mut known: Vec<Action> = Vec::new();
            for word in actions.split(',') {
                match word {
                    "*" => known.extend([Action::Pull, Action::Push, Action::Delete]),
                    word => known.extend(Action::parse(word)),
                }
            }
            known.sort_unstable();
            known.dedup();
            Some(Asked::Repository {
                name: name.to_owned(),
                actions: known,
            })
        }
        _ => None,
    }
}

/// Reads what a proxy in front of a registry tells of a request. A mount of a blob asks to pull from where it comes.
pub(crate) fn parse_request(method: &str, uri: &str) -> Option<Vec<Asked>> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let path = path.strip_prefix("/v2")?.trim_start_matches('/');
    if path.is_empty() {
        return Some(vec![Asked::Ping]);
    }
    if path == "_catalog" {
        return Some(vec![Asked::Catalog]);
    }
    let ends = ["/manifests/", "/blobs/", "/tags/", "/referrers/"];
    // A repository may be called `a/blobs/b`: what counts is the last of these words.
    let name = ends
        .iter()
        .filter_map(|end| path.rfind(end))
        .max()
        .and_then(|at| path.get(..at))?;
    if !is_name(name) {
        return None;
    }
    let action = match method {
        "GET" | "HEAD" => Action::Pull,
        "DELETE" => Action::Delete,
        _ => Action::Push,
    };
    let mut asked = vec![Asked::Repository {
        name: name.to_owned(),
        actions: vec![action],
    }];
    for (key, from) in form_urlencoded::parse(query.as_bytes()) {
        if key == "from" {
            if !is_name(&from) {
                return None;
            }
            asked.push(Asked::Repository {
                name: from.into_owned(),
                actions: vec![Action::Pull],
            });
        }
    }
    Some(asked)
}

fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'))
            && part.bytes().any(|byte| byte.is_ascii_alphanumeric())
            && !part.starts_with('.')
    };
    name.len() <= NAME_BYTES_MAX && name.split('/').all(part)
}

/// The namespace that a repository belongs to, and the server whose image it is.
pub(crate) fn place(repository: &str) -> (String, &str) {
    let (scope, image) = repository.split_once('/').unwrap_or((repository, ""));
    let namespace = match scope {
        "org" => ORG_NAMESPACE.to_owned(),
        "public" => PUBLIC_NAMESPACE.to_owned(),
        SHARED_NAMESPACE | ORG_NAMESPACE | PUBLIC_NAMESPACE => scope.to_owned(),
        team if team.starts_with(TEAM_NAMESPACE_PREFIX) => team.to_owned(),
        slug => format!("{TEAM_NAMESPACE_PREFIX}{slug}"),
    };
    (namespace, image.split('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests;
