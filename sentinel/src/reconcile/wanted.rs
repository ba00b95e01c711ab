//! Which servers are wanted, how each comes to be, and who may call them: pure, from what the command line, the manifests and the
//! platform API say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crds::object::Metadata;
use crds::server::GatewaySpec;
use crds::{McpAccessGrant, McpAgentSession, McpServer, McpServerSpec};
use domain::Namespace;
use gateway::{Recording, Route};
use http::Uri;
use platform_api::objects::Object;
use platform_api::objects::manifests::manifest;
use serde::de::DeserializeOwned;

use super::Key;
use super::launch::{Launch, launch};
use crate::args::{RESERVED, ServerArg};

/// Objects as the platform API keeps them.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) servers: Vec<Object>,
    pub(crate) grants: Vec<Object>,
    pub(crate) sessions: Vec<Object>,
}

/// Where a wish comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `--server`.
    Option,
    /// A file.
    Manifest,
    /// The platform API; it is told how the server is.
    Object { uid: String, generation: i64 },
}

/// A server that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) key: Key,
    pub(crate) origin: Origin,
    pub(crate) server: McpServer,
    /// `Err`: why it cannot run.
    pub(crate) launch: Result<Launch, String>,
    /// `Err`: why it has no route.
    pub(crate) route: Result<(), String>,
}

/// Everything that is wanted.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) servers: Vec<Wanted>,
    pub(crate) grants: Vec<McpAccessGrant>,
    pub(crate) sessions: Vec<McpAgentSession>,
    /// What was left out, and why.
    pub(crate) faults: BTreeSet<String>,
}

/// What is wanted by all who may wish. Where two wish for the same name, or for the same route, the command line comes before the
/// manifests, and these before the platform API.
pub(crate) fn wishes(given: (&[ServerArg], &Namespace), manifests: &crds::Manifests, kept: &Kept, secrets: &Path) -> Wishes {
    let mut wishes = Wishes::default();
    for server in given.0 {
        wishes.add(Origin::Option, server_of(server, given.1), secrets);
    }
    for server in &manifests.servers {
        wishes.add(Origin::Manifest, server.clone(), secrets);
    }
    for object in &kept.servers {
        let origin = Origin::Object {
            uid: object.uid.clone(),
            generation: object.generation,
        };
        if let Some(server) = wishes.read(object) {
            wishes.add(origin, server, secrets);
        }
    }
    wishes.grants.clone_from(&manifests.grants);
    wishes.sessions.clone_from(&manifests.sessions);
    let name = |metadata: &Metadata<_>| (metadata.namespace.to_string(), crds::ObjectName::to_string(&metadata.name));
    let grants: BTreeSet<_> = wishes.grants.iter().map(|grant| name(&grant.metadata)).collect();
    let sessions: BTreeSet<_> = wishes.sessions.iter().map(|session| name(&session.metadata)).collect();
    for (objects, known) in [(&kept.grants, grants), (&kept.sessions, sessions)] {
        for object in objects {
            if known.contains(&(object.namespace.clone(), object.name.clone())) {
                let word = object.kind.word();
                wishes.faults.insert(format!(
                    "the {word} {} of namespace {} is in the manifests too, which count; remove one of them",
                    object.name, object.namespace
                ));
            } else if object.kind == platform_api::objects::ObjectKind::Grant {
                let grant = wishes.read(object);
                wishes.grants.extend(grant);
            } else {
                let session = wishes.read(object);
                wishes.sessions.extend(session);
            }
        }
    }
    wishes
}

impl Wishes {
    fn read<T: DeserializeOwned>(&mut self, object: &Object) -> Option<T> {
        match manifest(object) {
            Ok(read) => Some(read),
            Err(error) => {
                let word = object.kind.word();
                self.faults.insert(format!(
                    "the {word} {} of namespace {} cannot be read: {error}",
                    object.name, object.namespace
                ));
                None
            }
        }
    }

    fn add(&mut self, origin: Origin, server: McpServer, secrets: &Path) {
        let key = Key {
            namespace: server.metadata.namespace.to_string(),
            name: server.metadata.name.to_string(),
        };
        if self.servers.iter().any(|other| other.key == key) {
            let fault = format!(
                "server {key} is given twice, by the command line, the manifests or `server deploy`; the first of these counts"
            );
            self.faults.insert(fault);
            return;
        }
        let route = self.claim(&server);
        if let Err(why) = &route {
            self.faults.insert(format!("server {key} has no route: {why}"));
        }
        let launch = launch(&server, secrets).map_err(|fault| fault.to_string());
        self.servers.push(Wanted {
            key,
            origin,
            server,
            launch,
            route,
        });
    }

