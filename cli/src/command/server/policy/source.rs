//! Where a policy is read from.

use std::path::Path;
use std::time::Duration;

use crds::render::{Occasion, render};
use domain::policy::Document;
use serde::{Deserialize, Serialize};

use super::super::{PATH, PlaceArgs, find};
use super::shown;
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::metadata::read_text;
use crate::text;

/// A policy and where it comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Inspected {
    pub(super) policy: Document,
    #[serde(default)]
    pub(super) revision: String,
    /// `rendered`, `file` or `manifests`.
    #[serde(default)]
    pub(super) source: String,
    /// What could not be read, or is not as it should be.
    #[serde(default)]
    pub(super) unread: Vec<String>,
    /// What the gateways have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) published: Option<Published>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Published {
    #[serde(default)]
    pub(super) revision: Option<String>,
    #[serde(default)]
    pub(super) active_replicas: Option<i64>,
}

/// A place on this machine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    File(&'a Path),
    /// A folder, and the name of the server that is meant.
    Manifests(&'a Path, Option<&'a str>),
}

impl<'a> Source<'a> {
    pub(super) fn of_path(path: &'a Path, name: Option<&'a str>) -> Self {
        if path.is_dir() {
            Self::Manifests(path, name)
        } else {
            Self::File(path)
        }
    }

    pub(super) fn read(self) -> Result<Inspected, Fault> {
        match self {
            Self::File(path) => parse(&read_text(path)?, path),
            Self::Manifests(folder, name) => rendered(folder, name),
        }
    }
}

/// A document, with what is wrong with single entries beside it.
pub(super) fn parse(json: &str, path: &Path) -> Result<Inspected, Fault> {
    let (policy, faults) = Document::parse(json.as_bytes())
        .map_err(|error| Fault::new(Exit::Failed, format!("reading the policy {}", shown(path))).caused_by(&error))?;
    Ok(Inspected {
        revision: policy.revision_of(),
        policy,
        source: "file".to_owned(),
        unread: faults
            .iter()
            .map(|fault| format!("{}: {}", fault.place, fault.message))
            .collect(),
        published: None,
    })
}

/// What the operator or the standalone would make of a folder.
fn rendered(folder: &Path, name: Option<&str>) -> Result<Inspected, Fault> {
    let manifests = crds::read_manifests(folder)
        .map_err(|error| Fault::new(Exit::Failed, format!("reading the manifests in {}", shown(folder))).caused_by(&error))?;
    let known: Vec<_> = manifests
        .servers
        .iter()
        .map(|server| server.metadata.name.to_string())
        .collect();
    let mut meant = manifests
        .servers
        .iter()
        .filter(|server| name.is_none_or(|name| server.metadata.name.as_str() == name));
    let (server, others) = (meant.next(), meant.count());
    let server = match (server, others) {
        (Some(server), 0) => server,
        (Some(_), _) => {
            return Err(
                Fault::new(Exit::Usage, format!("{} describes several servers", shown(folder)))
                    .hint(format!("name one of {}", known.join(", "))),
            );
        }
        (None, _) => {
            let what = name.map_or_else(|| "a server".to_owned(), |name| format!("a server `{name}`"));
            let fault = Fault::new(Exit::NotFound, format!("{} does not describe {what}", shown(folder)));
            return Err(if known.is_empty() {
                fault
            } else {
                fault.hint(format!("it has {}", known.join(", ")))
            });
        }
    };
    let occasion = Occasion {
        cluster: "",
        now: text::now(),
        grace: Duration::ZERO,
    };
    let policy = render(server, &manifests.grants, &manifests.sessions, &occasion);
    Ok(Inspected {
        revision: policy.revision.clone(),
        policy,
        source: "manifests".to_owned(),
        unread: manifests.faults.iter().map(ToString::to_string).collect(),
        published: None,
    })
}

/// What the platform would hand, or has handed, to the gateways.
pub(super) async fn of_platform(client: &Client, name: &str, place: &PlaceArgs) -> Result<Inspected, Fault> {
    let server = find(client, name, place).await?;
    client
        .get(&format!("{PATH}/{}/{}/policy", server.namespace, server.name), &[])
        .await
}
