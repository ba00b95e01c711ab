//! Shapes of bodies, in a notation short enough to read beside the types they describe.
//!
//! A shape is a list of fields `name:kind`; `name?` may be absent. A kind is `text`, `int`, `num`, `flag`, `time`, `any`, the name of
//! another shape, `[kind]` for a list, and `kind|null`. `+Name` takes over all fields of another shape. The tests compare every shape
//! with a real body, field by field.

use std::collections::BTreeMap;

use domain::COLUMNS;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, SchemaType};
use utoipa::openapi::{ArrayBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat, Type};

use crate::params::words_of;

const SHAPES: &[(&str, &str)] = &[
    ("Problem", "error:text message:text hint?:text trace_id?:text"),
    ("Horizon", "as_of:time complete_through:time"),
    ("PageMeta", "limit:int has_more:flag next_cursor?:text"),
    (
        "EventRow",
        "v:int id:text timestamp:time received_at:time received_by?:text source:text event_type:text trace_id?:text span_id?:text \
         parent_span_id?:text producer?:text producer_seq?:int payload:Payload partition:int offset:int server?:text namespace?:text \
         team_id?:text cluster?:text human_id?:text agent_id?:text session_id?:text decision?:text tool_name?:text",
    ),
    ("EventsAnswer", "events:[EventRow] meta:PageMeta next?:text +Horizon"),
    ("ServerEvents", "events:[EventRow] +Horizon"),
    ("Stats", "events_total:int +Horizon"),
    ("SourceCount", "source:text count:int"),
    ("Sources", "sources:[SourceCount] +Horizon"),
    ("EventTypeCount", "event_type:text count:int"),
    ("EventTypes", "event_types:[EventTypeCount] +Horizon"),
    (
        "CallCounts",
        "events:int allowed:int denied:int errors:int bytes_in:int bytes_out:int latency_p50_us:int|null latency_p95_us:int|null \
         latency_p99_us:int|null",
    ),
    (
        "UsageTotals",
        "+CallCounts unique_servers:int unique_humans:int unique_agents:int unique_sessions:int",
    ),
    (
        "ServerUsage",
        "server:text namespace:text team_id?:text +CallCounts unique_humans:int unique_agents:int last_seen:time",
    ),
    (
        "ActorUsage",
        "human_id:text agent_id:text events:int denied:int unique_servers:int unique_tools:int last_seen:time",
    ),
    (
        "ToolUsage",
        "namespace:text server:text tool_name:text human_id:text team_id:text agent_id:text events:int denied:int last_seen:time",
    ),
    ("DecisionUsage", "decision:text events:int"),
    ("UsageBucket", "bucket:time events:int allowed:int denied:int"),
    (
        "Usage",
        "totals:UsageTotals servers:[ServerUsage] actors:[ActorUsage] tools:[ToolUsage] decisions:[DecisionUsage] series:[UsageBucket] \
         recent:[EventRow] window_days:int since:time until:time filters:any served_from:text +Horizon",
    ),
    ("Series", "key:text values:[num|null]"),
    (
        "SeriesReport",
        "step_seconds:int buckets:[time] series:[Series] served_from:text +Horizon",
    ),
    (
        "ToolRow",
        "namespace:text server:text tool_name:text +CallCounts error_rate:num deny_rate:num unique_callers:int last_seen:time \
         previous_calls:int",
    ),
    (
        "AlertRule",
        "name:text metric:text above?:num below?:num changes_by?:num window_seconds:int filter?:any calls_min:int",
    ),
    ("WebhookStatus", "host:text delivered:int failed:int fault?:text"),
    (
        "AlertStatus",
        "+AlertRule state:text since:time|null value:num|null before?:num evaluated_at:time|null fault?:text webhook?:WebhookStatus",
    ),
    ("AlertsReport", "alerts:[AlertStatus] faults:[text] file?:text as_of:time"),
    ("ToolsReport", "tools:[ToolRow] served_from:text +Horizon"),
    ("SqlQuestion", "sql:text format?:text limit?:int"),
    ("SqlColumn", "name:text type:text"),
    (
        "SqlAnswer",
        "columns:[SqlColumn] rows:[any] row_count:int truncated:flag +Horizon",
    ),
    (
        "Summary",
        "total_events:int active_servers:int published_servers:int|null active_grants:int|null open_sessions:int|null \
         active_sessions:int active_humans:int active_agents:int \
         latest_source:text last_event_type:text last_event_time?:time since:time until:time calls:CallCounts error_rate:num \
         deny_rate:num +Horizon",
    ),
    (
        "ComponentRow",
        "key:text display:text namespace:text kind:text resource:text status:text ready:flag message?:text address?:text",
    ),
    ("Restart", "component?:text all?:flag"),
    ("Restarted", "success:flag restarted:[text]"),
    ("Components", "components:[ComponentRow] as_of:time"),
    (
        "ComponentStatus",
        "key:text display:text state:text detail:text address?:text",
    ),
    (
        "PipelineStatus",
        "accepted:int rejected:int stored:int duplicates:int missing:int dead_letters:int dropped:int lag_events:int lag_seconds:num \
         freshness_p50_ms:num|null freshness_p99_ms:num|null insert_p50_ms?:num insert_p99_ms?:num events_per_second:num error_rate:num \
         deny_rate:num",
    ),
    (
        "StorageReport",
        "events:int bytes:int files:int events_in_memory:int oldest:time|null newest:time|null retention_seconds:int|null",
    ),
    ("ServerStatus", "name:text namespace:text url:text upstream:text mode:text"),
    ("BrokerReport", "id:int address:text"),
    (
        "PartitionReport",
        "partition:int leader:int|null replicas:int in_sync:int first:int end:int committed:int|null",
    ),
    (
        "QueueReport",
        "topic:text group:text brokers:[BrokerReport] partitions:[PartitionReport]",
    ),
    (
        "SystemStatus",
        "as_of:time size:text version:text components:[ComponentStatus] pipeline:PipelineStatus queue?:QueueReport \
         storage:StorageReport|null servers:[ServerStatus] keys_expiring:[KeyView]",
    ),
    ("LogLine", "timestamp:time level:text component:text message:text fields?:any"),
    (
        "KeyView",
        "id:text namespace:text server?:text created_at:time expires_at?:time revoked_at?:time events_per_second_max?:int note?:text",
    ),
    ("KeyList", "keys:[KeyView]"),
    (
        "KeyWish",
        "namespace:text server?:text expires_at?:time expires_in?:text events_per_second_max?:int note?:text",
    ),
    ("NewKey", "+KeyView key:text"),
    ("Rotation", "overlap?:text"),
    (
        "DeadLetter",
        "id:int set_aside_at:time partition:int offset:int reason:text record:text",
    ),
    ("DeadLetters", "dead_letters:[DeadLetter] has_more:flag next?:text"),
    ("DeadLetterDone", "id:int done:text"),
    ("Done", "done:flag"),
    ("Credentials", "email:text password:text"),
    ("SignUp", "email?:text password:text invitation?:text"),
    ("Refresh", "refresh_token:text"),
    ("OidcMethod", "issuer:text client_id:text"),
    ("LoginMethods", "password:flag sign_up:text oidc?:OidcMethod"),
    ("OidcStart", "redirect_uri:text login_hint?:text"),
    ("OidcStarted", "authorization_url:text flow:text"),
    (
        "OidcFinish",
        "flow:text state:text code:text redirect_uri:text invitation?:text",
    ),
    (
        "OidcDevice",
        "device_code:text user_code:text verification_uri:text verification_uri_complete?:text expires_in:int interval:int",
    ),
    ("OidcPoll", "device_code:text invitation?:text"),
    ("OidcToken", "id_token:text invitation?:text"),
    ("PasswordChange", "current:text new:text"),
    (
        "User",
        "id:text email:text role:text created_at:time last_login_at?:time disabled_at?:time",
    ),
    (
        "Granted",
        "access_token:text token_type:text expires_in:int refresh_token:text user:User",
    ),
    ("Membership", "id:text slug:text name:text namespace:text role:text"),
    (
        "MyPrincipal",
        "role:text subject:text email?:text namespace:text allowedNamespaces?:[text] teams:[Membership] rights:[text] createdAt?:time",
    ),
    (
        "Me",
        "authenticated:flag sharedCatalogNamespace:text catalogs:[text] principal:MyPrincipal",
    ),
    (
        "Login",
        "id:text method:text client:text created_at:time last_used_at:time current:flag",
    ),
    ("Logins", "logins:[Login]"),
    (
        "UserKey",
        "id:text name:text prefix:text rights:[text] namespaces:[text] created_at:time expires_at?:time last_used_at?:time \
         revoked:flag revoked_at?:time",
    ),
    ("UserKeys", "keys:[UserKey]"),
    ("UserKeyAnswer", "key:UserKey"),
    (
        "UserKeyWish",
        "name:text rights?:[text] namespaces?:[text] expires_at?:time expires_in?:text",
    ),
    ("MadeKey", "key:UserKey api_key:text one_time_key:text"),
    ("RegistryCredentials", "credentials:[UserKey]"),
    ("CredentialAnswer", "credential:UserKey"),
    ("MadeCredential", "credential:UserKey username:text password:text"),
    ("Users", "users:[User] next?:text"),
    ("UserAnswer", "user:User"),
    ("NewUser", "email:text password:text role?:text"),
    ("UserChange", "role?:text disabled?:flag password?:text"),
    (
        "Invitation",
        "id:text email:text role:text team_id?:text team_role?:text created_by:text created_at:time expires_at:time used_at?:time",
    ),
    ("Invitations", "invitations:[Invitation]"),
    (
        "InvitationWish",
        "email:text role?:text team?:text team_role?:text expires_in?:text",
    ),
    ("InvitationAnswer", "invitation:Invitation secret?:text"),
    ("Team", "id:text slug:text name:text namespace:text created_at:time"),
    ("Teams", "teams:[Team] next?:text"),
    ("TeamAnswer", "team:Team"),
    ("NewTeam", "slug:text name?:text"),
    ("TeamChange", "name:text"),
    ("Member", "user_id:text email:text role:text created_at:time"),
    ("Members", "members:[Member]"),
    ("MemberAnswer", "member:Member"),
    ("NewMember", "user:text role?:text"),
    ("MemberChange", "role:text"),
    ("TeamUser", "email:text password?:text role?:text"),
    ("Namespace", "namespace:text scope:text team?:Team publish:flag"),
    ("Namespaces", "namespaces:[Namespace]"),
    ("NamespaceAnswer", "namespace:Namespace"),
    (
        "Server",
        "name:text namespace:text uid:text team_id?:text owner:text scope:text image?:text imageTag?:text description?:text ready:flag \
         status:text message?:text labels:any age:time updated_at:time endpoint:text authMode:text governed:flag servicePort:int \
         revision:int generation:int observedGeneration?:int tools:[any] prompts:[any] resources:[any] tasks:[any] access_json:any \
         spec:any statusDetail?:any",
    ),
    (
        "PublishPolicy",
        "active_server_limit:int|null active_server_count:int active_server_limit_enabled:flag can_publish:flag \
         push_cooldown_seconds:int push_cooldown_enabled:flag",
    ),
    ("Servers", "servers:[Server] next?:text publish_policy:PublishPolicy"),
    ("ServerAnswer", "server:Server"),
    (
        "Publication",
        "name:text namespace?:text scope?:text update?:flag labels?:any spec:any",
    ),
    ("RemovedServer", "success:flag namespace:text name:text removed:[text]"),
    ("Removed", "success:flag namespace:text name:text"),
    (
        "ObjectHead",
        "name:text namespace:text uid:text owner:text age:time updated_at:time revision:int phase:text",
    ),
    ("ServerRef", "name:text namespace?:text"),
    ("Subject", "humanID?:text agentID?:text teamID?:text"),
    ("ToolRule", "name:text decision:text requiredTrust?:text"),
    (
        "GrantSpec",
        "serverRef:ServerRef subject:Subject maxTrust?:text allowedSideEffects?:[text] policyVersion?:text disabled?:flag \
         toolRules?:[ToolRule]",
    ),
    ("Grant", "+ObjectHead +GrantSpec"),
    ("Grants", "grants:[Grant] next?:text"),
    ("GrantAnswer", "grant:Grant"),
    ("GrantWish", "name:text namespace?:text +GrantSpec"),
    ("GrantChange", "disabled:flag"),
    ("SecretKeyRef", "name:text key:text"),
    (
        "SessionSpec",
        "serverRef:ServerRef subject:Subject consentedTrust?:text expiresAt?:time revoked?:flag revokedAt?:time upstreamTokenSecretRef?:SecretKeyRef \
         policyVersion?:text",
    ),
    ("Session", "+ObjectHead +SessionSpec"),
    ("Sessions", "sessions:[Session] next?:text"),
    ("SessionAnswer", "session:Session"),
    ("SessionWish", "name:text namespace?:text tokenHash?:text +SessionSpec"),
    ("SessionChange", "revoked:flag"),
    (
        "AdapterSession",
        "name:text namespace:text serverName:text humanID:text agentID:text teamID?:text consentedTrust:text policyVersion:text phase:text \
         issuedAt:time expiresAt:time",
    ),
    ("AdapterSessions", "sessions:[AdapterSession]"),
    (
        "AdapterSessionWish",
        "serverName:text namespace?:text agentID:text requestedTrust?:text requestedTTL?:text",
    ),
    ("AdapterSessionRefresh", "requestedTTL?:text"),
    (
        "UsableSession",
        "+AdapterSession maxTrust:text renewableUntil:time endpoint:text authMode:text headers:any credential?:text anonymousMethods:[text]",
    ),
    (
        "CatalogueTool",
        "tool_name:text description:text server_name:text namespace:text team_id?:text endpoint_url:text declared:flag live?:flag \
         drift_status:text required_trust?:text side_effect?:text risk_level?:text suggested_side_effect?:text labels:any seen_at?:time \
         connect_config:any",
    ),
    ("ToolCatalogue", "tools:[CatalogueTool] next?:text"),
    ("RegistryToken", "token:text access_token:text expires_in:int issued_at:time"),
    ("Jwks", "keys:[any]"),
    ("PolicyStatus", "revision?:text activeReplicas?:int grants:int sessions:int"),
    (
        "PolicyAnswer",
        "policy:any revision:text source:text unread:[text] published?:PolicyStatus",
    ),
    (
        "PolicyQuestion",
        "namespace?:text server:text human?:text agent?:text team?:text session?:text tool?:text prompt?:text resource?:text method?:text \
         arguments?:any at?:time",
    ),
    ("Decided", "decision:text reason:text"),
    ("PolicyCheck", "check:text finding:text passed:flag"),
    ("NearestGrant", "grant:text obstacles:[text]"),
    (
        "Explanation",
        "+Decided hint:text would_be?:Decided human:text agent:text team:text session?:text steps:[PolicyCheck] nearest?:NearestGrant \
         matched_grant?:text matched_session?:text required_trust?:text effective_trust?:text revision:text",
    ),
    (
        "PolicyThought",
        "namespace?:text server:text grants?:[any] remove_grants?:[text] spec?:any",
    ),
    ("PolicyChange", "caller:text target:text before:Decided after:Decided"),
    (
        "PolicyDifference",
        "changes:[PolicyChange] gains:int losses:int complete:flag",
    ),
    (
        "AnonymousServer",
        "serverName:text namespace:text endpoint:text methods:[text]",
    ),
];