    /// Whether the server may have the route it wants.
    fn claim(&self, server: &McpServer) -> Result<(), String> {
        let prefix = server.prefix();
        if RESERVED.contains(&prefix) {
            return Err(format!(
                "its prefix {prefix:?} is a route of mcp-runtime itself; set another `publicPathPrefix`"
            ));
        }
        let mut claimed = self.servers.iter().filter(|other| other.route.is_ok());
        if let Some(first) = claimed.find(|other| other.server.prefix() == prefix) {
            return Err(format!(
                "/{prefix}/mcp belongs to server {}; set another `publicPathPrefix`",
                first.key
            ));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if prefix.bytes().all(plain) && !matches!(prefix, "." | "..") {
            Ok(())
        } else {
            Err(format!(
                "its prefix {prefix:?} must be one segment of letters, digits, `.`, `_` and `-`; set another `publicPathPrefix`"
            ))
        }
    }
}

impl Wanted {
    /// The route to a server that is reached at `upstream`. Its policy is the caller's to set.
    pub(crate) fn route(&self, upstream: Uri) -> Route {
        let mut route = Route::new(self.key.name.as_str(), self.key.namespace.as_str(), upstream).at(self.server.prefix());
        let spec = &self.server.spec;
        route.team_id.clone_from(&spec.team_id);
        if let Some(analytics) = &spec.analytics {
            route.source.clone_from(&analytics.source);
            route.event_type.clone_from(&analytics.event_type);
        }
        if !self.server.is_recorded() {
            route.recording = Recording::Off;
        }
        route
    }
}

/// A server of the command line: reached where it is, recorded, and not judged.
fn server_of(given: &ServerArg, namespace: &Namespace) -> McpServer {
    McpServer {
        api_version: crds::API_VERSION.to_owned(),
        kind: "MCPServer".to_owned(),
        metadata: Metadata {
            name: given.name.clone(),
            namespace: namespace.clone(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: None,
        },
        spec: McpServerSpec {
            gateway: Some(GatewaySpec {
                enabled: false,
                upstream_url: Some(given.upstream.to_string()),
                ..GatewaySpec::default()
            }),
            ..McpServerSpec::default()
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use domain::{ServerName, Timestamp};
    use platform_api::objects::ObjectKind;
    use serde_json::{Value, json};

    use super::*;

    fn object(kind: ObjectKind, name: &str, spec: Value) -> Object {
        Object {
            kind,
            namespace: "acme".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            revision: 1,
            generation: 1,
            owner: "owner".to_owned(),
            labels: BTreeMap::new(),
            spec,
            status: None,
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
        }
    }

    fn reached(prefix: &str) -> Value {
        json!({ "publicPathPrefix": prefix, "gateway": { "enabled": true, "upstreamURL": "http://127.0.0.1:1/mcp" } })
    }

    fn all(manifests: &str, kept: &Kept) -> Wishes {
        let mut read = crds::Manifests::default();
        read.take(Path::new("a.yaml"), manifests);
        assert!(read.faults.is_empty(), "{:?}", read.faults);
        let given = [ServerArg {
            name: ServerName::parse("payments").unwrap(),
            upstream: "http://127.0.0.1:1/mcp".parse().unwrap(),
        }];
        wishes(
            (&given, &Namespace::parse("mcp-servers").unwrap()),
            &read,
            kept,
            Path::new("/secrets"),
        )
    }

    #[test]
    fn a_route_has_one_owner_and_the_second_is_told_whose_it_is() {
        let kept = Kept {
            servers: vec![
                object(ObjectKind::Server, "payments", reached("payments")),
                object(ObjectKind::Server, "hr", reached("hr")),
                object(ObjectKind::Server, "ours", reached("api")),
                object(ObjectKind::Server, "deep", reached("a/b")),
                object(ObjectKind::Server, "odd", json!({ "prot": 1 })),
            ],
            ..Kept::default()
        };
        let wishes = all("", &kept);
        let routes: Vec<_> = wishes
            .servers
            .iter()
            .map(|wanted| (wanted.key.to_string(), wanted.route.is_ok()))
            .collect();
        let expected = [
            ("mcp-servers/payments", true),
            ("acme/payments", false),
            ("acme/hr", true),
            ("acme/ours", false),
            ("acme/deep", false),
        ];
        assert_eq!(routes, expected.map(|(name, has)| (name.to_owned(), has)));
        let faults: Vec<_> = wishes.faults.into_iter().collect();
        let faults = faults.join("\n");
        for said in [
            "/payments/mcp belongs to server mcp-servers/payments",
            "\"api\" is a route of mcp-runtime itself",
            "must be one segment",
            "server odd of namespace acme cannot be read: unknown field `prot`",
        ] {
            assert!(faults.contains(said), "{said}: {faults}");
        }
    }

    #[test]
    fn manifests_come_before_the_api() {
        let grant = "apiVersion: mcpruntime.org/v1alpha1\nkind: MCPAccessGrant\nmetadata: {name: cursor, namespace: acme}\n\
                     spec: {serverRef: {name: hr}, subject: {agentID: cursor}, maxTrust: low, allowedSideEffects: [read]}\n";
        let spec = json!({ "serverRef": { "name": "hr" }, "subject": { "agentID": "cursor" }, "maxTrust": "high", "allowedSideEffects": ["read"] });
        let kept = Kept {
            grants: vec![
                object(ObjectKind::Grant, "cursor", spec.clone()),
                object(ObjectKind::Grant, "other", spec),
            ],
            ..Kept::default()
        };
        let wishes = all(grant, &kept);
        let grants: Vec<_> = wishes
            .grants
            .iter()
            .map(|grant| (grant.metadata.name.as_str(), grant.spec.max_trust().as_str()))
            .collect();
        assert_eq!(grants, [("cursor", "low"), ("other", "high")]);
        assert!(
            wishes
                .faults
                .iter()
                .any(|fault| fault.contains("grant cursor of namespace acme is in the manifests too"))
        );
    }
}
