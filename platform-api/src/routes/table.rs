//! Every route of the API, in one table, with the parameters they share.

use axum::routing::{delete, get, patch, post, put};

use super::{
    Filters, Need, Route, Verb, adapter, auth, events, follow, grants, keys, oidc, policy, registry, servers, sql, system,
    teams, tools, usage, users,
};
use crate::catalogue::Drift;
use crate::openapi::{Answer, Body};
use crate::params::{Kind, Param};

const WINDOW: &[Param] = &[
    Param {
        name: "since",
        kind: Kind::Time,
        default: "",
        help: "First time asked about: RFC 3339, or a duration before now such as `15m`, `2h` or `7d`",
    },
    Param {
        name: "until",
        kind: Kind::Time,
        default: "",
        help: "First time no longer asked about, in the same forms",
    },
];
const EVENTS_PAGE: &[Param] = &[
    Param {
        name: "limit",
        kind: Kind::Number(1, 1_000),
        default: "100",
        help: "Most events of a page",
    },
    Param {
        name: "cursor",
        kind: Kind::Text,
        default: "",
        help: "`meta.next_cursor` of the page before",
    },
    Param {
        name: "order",
        kind: Kind::Word(&["newest", "arrival"]),
        default: "newest",
        help: "`newest`: by time, newest first; `arrival`: as they came in, oldest first",
    },
];
const VALUES: &[Param] = &[Param {
    name: "limit",
    kind: Kind::Number(1, 1_000),
    default: "100",
    help: "Most values",
}];
const USAGE: &[Param] = &[
    Param {
        name: "limit",
        kind: Kind::Number(1, 500),
        default: "10",
        help: "Most rows of each list",
    },
    Param {
        name: "window_days",
        kind: Kind::Number(1, 365),
        default: "",
        help: "Days up to now; instead of `since`. 30 when neither is given",
    },
    Param {
        name: "step",
        kind: Kind::Duration(1, 31_622_400),
        default: "",
        help: "Step of the series; an hour for windows up to two days, else a day",
    },
];
const SERIES: &[Param] = &[
    Param {
        name: "metric",
        kind: Kind::Word(&[
            "calls",
            "errors",
            "denied",
            "latency_p50",
            "latency_p95",
            "latency_p99",
            "bytes",
        ]),
        default: "calls",
        help: "What to show; latencies are microseconds",
    },
    Param {
        name: "by",
        kind: Kind::Word(&["none", "server", "tool", "agent", "human", "namespace", "outcome"]),
        default: "none",
        help: "What to split by",
    },
    Param {
        name: "step",
        kind: Kind::Duration(1, 31_622_400),
        default: "",
        help: "Length of a step; chosen from the window when not given",
    },
    Param {
        name: "top",
        kind: Kind::Number(1, 50),
        default: "8",
        help: "Keys shown on their own; the rest becomes `other`",
    },
];
const TOOLS: &[Param] = &[Param {
    name: "limit",
    kind: Kind::Number(1, 1_000),
    default: "50",
    help: "Most tools",
}];
const EXPORT: &[Param] = &[Param {
    name: "format",
    kind: Kind::Word(&["ndjson", "csv", "arrow", "parquet"]),
    default: "ndjson",
    help: "How events are written",
}];
const FOLLOW: &[Param] = &[Param {
    name: "after",
    kind: Kind::Text,
    default: "",
    help: "Id of the last event seen (`partition:offset`); `0:0` and the like begin there, without it the stream begins now. The header `Last-Event-ID` wins",
}];
const SERVER_EVENTS: &[Param] = &[Param {
    name: "limit",
    kind: Kind::Number(1, 100),
    default: "20",
    help: "Most events",
}];
const LOGS: &[Param] = &[
    Param {
        name: "since",
        kind: Kind::Time,
        default: "",
        help: "First time asked about: RFC 3339, or a duration before now such as `15m`",
    },
    Param {
        name: "tail",
        kind: Kind::Number(0, 100_000),
        default: "200",
        help: "Only the newest so many kept lines",
    },
    Param {
        name: "level",
        kind: Kind::Word(&["trace", "debug", "info", "warn", "error"]),
        default: "trace",
        help: "Only lines at least this grave",
    },
    Param {
        name: "grep",
        kind: Kind::Text,
        default: "",
        help: "Only lines that contain this text, in any case",
    },
    Param {
        name: "server",
        kind: Kind::Text,
        default: "",
        help: "Only lines about this MCP server",
    },
    Param {
        name: "previous",
        kind: Kind::Flag,
        default: "false",
        help: "The log of the run before this one, such as one that crashed",
    },
    Param {
        name: "follow",
        kind: Kind::Flag,
        default: "false",
        help: "Go on with every later line: server-sent events when `Accept` asks for `text/event-stream`, else one JSON object a line",
    },
];
const DEAD_LETTERS: &[Param] = &[
    Param {
        name: "limit",
        kind: Kind::Number(1, 1_000),
        default: "100",
        help: "Most dead letters of a page",
    },
    Param {
        name: "after",
        kind: Kind::Number(0, i64::MAX as u64),
        default: "0",
        help: "Only ids above this one",
    },
];

