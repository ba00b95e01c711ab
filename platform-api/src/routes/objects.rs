//! What servers, grants and sessions have in common as answers: views, pages, revisions, and being asked only to try.

use axum::response::{IntoResponse as _, Response};
use domain::Timestamp;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use service_kit::Problem;

use super::Call;
use super::grants::view::phase;
use crate::access::{Caller, Standing};
use crate::api::Api;
use crate::control::Control;
use crate::objects::manifests::every;
use crate::objects::{Expected, Object, ObjectKind, Query};

/// Objects read at once while looking for those that match.
const READ_MAX: u32 = 500;

/// Objects that pass a test, up to a page, and where the next page begins.
pub(super) async fn page(
    control: &Control,
    call: &Call,
    kind: ObjectKind,
    keep: impl Fn(&Object) -> bool,
) -> Result<(Vec<Object>, Option<String>), Problem> {
    let limit = call.params.count("limit") as usize;
    let mut after = match call.params.text("after") {
        None => None,
        Some(text) => {
            let (namespace, name) = text.split_once('/').ok_or_else(|| {
                crate::params::invalid("`after` expects a namespace and a name, such as `mcp-servers/payments`".to_owned())
            })?;
            Some((namespace.to_owned(), name.to_owned()))
        }
    };
    let namespaces = within(call, call.params.text("namespace"))?;
    let mut found: Vec<Object> = Vec::new();
    loop {
        let query = Query {
            kind,
            namespaces: namespaces.clone(),
            after: after.take(),
            limit: READ_MAX,
        };
        let read = control.objects().list(query).await?;
        let last = read.last().map(|object| (object.namespace.clone(), object.name.clone()));
        let whole = read.len() < READ_MAX as usize;
        found.extend(read.into_iter().filter(&keep));
        if whole || found.len() > limit {
            break;
        }
        after = last;
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more);
    let next = last.map(|last| format!("{}/{}", last.namespace, last.name));
    Ok((found, next))
}

/// The namespaces a question is about; all when absent.
fn within(call: &Call, named: Option<&str>) -> Result<Option<Vec<String>>, Problem> {
    match named {
        None => Ok(call.caller.visible_namespaces()),
        Some(named) if call.caller.standing(named) > Standing::Stranger => Ok(Some(vec![named.to_owned()])),
        Some(named) => Err(Problem::forbidden(format!("the namespace `{named}` is not one of yours"))
            .with_code("forbidden_namespace")
            .with_hint("leave `namespace` out to see everything that you may see")),
    }
}

/// An object that the caller may see. What they may not see is not there.
pub(super) async fn find(
    control: &Control,
    call: &Call,
    kind: ObjectKind,
    namespace: &str,
    name: &str,
) -> Result<Object, Problem> {
    let seen = call.caller.standing(namespace) > Standing::Stranger;
    let found = if seen {
        control.objects().find(kind, namespace, name).await?
    } else {
        None
    };
    found.ok_or_else(|| {
        let word = kind.word();
        Problem::not_found(format!(
            "there is no {word} `{name}` in the namespace `{namespace}` that you may see"
        ))
        .with_hint(format!(
            "list them: mcp-runtime {}",
            if kind == ObjectKind::Server {
                "server list"
            } else {
                "access grant list"
            }
        ))
    })
}

/// Whether the caller may change a server and who may call it.
pub(super) fn administers(call: &Call, server: &Object) -> bool {
    may_change(&call.caller, server)
}

pub(super) fn may_change(caller: &Caller, server: &Object) -> bool {
    match caller.standing(&server.namespace) {
        Standing::Owner => true,
        Standing::Member => server.owner == caller.name,
        Standing::Reader | Standing::Stranger => false,
    }
}

pub(super) fn not_yours(server: &Object) -> Problem {
    Problem::forbidden(format!("the server `{}` is not yours to change", server.name))
        .with_code("not_owner")
        .with_hint("ask whoever published it, an owner of the team, or an administrator")
}

/// What a write expects, as `If-Match` says; without it, what was just read.
pub(super) fn expected(call: &Call, read: &Object) -> Expected {
    Expected::Revision(call.if_match.unwrap_or(read.revision))
}

/// An answer about one object, with its revision as `ETag`.
pub(super) fn tagged(status: StatusCode, revision: i64, body: &impl Serialize) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Whether the caller only wants to know what would happen.
pub(super) fn is_dry(call: &Call) -> bool {
    call.params.flag("dryRun")
}

/// The object as it would be kept.
pub(super) fn pretended(write: crate::objects::Write, before: Option<Object>) -> Object {
    let now = Timestamp::from_millis(write.now.millis());
    match before {
        Some(before) => Object {
            labels: write.labels,
            spec: write.spec,
            updated_at: now,
            ..before
        },
        None => Object {
            kind: write.kind,
            namespace: write.namespace,
            name: write.name,
            uid: String::new(),
            revision: 0,
            generation: 1,
            owner: write.owner,
            labels: write.labels,
            spec: write.spec,
            status: None,
            created_at: now,
            updated_at: now,
        },
    }
}

/// Every object of a kind that the caller may see.
pub(super) async fn all(control: &Control, call: &Call, kind: ObjectKind) -> Result<Vec<Object>, Problem> {
    Ok(every(control.objects(), kind, call.caller.visible_namespaces()).await?)
}

/// How many objects of each kind the caller may see, that are in force.
pub(super) struct Counts {
    pub(super) servers: usize,
    pub(super) grants: usize,
    pub(super) sessions: usize,
}

/// `None` where this service has no objects. A namespace or server that the request is confined to confines these too.
pub(super) async fn counts(api: &Api, call: &Call) -> Result<Option<Counts>, Problem> {
    let Ok(control) = api.control() else { return Ok(None) };
    let asked = |name: &str, value: &str| {
        let mut wanted = call.params.values(name).peekable();
        wanted.peek().is_none() || wanted.any(|wanted| wanted == value)
    };
    let count = async |kind: ObjectKind| -> Result<usize, Problem> {
        let objects = all(control, call, kind).await?;
        let in_force = objects.iter().filter(|object| {
            let server = match kind {
                ObjectKind::Server => &object.name,
                ObjectKind::Grant | ObjectKind::Session => server_of(object),
            };
            asked("namespace", &object.namespace)
                && asked("server", server)
                && object
                    .spec
                    .as_object()
                    .is_some_and(|spec| phase(spec, control.now()) == "Active")
        });
        Ok(in_force.count())
    };
    Ok(Some(Counts {
        servers: count(ObjectKind::Server).await?,
        grants: count(ObjectKind::Grant).await?,
        sessions: count(ObjectKind::Session).await?,
    }))
}

/// The server a grant or session is about: its own namespace, and the name.
pub(super) fn server_of(object: &Object) -> &str {
    object
        .spec
        .pointer("/serverRef/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
