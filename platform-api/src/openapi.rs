//! The `OpenAPI` document: made from the table of routes, the table of columns, and the shapes of bodies in [`shapes`].

mod shapes;

use std::sync::LazyLock;

use domain::COLUMNS;
use serde_json::Value;
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ArrayBuilder, ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApiBuilder, Ref, RefOr,
    Required, Schema, Type,
};

use crate::params::{ENVELOPE_FILTERS, Kind, Param, words_of};
use crate::routes::{Filters, Need, ROUTES, Route, Verb};

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    /// JSON of this shape.
    Json(&'static str),
    /// JSON of this shape, or nothing at all.
    Optional(&'static str),
}

/// What a good answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 200 with JSON of this shape.
    Json(&'static str),
    /// 201 with JSON of this shape.
    Created(&'static str),
    /// 201 with JSON of this shape when it is new, else 200.
    Put(&'static str),
    /// JSON of this shape, or CSV.
    JsonOrCsv(&'static str),
    /// Server-sent events with JSON of this shape.
    Sse(&'static str),
    /// Events in one of the export formats.
    Export,
    /// Lines as a list, or one by one.
    Logs,
    /// 204 with nothing.
    Empty,
    /// This document.
    Document,
}

/// The document as JSON, made once.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| build().to_pretty_json().unwrap_or_default());
    &DOCUMENT
}

fn build() -> utoipa::openapi::OpenApi {
    let mut paths = PathsBuilder::new();
    let mut seen: Vec<&str> = Vec::new();
    for route in ROUTES {
        if seen.contains(&route.path) {
            continue;
        }
        seen.push(route.path);
        let mut item = PathItem::default();
        for same in ROUTES.iter().filter(|other| other.path == route.path) {
            let operation = Some(operation(same));
            match same.method {
                Verb::Get => item.get = operation,
                Verb::Post => item.post = operation,
                Verb::Put => item.put = operation,
                Verb::Patch => item.patch = operation,
                Verb::Delete => item.delete = operation,
            }
        }
        paths = paths.path(route.path, item);
    }
    let mut components = ComponentsBuilder::new();
    for (name, shape) in shapes::all() {
        components = components.schema(name, shape);
    }
    for (name, help) in filters() {
        components = components.parameter(name, filter_parameter(name, help));
    }
    for fault in FAULTS {
        let body = ContentBuilder::new().schema(Some(shape("Problem"))).build();
        let response = ResponseBuilder::new()
            .description(fault.why)
            .content("application/json", body);
        components = components.response(fault.name, response);
    }
    components = components
        .security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key"))))
        .security_scheme(
            "bearer",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        );
    let info = InfoBuilder::new()
        .title("Platform API")
        .version("v1")
        .description(Some(
            "Analytics of MCP tool calls, and the system that collects them. Times are RFC 3339 in UTC, latencies microseconds, rates \
             fractions between 0 and 1; lists are never null. Every answer of analytics tells `as_of` (when it was made) and \
             `complete_through` (every event received before this is counted).",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()));
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

fn operation(route: &Route) -> Operation {
    let mut operation = OperationBuilder::new()
        .summary(Some(route.summary))
        .operation_id(Some(operation_id(route)))
        .tag(tag(route))
        .request_body(request_body(route.body));
    for parameter in path_parameters(route).chain(query_parameters(route)) {
        operation = operation.parameter(parameter);
    }
    if route.filters == Filters::All {
        for (name, _) in filters() {
            operation = operation.parameter_ref(Ref::new(format!("#/components/parameters/{name}")));
        }
    }
    operation = match route.need {
        Need::Nobody => operation,
        Need::Caller => operation.description(Some("For any caller; answers are confined to what they may see.")),
        Need::Admin => operation.description(Some("For administrators.")),
    };
    if route.need != Need::Nobody {
        for scheme in ["key", "bearer"] {
            operation = operation.security(SecurityRequirement::new(scheme, Vec::<String>::new()));
        }
    }
    let (status, good) = good_answer(route.answer);
    operation = operation.response(status, good);
    if let Answer::Put(name) = route.answer {
        let (status, made) = good_answer(Answer::Created(name));
        operation = operation.response(status, made);
    }
    for fault in faults(route) {
        operation = operation.response(fault.status, Ref::from_response_name(fault.name));
    }
    operation.build()
}

/// Such as `get_sentinel_keys_id`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1/").trim_start_matches('/');
    let words: String = path
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let words = words.split('_').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
    format!("{}_{words}", route.method.as_str().to_ascii_lowercase())
}

fn tag(route: &Route) -> &'static str {
    match route.need {
        _ if is_control(route) => "control",
        Need::Nobody => "description",
        Need::Caller => "analytics",
        Need::Admin => "operations",
    }
}

fn path_parameters(route: &Route) -> impl Iterator<Item = Parameter> {
    let names = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| {
        let help = match name {
            "component" => "Key of a component: `gateway`, `ingest`, `queue`, `processor`, `store`, `platform-api`",
            "slug" => "Slug of a team",
            "namespace" => "Namespace",
            "name" => "Name",
            "user" => "Id or e-mail address of an account",
            _ => "Id, as listed",
        };
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(help))
            .schema(Some(shapes::text()))
            .build()
    })
}

fn query_parameters(route: &Route) -> impl Iterator<Item = Parameter> {
    let own = route.params.iter().flat_map(|group| group.iter());
    own.map(|param| {
        query_parameter(param.name, param.help, param_schema(param))
            .required(Required::False)
            .build()
    })
}

/// Every column that can be filtered by, with what it is.
fn filters() -> impl Iterator<Item = (&'static str, &'static str)> {
    let columns = COLUMNS.iter().map(|column| (column.name, "A column of the event"));
    columns.chain(ENVELOPE_FILTERS)
}

fn filter_parameter(name: &str, help: &str) -> Parameter {
    let words = words_of(name);
    let schema = ArrayBuilder::new().items(RefOr::T(words.map_or_else(shapes::text, |words| shapes::words(&words))));
    let help = format!("{help}. Only events with one of these values; an empty text means absent");
    query_parameter(name, &help, Schema::Array(schema.build()))
        .explode(Some(true))
        .required(Required::False)
        .build()
}

fn query_parameter(name: &str, help: &str, schema: Schema) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .description(Some(help))
        .schema(Some(schema))
}