/// Every shape by name.
pub(super) fn all() -> BTreeMap<&'static str, Schema> {
    let mut all: BTreeMap<_, _> = SHAPES
        .iter()
        .map(|(name, fields)| (*name, object(fields, ObjectBuilder::new()).build().into()))
        .collect();
    all.insert("Payload", payload());
    all.insert("LogLines", list(kind("LogLine")));
    all
}

pub(super) fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).build().into()
}

pub(super) fn words(words: &[&str]) -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.iter().copied()))
        .build()
        .into()
}

pub(super) fn anything() -> Schema {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).build().into()
}

fn object(fields: &str, mut object_so_far: ObjectBuilder) -> ObjectBuilder {
    for field in fields.split_ascii_whitespace() {
        if let Some(other) = field.strip_prefix('+') {
            let taken = SHAPES
                .iter()
                .find(|(name, _)| *name == other)
                .map_or("", |(_, fields)| fields);
            object_so_far = object(taken, object_so_far);
            continue;
        }
        let (name, of) = field.split_once(':').unwrap_or((field, "any"));
        let plain = name.trim_end_matches('?');
        object_so_far = object_so_far.property(plain, kind(of));
        if plain == name {
            object_so_far = object_so_far.required(plain);
        }
    }
    object_so_far
}

fn kind(word: &str) -> RefOr<Schema> {
    if let Some(inner) = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return RefOr::T(list(kind(inner)));
    }
    if let Some(inner) = word.strip_suffix("|null") {
        let null = ObjectBuilder::new().schema_type(Type::Null).build();
        return RefOr::T(
            AnyOfBuilder::new()
                .item(kind(inner))
                .item(Schema::Object(null))
                .build()
                .into(),
        );
    }
    let plain = |of: Type| RefOr::T(ObjectBuilder::new().schema_type(of).build().into());
    match word {
        "text" => plain(Type::String),
        "int" => plain(Type::Integer),
        "num" => plain(Type::Number),
        "flag" => plain(Type::Boolean),
        "any" => RefOr::T(anything()),
        "time" => {
            let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
            RefOr::T(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .format(Some(format))
                    .build()
                    .into(),
            )
        }
        name => RefOr::Ref(Ref::from_schema_name(name)),
    }
}

fn list(of: RefOr<Schema>) -> Schema {
    ArrayBuilder::new().items(of).build().into()
}

/// The columns, none of them required, and whatever else the sender told.
fn payload() -> Schema {
    let mut object = ObjectBuilder::new();
    for column in COLUMNS {
        let schema = match (words_of(column.name), column.kind) {
            (Some(of), _) => words(&of),
            (None, domain::Kind::Name | domain::Kind::Text) => ObjectBuilder::new()
                .schema_type(Type::String)
                .max_length(Some(column.bytes_max))
                .build()
                .into(),
            (None, domain::Kind::Count) => ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(0_u64))
                .build()
                .into(),
            (None, domain::Kind::Code) => ObjectBuilder::new().schema_type(Type::Integer).build().into(),
        };
        object = object.property(column.name, schema);
    }
    let attributes = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(text()))));
    object.property("attributes", attributes.build()).build().into()
}
