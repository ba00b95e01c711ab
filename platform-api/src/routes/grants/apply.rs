//! Making and replacing a grant or session.

use std::collections::BTreeMap;

use axum::response::Response;
use crds::{McpAccessGrant, McpAccessGrantSpec, McpAgentSessionSpec, ObjectName, Subject};
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use service_kit::Problem;

use super::view::shown;
use super::{access_fact, administered};
use crate::api::Api;
use crate::audit::Fact;
use crate::control::Control;
use crate::identity::{accounts, teams};
use crate::objects::manifests::manifest;
use crate::objects::{AuditFact, Expected, Object, ObjectKind, Write};
use crate::publish::strict;
use crate::routes::Call;
use crate::routes::auth::unfit;
use crate::routes::objects::{expected, is_dry, pretended};
use crate::routes::servers::spec_of;

/// A body of fields of the spec, with name and namespace beside them.
fn split(body: Value) -> Result<(String, String, Value), Problem> {
    let Value::Object(mut fields) = body else {
        return Err(unfit("the body is not a JSON object"));
    };
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        None | Some(Value::Null | Value::String(_)) => Ok(None),
        Some(_) => Err(unfit(format!("`{name}` expects a text"))),
    };
    let (name, namespace) = (text("name")?, text("namespace")?);
    let server_namespace = fields
        .get("serverRef")
        .and_then(|server| server.get("namespace"))
        .and_then(Value::as_str);
    let namespace = namespace.or_else(|| server_namespace.map(str::to_owned));
    let name = name.ok_or_else(|| unfit("`name` is missing"))?;
    ObjectName::parse(&name).map_err(|error| unfit(format!("`name`: {error}")))?;
    // What answers tell beside the spec may be sent back, and is ours to say.
    for told in ["uid", "owner", "age", "updated_at", "revision", "phase"] {
        fields.remove(told);
    }
    Ok((name, namespace.unwrap_or_default(), Value::Object(fields)))
}

/// Subjects are written by people: addresses and slugs become the ids that calls carry.
async fn resolve(control: &Control, subject: &mut Subject, server: &Object) -> Result<(), Problem> {
    if subject.is_empty() {
        return Err(unfit("`subject` names nobody").with_hint("give humanID, agentID or teamID"));
    }
    if let Some(human) = subject.human().filter(|human| human.contains('@')).map(str::to_owned) {
        let account = accounts::find(control.database(), &human).await?;
        let (account, _) = account.ok_or_else(|| unfit(format!("`subject.humanID`: there is no account `{human}`")))?;
        subject.human_id = Some(account.id);
    }
    match subject.team().map(str::to_owned) {
        Some(team) => {
            if let Some(found) = teams::find(control.database(), &team).await? {
                subject.team_id = Some(found.id);
            }
        }
        // An agent alone is one of the server's own team.
        None if subject.human().is_none() => subject.team_id = spec_of(server).team_id,
        None => {}
    }
    Ok(())
}

/// What is special about one of the two kinds.
pub(super) trait Access: DeserializeOwned + Serialize {
    const KIND: ObjectKind;
    const ACTION: &'static str;
    fn subject(&mut self) -> &mut Subject;
    fn server(&self) -> &crds::ServerRef;
    /// Keeps what only its own routes change, and checks the rest.
    fn settle(&mut self, before: Option<&Self>, given: &Value, server: &Object) -> Result<(), Problem>;
}

impl Access for McpAccessGrantSpec {
    const KIND: ObjectKind = ObjectKind::Grant;
    const ACTION: &'static str = "grant_apply";

    fn subject(&mut self) -> &mut Subject {
        &mut self.subject
    }

    fn server(&self) -> &crds::ServerRef {
        &self.server_ref
    }

    fn settle(&mut self, before: Option<&Self>, given: &Value, server: &Object) -> Result<(), Problem> {
        if given.get("disabled").is_none() {
            self.disabled = before.is_some_and(|before| before.disabled);
        }
        if self.allowed_side_effects.is_empty() {
            return Err(
                unfit("`allowedSideEffects` is empty, so the grant would allow nothing").with_hint("give at least `read`")
            );
        }
        self.policy_version.get_or_insert_with(|| "v1".to_owned());
        let tools = spec_of(server).tools;
        for (at, rule) in self.tool_rules.iter().enumerate() {
            if self.tool_rules.iter().take(at).any(|other| other.name == rule.name) {
                return Err(unfit(format!("`toolRules` names `{}` twice", rule.name)));
            }
            if tools.is_empty() || rule.name.contains('*') || tools.iter().any(|tool| tool.name == rule.name) {
                continue;
            }
            let scored = tools
                .iter()
                .map(|tool| (strsim::jaro_winkler(&tool.name, &rule.name), tool.name.as_str()));
            let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0)).map_or("", |(_, name)| name);
            return Err(unfit(format!(
                "`toolRules`: the server `{}` declares no tool `{}`",
                server.name, rule.name
            ))
            .with_hint(format!("did you mean `{nearest}`? tools are declared with `server deploy`")));
        }
        Ok(())
    }
}