fn param_schema(param: &Param) -> Schema {
    let object = match param.kind {
        Kind::Text | Kind::Time | Kind::Duration(..) => ObjectBuilder::new().schema_type(Type::String),
        Kind::Number(min, max) => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(min))
            .maximum(Some(max)),
        Kind::Word(words) => ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(words.iter().copied())),
        Kind::Flag => ObjectBuilder::new().schema_type(Type::Boolean),
    };
    let default = match param.kind {
        _ if param.default.is_empty() => None,
        Kind::Number(..) | Kind::Flag => serde_json::from_str(param.default).ok(),
        _ => Some(Value::from(param.default)),
    };
    Schema::Object(object.default(default).build())
}

fn request_body(body: Body) -> Option<RequestBody> {
    let (name, required) = match body {
        Body::None => return None,
        Body::Json(name) => (name, Required::True),
        Body::Optional(name) => (name, Required::False),
    };
    let content = ContentBuilder::new().schema(Some(shape(name))).build();
    Some(
        RequestBodyBuilder::new()
            .content("application/json", content)
            .required(Some(required))
            .build(),
    )
}

fn good_answer(answer: Answer) -> (&'static str, ResponseBuilder) {
    let of = |name: &str| ContentBuilder::new().schema(Some(shape(name))).build();
    let opaque = || ContentBuilder::new().schema(Some(shapes::text())).build();
    let response = ResponseBuilder::new();
    match answer {
        Answer::Json(name) => (
            "200",
            response.description("The answer").content("application/json", of(name)),
        ),
        Answer::Put(name) => ("200", response.description("Changed").content("application/json", of(name))),
        Answer::Created(name) => ("201", response.description("Made").content("application/json", of(name))),
        Answer::JsonOrCsv(name) => (
            "200",
            response
                .description("The answer; as CSV, `x-truncated`, `x-as-of` and `x-complete-through` are headers")
                .content("application/json", of(name))
                .content("text/csv", opaque()),
        ),
        Answer::Sse(name) => (
            "200",
            response
                .description("One event each time, with its place `partition:offset` as id; comments while nothing happens")
                .content(
                    "text/event-stream",
                    ContentBuilder::new().item_schema(Some(shape(name))).build(),
                ),
        ),
        Answer::Export => {
            let formats = [
                "application/x-ndjson",
                "text/csv",
                "application/vnd.apache.arrow.stream",
                "application/vnd.apache.parquet",
            ];
            let response = response.description(
                "The events; `x-as-of` and `x-complete-through` are headers. A transfer that breaks off is not whole",
            );
            (
                "200",
                formats
                    .into_iter()
                    .fold(response, |response, format| response.content(format, opaque())),
            )
        }
        Answer::Logs => (
            "200",
            response
                .description("The lines, oldest first; one by one when following")
                .content("application/json", of("LogLines"))
                .content(
                    "application/x-ndjson",
                    ContentBuilder::new().item_schema(Some(shape("LogLine"))).build(),
                )
                .content(
                    "text/event-stream",
                    ContentBuilder::new().item_schema(Some(shape("LogLine"))).build(),
                ),
        ),
        Answer::Empty => ("204", response.description("It may pass")),
        Answer::Document => (
            "200",
            response.description("The OpenAPI document").content(
                "application/json",
                ContentBuilder::new().schema(Some(shapes::anything())).build(),
            ),
        ),
    }
}