const USERS: &[Param] = &[
    PAGE_LIMIT,
    Param {
        name: "after",
        kind: Kind::Text,
        default: "",
        help: "Only those after this one in order: an e-mail address, or a slug",
    },
];
const PAGE_LIMIT: Param = Param {
    name: "limit",
    kind: Kind::Number(1, 500),
    default: "100",
    help: "Most rows of a page",
};
const OBJECTS: &[Param] = &[
    PAGE_LIMIT,
    Param {
        name: "namespace",
        kind: Kind::Text,
        default: "",
        help: "Only of this namespace",
    },
    Param {
        name: "after",
        kind: Kind::Text,
        default: "",
        help: "Only those after this one in order: a namespace and a name, such as `mcp-servers/payments`",
    },
];
const SEARCH: &[Param] = &[Param {
    name: "q",
    kind: Kind::Text,
    default: "",
    help: "Only with this text in the name or description",
}];
const OF_SERVER: &[Param] = &[Param {
    name: "server",
    kind: Kind::Text,
    default: "",
    help: "Only of this server",
}];
const ADAPTER_SESSIONS: &[Param] = &[PAGE_LIMIT];
const TOOL_ROWS: &[Param] = &[
    PAGE_LIMIT,
    Param {
        name: "after",
        kind: Kind::Text,
        default: "",
        help: "Only those after this one in order: `namespace/server/tool`",
    },
    text(
        "q",
        "Only with this text in the tool's name, description, server, namespace or labels",
    ),
    text("query", "The same as `q`"),
    text("namespace", "Only of this namespace"),
    text("server", "Only of this server"),
    text("team", "Only of this team, by id"),
    word("trust", &["low", "medium", "high"], "Only those that ask for this trust"),
    word("side_effect", &["read", "write", "destructive"], "Only those that do this"),
    word("risk", &["low", "medium", "high"], "Only those rated so"),
    word("drift", Drift::WORDS, "Only those that stand so to what is declared"),
];

const fn text(name: &'static str, help: &'static str) -> Param {
    Param {
        name,
        kind: Kind::Text,
        default: "",
        help,
    }
}

const fn word(name: &'static str, words: &'static [&'static str], help: &'static str) -> Param {
    Param {
        name,
        kind: Kind::Word(words),
        default: "",
        help,
    }
}

const OF_NAMESPACE: &[Param] = &[Param {
    name: "namespace",
    kind: Kind::Text,
    default: "",
    help: "Its namespace; one's own when not given",
}];
const DRY_RUN: &[Param] = &[Param {
    name: "dryRun",
    kind: Kind::Flag,
    default: "false",
    help: "Check everything and show the result, but change nothing",
}];

macro_rules! routes {
    ($($method:ident $path:literal $need:ident $summary:literal [$($group:ident),*] $filters:ident, $body:expr => $answer:expr, $verb:ident $handler:path;)+) => {
        /// Every route of the API.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Verb::$method,
            path: $path,
            need: Need::$need,
            summary: $summary,
            params: &[$($group),*],
            filters: Filters::$filters,
            body: $body,
            answer: $answer,
            handler: || $verb($handler),
        },)+];
    };
}

