//! Whether an object could be used. Pure.

use std::time::Duration;

use crds::cluster::{McpAccessGrantResource, McpAgentSessionResource, McpServerResource};
use crds::render::Occasion;
use crds::{McpAccessGrant, McpAgentSession, McpServer, ServerRef};
use domain::Timestamp;
use domain::policy::Document;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::Settings;
use crate::object::{Key, text};
use crate::policy::is_admitted;
use crate::validate::validate;
use crate::world::World;

/// What is wrong with an object, and what its author should know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Review {
    pub(super) faults: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Review {
    fn fault(text: impl Into<String>) -> Self {
        Self {
            faults: vec![text.into()],
            ..Self::default()
        }
    }

    fn warning(text: impl Into<String>) -> Self {
        Self {
            warnings: vec![text.into()],
            ..Self::default()
        }
    }
}

/// Looks at the object of a request. One that cannot be read is refused by the schema, or will be told of by its status.
pub(super) fn review(world: &World, settings: &Settings, request: &Value, now: Timestamp) -> Review {
    let object = &request["object"];
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        // Whoever goes may go.
        return Review::default();
    }
    match text(request, "/kind/kind") {
        "MCPServer" => read::<McpServerResource, McpServer>(object).map(|server| of_server(world, settings, object, &server)),
        "MCPAccessGrant" => read::<McpAccessGrantResource, McpAccessGrant>(object).map(|grant| of_grant(world, &grant, now)),
        "MCPAgentSession" => read::<McpAgentSessionResource, McpAgentSession>(object)
            .map(|session| of_reference(world, &session.spec.server_ref, session.metadata.namespace.as_str()).1),
        _ => Ok(Review::default()),
    }
    .unwrap_or_else(Review::fault)
}

fn read<R: DeserializeOwned, T: for<'a> TryFrom<&'a R, Error: ToString>>(object: &Value) -> Result<T, String> {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let resource: R = serde_json::from_value(object).map_err(|error| error.to_string())?;
    T::try_from(&resource).map_err(|error| error.to_string())
}

fn of_server(world: &World, settings: &Settings, object: &Value, server: &McpServer) -> Review {
    let key = Key::of(object);
    let facts = world.supposing(&key, server);
    let mut review = Review::default();
    match validate(&facts, server, text(object, "/metadata/uid"), settings) {
        Err(faults) => review.faults.extend(faults.iter().map(ToString::to_string)),
        Ok(checked) => review.faults.extend(checked.route.err().map(|fault| fault.message)),
    }
    if review.faults.is_empty() && !server.spec.is_governed() {
        review
            .warnings
            .push("spec.gateway.enabled is not set: calls are neither judged nor recorded".to_owned());
    }
    review
}

fn of_grant(world: &World, grant: &McpAccessGrant, now: Timestamp) -> Review {
    let (server, mut review) = of_reference(world, &grant.spec.server_ref, grant.metadata.namespace.as_str());
    if let Some(server) = server.filter(|_| review.faults.is_empty()) {
        let occasion = Occasion {
            cluster: "",
            now,
            grace: Duration::MAX,
        };
        let document = crds::render(&server, [grant], [], &occasion);
        // What gateways would leave out is refused here.
        if let Ok((_, faults)) = Document::parse(document.to_json().as_bytes()) {
            let of_grant = faults.iter().filter(|fault| fault.place.starts_with("grants"));
            review.faults.extend(of_grant.map(|fault| fault.message.clone()));
        }
    }
    let subject = &grant.spec.subject;
    if subject.human().is_none() && subject.agent().is_none() && subject.team().is_none() {
        review
            .warnings
            .push("spec.subject is empty: the grant is for every identified caller".to_owned());
    }
    review
}

/// The server that is referred to, and what is wrong with that.
fn of_reference(world: &World, reference: &ServerRef, own: &str) -> (Option<McpServer>, Review) {
    let key = Key::new(reference.namespace_from(own), &*reference.name);
    let facts = world.fetch(&key);
    let Some(server) = facts.server.and_then(|server| server.server.as_ref().ok().cloned()) else {
        let warning = format!("there is no MCPServer {key} yet; this counts once there is");
        return (None, Review::warning(warning));
    };
    if is_admitted(&Key::new(own, ""), &server) {
        return (Some(server), Review::default());
    }
    let fault = format!("MCPServer {key} does not admit namespace {own}; its owner may name it in spec.allowReferencesFrom");
    (Some(server), Review::fault(fault))
}