/// An answer that says what went wrong.
#[derive(Clone, Copy, Debug)]
struct Fault {
    name: &'static str,
    status: &'static str,
    why: &'static str,
    of: fn(&Route) -> bool,
}

/// The faults that routes answer with, beyond those that any HTTP service has, and which routes do.
const FAULTS: &[Fault] = &[
    Fault {
        name: "WrongParameter",
        status: "400",
        why: "A parameter is not known or not right: `invalid_query_param`, `invalid_query`, `bad_request`",
        of: |route| route.need != Need::Nobody || route.body != Body::None,
    },
    Fault {
        name: "NotNamed",
        status: "401",
        why: "No credential, or an unknown one: `unauthorized`, `auth_failed`, `login_ended`",
        of: |route| route.need != Need::Nobody || route.body != Body::None || asks_provider(route) || is_registry(route),
    },
    Fault {
        name: "NotAllowed",
        status: "403",
        why: "Not for this caller: `forbidden`, `forbidden_namespace`, `forbidden_right`, `not_owner`, `invitation_needed`, `no_grant`, `forbidden_repository`, \
              `session_revoked`, `account_disabled`, `email_not_verified`, `forbidden_host`, `forbidden_origin`",
        of: |route| route.need != Need::Nobody || route.body != Body::None || is_registry(route),
    },
    Fault {
        name: "NotThere",
        status: "404",
        why: "There is no such thing: `not_found`",
        of: |route| {
            route.path.contains('{')
                || ["/policy", "/explain", "/diff", "/adapter/sessions"]
                    .iter()
                    .any(|end| route.path.ends_with(end))
        },
    },
    Fault {
        name: "Conflict",
        status: "409",
        why: "Its state does not allow it: `conflict`, `already_exists`, `route_taken`, `session_ended`, \
              `account_exists`, `authorization_pending`",
        of: |route| (route.need == Need::Admin || is_control(route)) && route.method != Verb::Get,
    },
    Fault {
        name: "TooLarge",
        status: "413",
        why: "The body is too large: `payload_too_large`",
        of: |route| route.body != Body::None,
    },
    Fault {
        name: "NotJson",
        status: "415",
        why: "The body is not JSON: `unsupported_media_type`",
        of: |route| route.body != Body::None,
    },
    Fault {
        name: "Unfit",
        status: "422",
        why: "The body does not say what is needed (`invalid`, `invalid_query`, `unprocessable`), or more is asked than is answered (`over_limit`)",
        of: |route| route.need == Need::Caller || route.body != Body::None,
    },
    Fault {
        name: "TooOften",
        status: "429",
        why: "Too often or too many, with `Retry-After` where waiting helps: `locked`, `active_server_limit_reached`, \
              `server_push_cooldown_active`, `too_many_sessions`, `slow_down`",
        of: |route| is_control(route) && (route.body != Body::None || asks_provider(route) || is_registry(route)),
    },
    Fault {
        name: "OurFault",
        status: "500",
        why: "A fault of ours: `internal`, `query_failed`",
        of: |route| route.need != Need::Nobody || route.body != Body::None || is_control(route),
    },
    Fault {
        name: "NoDatabase",
        status: "501",
        why: "This service runs without accounts and objects, or without an identity provider: `no_database`, `no_identity_provider`, \
              `no_device_flow`, `no_registry`",
        of: is_control,
    },
    Fault {
        name: "ProviderAway",
        status: "502",
        why: "The identity provider does not answer as it should: `provider_unavailable`",
        of: asks_provider,
    },
    Fault {
        name: "NotNow",
        status: "503",
        why: "Not now, with `Retry-After`: `busy`, `too_many_streams`, `unavailable`",
        of: |route| route.need != Need::Nobody || is_control(route),
    },
    Fault {
        name: "TooLong",
        status: "504",
        why: "It took too long: `query_timeout`, `operation_timeout`",
        of: |route| route.need != Need::Nobody,
    },
];

/// Whether a route answers tools of containers.
fn is_registry(route: &Route) -> bool {
    route.path.starts_with("/api/v1/registry/")
}

/// Whether a route asks an identity provider.
fn asks_provider(route: &Route) -> bool {
    route.path.starts_with("/api/v1/auth/oidc")
}

/// Whether a route is about accounts or objects.
fn is_control(route: &Route) -> bool {
    let path = route.path.trim_start_matches("/api/v1/").trim_start_matches("/api/");
    let analytics = [
        "user/analytics/",
        "runtime/server-events",
        "runtime/components",
        "runtime/actions/",
    ];
    let control = [
        "auth/",
        "user/",
        "users",
        "service-keys",
        "invitations",
        "runtime/",
        "registry/",
        "admin/",
    ];
    control.iter().any(|start| path.starts_with(start)) && !analytics.iter().any(|start| path.starts_with(start))
}

fn faults(route: &Route) -> impl Iterator<Item = &'static Fault> {
    FAULTS.iter().filter(|fault| (fault.of)(route))
}

fn shape(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}