impl Access for McpAgentSessionSpec {
    const KIND: ObjectKind = ObjectKind::Session;
    const ACTION: &'static str = "session_apply";

    fn subject(&mut self) -> &mut Subject {
        &mut self.subject
    }

    fn server(&self) -> &crds::ServerRef {
        &self.server_ref
    }

    fn settle(&mut self, before: Option<&Self>, given: &Value, _: &Object) -> Result<(), Problem> {
        if given.get("revoked").is_none() {
            self.revoked = before.is_some_and(|before| before.revoked);
        }
        if given.get("upstreamTokenSecretRef").is_none() {
            self.upstream_token_secret_ref = before.and_then(|before| before.upstream_token_secret_ref.clone());
        }
        // Never told, so it cannot be sent back.
        if given.get("tokenHash").is_none() {
            self.token_hash = before.and_then(|before| before.token_hash.clone());
        }
        self.policy_version.get_or_insert_with(|| "v1".to_owned());
        Ok(())
    }
}

pub(super) async fn apply<T: Access>(api: &Api, call: &Call, body: Value) -> Result<Response, Problem> {
    let control = api.control()?;
    let (name, namespace, given) = split(body)?;
    let mut spec: T = strict(given.clone(), T::KIND.word())?;
    let namespace = if namespace.is_empty() {
        call.default_namespace().to_owned()
    } else {
        namespace
    };
    if spec.server().namespace_from(&namespace) != namespace {
        return Err(unfit("`serverRef.namespace` is another namespace than the object's own")
            .with_hint("put the object into the namespace of its server"));
    }
    let server = administered(control, call, &namespace, &spec.server().name.clone()).await?;
    resolve(control, spec.subject(), &server).await?;
    let before = control.objects().find(T::KIND, &namespace, &name).await?;
    let kept: Option<T> = before
        .as_ref()
        .and_then(|before| serde_json::from_value(before.spec.clone()).ok());
    spec.settle(kept.as_ref(), &given, &server)?;
    let write = Write {
        kind: T::KIND,
        namespace,
        name: name.clone(),
        owner: call.caller.name.clone(),
        labels: before.as_ref().map(|before| before.labels.clone()).unwrap_or_default(),
        spec: serde_json::to_value(&spec).map_err(Problem::internal)?,
        expected: before.as_ref().map_or(Expected::Absent, |before| expected(call, before)),
        quota: None,
        now: control.now(),
    };
    if is_dry(call) {
        return Ok(shown(control, StatusCode::OK, pretended(write, before)));
    }
    let object = put(control, call, write, T::ACTION, &server).await?;
    Ok(shown(control, StatusCode::OK, object))
}

async fn put(control: &Control, call: &Call, write: Write, action: &'static str, server: &Object) -> Result<Object, Problem> {
    let fact = access_fact(call, action, write.kind, (&write.namespace, &write.name), &write.spec);
    let object = control
        .objects()
        .put(
            write,
            AuditFact(Fact {
                team_id: spec_of(server).team_id,
                ..fact
            }),
        )
        .await?;
    control.facts_written();
    Ok(object)
}

/// A grant as it would be if it were made: complete and checked, but not kept.
pub(in crate::routes) async fn grant_of(
    control: &Control,
    server: &Object,
    mut body: Value,
) -> Result<McpAccessGrant, Problem> {
    if let Value::Object(fields) = &mut body {
        fields.entry("serverRef").or_insert_with(|| json!({"name": server.name}));
    }
    let (name, namespace, given) = split(body)?;
    let mut spec: McpAccessGrantSpec = strict(given.clone(), "grant")?;
    let is_here = namespace.is_empty() || namespace == server.namespace;
    if !is_here || spec.server_ref.name != server.name || spec.server_ref.namespace_from(&server.namespace) != server.namespace
    {
        return Err(unfit(format!(
            "the grant `{name}` is about another server than `{}`",
            server.name
        )));
    }
    resolve(control, &mut spec.subject, server).await?;
    let before = control.objects().find(ObjectKind::Grant, &server.namespace, &name).await?;
    let kept = before
        .as_ref()
        .and_then(|before| serde_json::from_value(before.spec.clone()).ok());
    spec.settle(kept.as_ref(), &given, server)?;
    let write = Write {
        kind: ObjectKind::Grant,
        namespace: server.namespace.clone(),
        name,
        owner: String::new(),
        labels: BTreeMap::new(),
        spec: serde_json::to_value(&spec).map_err(Problem::internal)?,
        expected: Expected::Anything,
        quota: None,
        now: control.now(),
    };
    manifest(&pretended(write, before)).map_err(Problem::internal)
}