routes! {
    Get "/api/v1/events" Caller "A page of events" [WINDOW, EVENTS_PAGE] All, Body::None => Answer::Json("EventsAnswer"), get events::list;
    Get "/api/v1/events/stream" Caller "Follow events as they arrive" [WINDOW, FOLLOW] All, Body::None => Answer::Sse("EventRow"), get follow::events;
    Get "/api/v1/stats" Caller "How many events there are" [WINDOW] All, Body::None => Answer::Json("Stats"), get usage::stats;
    Get "/api/v1/sources" Caller "Who sent events, and how many" [WINDOW, VALUES] All, Body::None => Answer::Json("Sources"), get usage::sources;
    Get "/api/v1/event-types" Caller "Kinds of events, and how many" [WINDOW, VALUES] All, Body::None => Answer::Json("EventTypes"), get usage::event_types;
    Get "/api/v1/analytics/usage" Caller "Totals, servers, actors, tools and series of a time" [WINDOW, USAGE] All, Body::None => Answer::Json("Usage"), get usage::usage;
    Get "/api/v1/user/analytics/usage" Caller "The same, under the predecessor's other path" [WINDOW, USAGE] All, Body::None => Answer::Json("Usage"), get usage::usage;
    Get "/api/v1/analytics/series" Caller "One metric over time, split by one dimension" [WINDOW, SERIES] All, Body::None => Answer::Json("SeriesReport"), get usage::series;
    Get "/api/v1/analytics/tools" Caller "Every tool, compared with the window before" [WINDOW, TOOLS] All, Body::None => Answer::Json("ToolsReport"), get usage::tools;
    Get "/api/v1/analytics/export" Caller "Every matching event, streamed in order of arrival" [WINDOW, EXPORT] All, Body::None => Answer::Export, get events::export;
    Post "/api/v1/query" Caller "Answer a read-only SQL question over `events`, `calls_hourly` and `calls_daily`" [] None, Body::Json("SqlQuestion") => Answer::JsonOrCsv("SqlAnswer"), post sql::query;
    Get "/api/v1/dashboard/summary" Caller "The figures of the first page" [WINDOW] All, Body::None => Answer::Json("Summary"), get usage::summary;
    Get "/api/v1/runtime/server-events" Caller "The newest events of one server" [WINDOW, SERVER_EVENTS] All, Body::None => Answer::Json("ServerEvents"), get events::of_server;
    Get "/api/v1/runtime/components" Admin "The parts of the system" [] None, Body::None => Answer::Json("Components"), get system::components;
    Post "/api/v1/runtime/actions/restart" Admin "Restart one component, or all in turn, each after the one before is ready" [] None, Body::Json("Restart") => Answer::Json("Restarted"), post system::restart;
    Get "/api/v1/sentinel/status" Admin "How the whole system is" [] None, Body::None => Answer::Json("SystemStatus"), get system::status;
    Get "/api/v1/sentinel/alerts" Admin "The alert rules and how each stands" [] None, Body::None => Answer::Json("AlertsReport"), get system::alerts;
    Get "/api/v1/sentinel/logs/{component}" Admin "The log of one component" [LOGS] None, Body::None => Answer::Logs, get follow::logs;
    Get "/api/v1/sentinel/keys" Admin "The ingest keys, without their secrets" [] None, Body::None => Answer::Json("KeyList"), get system::keys;
    Post "/api/v1/sentinel/keys" Admin "Make an ingest key; its secret is in this answer and never again" [] None, Body::Json("KeyWish") => Answer::Created("NewKey"), post system::create_key;
    Delete "/api/v1/sentinel/keys/{id}" Admin "Revoke an ingest key" [] None, Body::None => Answer::Json("KeyView"), delete system::revoke_key;
    Post "/api/v1/sentinel/keys/{id}/rotate" Admin "Make a key with the same rights; the old one works a while longer" [] None, Body::Optional("Rotation") => Answer::Created("NewKey"), post system::rotate_key;
    Get "/api/v1/sentinel/dlq" Admin "Records that could not be stored, oldest first" [DEAD_LETTERS] None, Body::None => Answer::Json("DeadLetters"), get system::dead_letters;
    Get "/api/v1/sentinel/dlq/{id}" Admin "One such record" [] None, Body::None => Answer::Json("DeadLetter"), get system::dead_letter;
    Delete "/api/v1/sentinel/dlq/{id}" Admin "Discard one such record for good" [] None, Body::None => Answer::Json("DeadLetterDone"), delete system::discard;
    Post "/api/v1/sentinel/dlq/{id}/replay" Admin "Send one such record through the pipeline again" [] None, Body::None => Answer::Json("DeadLetterDone"), post system::replay;
    Get "/api/v1/openapi.json" Nobody "This document" [] None, Body::None => Answer::Document, get system::openapi;

    Post "/api/v1/auth/login" Nobody "Log in with e-mail address and password" [] None, Body::Json("Credentials") => Answer::Json("Granted"), post auth::login;
    Post "/api/v1/auth/signup" Nobody "Make an account, by invitation unless signing up is open" [] None, Body::Json("SignUp") => Answer::Created("Granted"), post auth::sign_up;
    Post "/api/v1/auth/refresh" Nobody "Exchange a refresh token for the next pair of tokens" [] None, Body::Json("Refresh") => Answer::Json("Granted"), post auth::refresh;
    Get "/api/v1/auth/methods" Nobody "How one can log in here" [] None, Body::None => Answer::Json("LoginMethods"), get oidc::methods;
    Post "/api/v1/auth/oidc/start" Nobody "Begin a login in a browser: where to send it, and a secret to finish with" [] None, Body::Json("OidcStart") => Answer::Json("OidcStarted"), post oidc::start;
    Post "/api/v1/auth/oidc/finish" Nobody "Log in with what the browser brought back" [] None, Body::Json("OidcFinish") => Answer::Put("Granted"), post oidc::finish;
    Post "/api/v1/auth/oidc/link" Caller "From now on, log in with the identity provider too" [] None, Body::Json("OidcFinish") => Answer::Json("Done"), post oidc::link;
    Post "/api/v1/auth/oidc/device" Nobody "Begin a login on a device without a browser" [] None, Body::None => Answer::Json("OidcDevice"), post oidc::device;
    Post "/api/v1/auth/oidc/device/poll" Nobody "Log in once somebody has approved the device; 409 `authorization_pending` until then" [] None, Body::Json("OidcPoll") => Answer::Put("Granted"), post oidc::poll;
    Post "/api/v1/auth/oidc" Nobody "Log in with a fresh ID token" [] None, Body::Json("OidcToken") => Answer::Put("Granted"), post oidc::token;
    Post "/api/v1/auth/logout" Caller "End the login that this token belongs to" [] None, Body::None => Answer::Json("Done"), post auth::logout;
    Post "/api/v1/auth/password" Caller "Change one's password; every other login ends" [] None, Body::Json("PasswordChange") => Answer::Json("Done"), post auth::change_password;
    Get "/api/v1/auth/me" Caller "Who one is, and what one may do" [] None, Body::None => Answer::Json("Me"), get auth::me;
    Get "/api/v1/user/logins" Caller "One's logins that have not ended" [] None, Body::None => Answer::Json("Logins"), get auth::list_logins;
    Delete "/api/v1/user/logins/{id}" Caller "End one of one's logins" [] None, Body::None => Answer::Json("Done"), delete auth::end_login;
    Get "/api/v1/user/api-keys" Caller "One's keys, without their secrets" [] None, Body::None => Answer::Json("UserKeys"), get keys::list_user_keys;
    Post "/api/v1/user/api-keys" Caller "Make a key of at most one's own rights; its secret is in this answer and never again" [] None, Body::Json("UserKeyWish") => Answer::Created("MadeKey"), post keys::create_user_key;
    Delete "/api/v1/user/api-keys/{id}" Caller "Revoke one of one's keys" [] None, Body::None => Answer::Json("UserKeyAnswer"), delete keys::revoke_user_key;
    Post "/api/v1/user/api-keys/{id}/revoke" Caller "The same, under the predecessor's other path" [] None, Body::None => Answer::Json("UserKeyAnswer"), post keys::revoke_user_key;
    Get "/api/v1/user/registry-credentials" Caller "One's credentials for the registry" [] None, Body::None => Answer::Json("RegistryCredentials"), get keys::list_credentials;
    Post "/api/v1/user/registry-credentials" Caller "Make a credential for the registry; its password is in this answer and never again" [] None, Body::Json("UserKeyWish") => Answer::Created("MadeCredential"), post keys::create_credential;
    Delete "/api/v1/user/registry-credentials/{id}" Caller "Revoke one of one's credentials" [] None, Body::None => Answer::Json("CredentialAnswer"), delete keys::revoke_credential;
    Post "/api/v1/user/registry-credentials/{id}/revoke" Caller "The same, under the predecessor's other path" [] None, Body::None => Answer::Json("CredentialAnswer"), post keys::revoke_credential;
    Get "/api/v1/service-keys" Admin "Keys of programs, without their secrets" [] None, Body::None => Answer::Json("UserKeys"), get keys::list_service_keys;
    Post "/api/v1/service-keys" Admin "Make a key for a program: a member of its namespaces, or an administrator when it has none" [] None, Body::Json("UserKeyWish") => Answer::Created("MadeKey"), post keys::create_service_key;
    Delete "/api/v1/service-keys/{id}" Admin "Revoke a key of a program" [] None, Body::None => Answer::Json("UserKeyAnswer"), delete keys::revoke_service_key;
    Get "/api/v1/users" Admin "Every account" [USERS] None, Body::None => Answer::Json("Users"), get users::list;
    Post "/api/v1/users" Admin "Make an account" [] None, Body::Json("NewUser") => Answer::Created("UserAnswer"), post users::create;
    Get "/api/v1/users/{id}" Admin "One account, by id or e-mail address" [] None, Body::None => Answer::Json("UserAnswer"), get users::get;
    Patch "/api/v1/users/{id}" Admin "Change role or password, keep out or let in again" [] None, Body::Json("UserChange") => Answer::Json("UserAnswer"), patch users::change;
    Delete "/api/v1/users/{id}" Admin "Remove an account for good" [] None, Body::None => Answer::Json("UserAnswer"), delete users::remove;
    Get "/api/v1/invitations" Admin "Invitations that are neither used nor ended" [] None, Body::None => Answer::Json("Invitations"), get users::invitations;
    Post "/api/v1/invitations" Admin "Invite somebody; the secret is in this answer and never again" [] None, Body::Json("InvitationWish") => Answer::Created("InvitationAnswer"), post users::invite;
    Delete "/api/v1/invitations/{id}" Admin "Withdraw an invitation" [] None, Body::None => Answer::Json("InvitationAnswer"), delete users::withdraw;
    Get "/api/v1/runtime/teams" Caller "One's teams; all of them for administrators" [USERS] None, Body::None => Answer::Json("Teams"), get teams::list;
    Post "/api/v1/runtime/teams" Admin "Make a team with its namespace" [] None, Body::Json("NewTeam") => Answer::Created("TeamAnswer"), post teams::create;
    Get "/api/v1/runtime/teams/{slug}" Caller "One team" [] None, Body::None => Answer::Json("TeamAnswer"), get teams::get;
    Patch "/api/v1/runtime/teams/{slug}" Caller "Rename a team" [] None, Body::Json("TeamChange") => Answer::Json("TeamAnswer"), patch teams::rename;
    Delete "/api/v1/runtime/teams/{slug}" Caller "Remove a team whose namespace is empty" [] None, Body::None => Answer::Json("TeamAnswer"), delete teams::remove;
    Get "/api/v1/runtime/teams/{slug}/members" Caller "Who is in a team" [] None, Body::None => Answer::Json("Members"), get teams::members;
    Post "/api/v1/runtime/teams/{slug}/members" Caller "Add an account to a team, or change its role there" [] None, Body::Json("NewMember") => Answer::Json("MemberAnswer"), post teams::add_member;
    Put "/api/v1/runtime/teams/{slug}/members/{user}" Caller "Set somebody's role in a team" [] None, Body::Json("MemberChange") => Answer::Json("MemberAnswer"), put teams::set_member;
    Delete "/api/v1/runtime/teams/{slug}/members/{user}" Caller "Take somebody out of a team; everybody may leave" [] None, Body::None => Answer::Json("Done"), delete teams::remove_member;
    Post "/api/v1/runtime/teams/{slug}/users" Caller "Make an account in a team; one that is there just joins" [] None, Body::Json("TeamUser") => Answer::Put("UserAnswer"), post teams::create_user;
    Get "/api/v1/runtime/namespaces" Caller "The namespaces one may see" [] None, Body::None => Answer::Json("Namespaces"), get teams::namespaces;
    Get "/api/v1/runtime/namespaces/{name}" Caller "One namespace" [] None, Body::None => Answer::Json("NamespaceAnswer"), get teams::namespace;
    Get "/api/v1/runtime/servers" Caller "The servers one may see" [OBJECTS, SEARCH] None, Body::None => Answer::Json("Servers"), get servers::list;
    Post "/api/v1/runtime/servers" Caller "Publish a server, or with `update` replace it" [DRY_RUN] None, Body::Json("Publication") => Answer::Put("ServerAnswer"), post servers::publish;
    Post "/api/runtime/servers" Caller "The same, under the predecessor's other path" [DRY_RUN] None, Body::Json("Publication") => Answer::Put("ServerAnswer"), post servers::publish;
    Get "/api/v1/runtime/servers/{namespace}/{name}" Caller "One server" [] None, Body::None => Answer::Json("ServerAnswer"), get servers::get;
    Delete "/api/v1/runtime/servers/{namespace}/{name}" Caller "Retire a server, with its grants and sessions" [DRY_RUN] None, Body::None => Answer::Json("RemovedServer"), delete servers::retire;
    Get "/api/v1/runtime/servers/{namespace}/{name}/policy" Caller "The policy of a server as its gateway gets it, for whoever administers it" [] None, Body::None => Answer::Json("PolicyAnswer"), get policy::inspect;
    Get "/api/v1/runtime/policy" Caller "The same, under the predecessor's other path" [OF_NAMESPACE, OF_SERVER] None, Body::None => Answer::Json("PolicyAnswer"), get policy::inspect_named;
    Post "/api/v1/runtime/policy/explain" Caller "Why a call is decided as it is, check by check; about oneself, or anybody for whoever administers the server" [] None, Body::Json("PolicyQuestion") => Answer::Json("Explanation"), post policy::why;
    Post "/api/v1/runtime/policy/diff" Caller "Who would gain and who would lose by a change of grants or of the server; changes nothing" [] None, Body::Json("PolicyThought") => Answer::Json("PolicyDifference"), post policy::compare;
    Get "/api/v1/runtime/tools" Caller "The tools of the servers one may see: what is declared, and what their gateways saw them list" [TOOL_ROWS] None, Body::None => Answer::Json("ToolCatalogue"), get tools::list;
    Get "/api/v1/runtime/grants" Caller "Grants of servers one administers, and those about oneself" [OBJECTS, OF_SERVER] None, Body::None => Answer::Json("Grants"), get grants::list_grants;
    Post "/api/v1/runtime/grants" Caller "Make or replace a grant" [DRY_RUN] None, Body::Json("GrantWish") => Answer::Json("GrantAnswer"), post grants::apply_grant;
    Get "/api/v1/runtime/grants/{namespace}/{name}" Caller "One grant" [] None, Body::None => Answer::Json("GrantAnswer"), get grants::get_grant;
    Patch "/api/v1/runtime/grants/{namespace}/{name}" Caller "Switch a grant on or off" [DRY_RUN] None, Body::Json("GrantChange") => Answer::Json("GrantAnswer"), patch grants::change_grant;
    Delete "/api/v1/runtime/grants/{namespace}/{name}" Caller "Remove a grant" [DRY_RUN] None, Body::None => Answer::Json("Removed"), delete grants::delete_grant;
    Post "/api/v1/runtime/grants/{namespace}/{name}/enable" Caller "Switch a grant on" [DRY_RUN] None, Body::None => Answer::Json("GrantAnswer"), post grants::enable_grant;
    Post "/api/v1/runtime/grants/{namespace}/{name}/disable" Caller "Switch a grant off" [DRY_RUN] None, Body::None => Answer::Json("GrantAnswer"), post grants::disable_grant;
    Get "/api/v1/runtime/sessions" Caller "Sessions of servers one administers, and one's own" [OBJECTS, OF_SERVER] None, Body::None => Answer::Json("Sessions"), get grants::list_sessions;
    Post "/api/v1/runtime/sessions" Admin "Make or replace a session" [DRY_RUN] None, Body::Json("SessionWish") => Answer::Json("SessionAnswer"), post grants::apply_session;
    Get "/api/v1/runtime/sessions/{namespace}/{name}" Caller "One session" [] None, Body::None => Answer::Json("SessionAnswer"), get grants::get_session;
    Patch "/api/v1/runtime/sessions/{namespace}/{name}" Caller "Revoke a session, or undo that" [DRY_RUN] None, Body::Json("SessionChange") => Answer::Json("SessionAnswer"), patch grants::change_session;
    Delete "/api/v1/runtime/sessions/{namespace}/{name}" Caller "Remove a session" [DRY_RUN] None, Body::None => Answer::Json("Removed"), delete grants::delete_session;
    Post "/api/v1/runtime/sessions/{namespace}/{name}/revoke" Caller "End a session before its time, until that is undone" [DRY_RUN] None, Body::None => Answer::Json("SessionAnswer"), post grants::revoke_session;
    Post "/api/v1/runtime/sessions/{namespace}/{name}/unrevoke" Caller "Undo a revocation" [DRY_RUN] None, Body::None => Answer::Json("SessionAnswer"), post grants::unrevoke_session;
    Get "/api/v1/runtime/adapter/sessions" Caller "One's own sessions that adapters hold, newest first" [ADAPTER_SESSIONS, OF_SERVER] None, Body::None => Answer::Json("AdapterSessions"), get adapter::list;
    Post "/api/v1/runtime/adapter/sessions" Caller "Issue a session for an agent of one's own, as far as grants reach; its credential is in this answer and never again" [] None, Body::Json("AdapterSessionWish") => Answer::Created("UsableSession"), post adapter::issue;
    Post "/api/v1/runtime/adapter/sessions/{namespace}/{name}/refresh" Caller "Let one's session go on; the credential stays" [] None, Body::Optional("AdapterSessionRefresh") => Answer::Json("UsableSession"), post adapter::refresh;
    Delete "/api/v1/runtime/adapter/sessions/{namespace}/{name}" Caller "End a session of one's own, or of a server one administers" [] None, Body::None => Answer::Json("Removed"), delete adapter::end;
    Get "/api/v1/runtime/adapter/anonymous/{name}" Nobody "Where a public server is, and which methods it answers to callers whom nobody knows" [] None, Body::None => Answer::Json("AnonymousServer"), get adapter::anonymous;
    Get "/api/v1/registry/token" Nobody "A token for the registry, as the distribution specification has it: `service`, and `scope` as often as needed" [] None, Body::None => Answer::Json("RegistryToken"), get registry::token;
    Get "/api/v1/registry/jwks" Nobody "The key that these tokens are signed with, for the registry's `auth.token.jwks`" [] None, Body::None => Answer::Json("Jwks"), get registry::keys;
    Get "/api/v1/registry/authz" Nobody "Whether a proxy in front of a registry may let the request of `X-Forwarded-Method` and `X-Forwarded-Uri` pass" [] None, Body::None => Answer::Empty, get registry::authorize;
}
