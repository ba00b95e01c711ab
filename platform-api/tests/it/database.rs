//! The database seam: SQLite and PostgreSQL keep the same promises.
//!
//! Every story of the control half runs over SQLite here. [`the_stories_hold_on_postgresql`] starts a real PostgreSQL and runs this
//! program again with its address, so that each of them runs there too, in an empty database of its own.

use std::process::Command;

use platform_api::{ControlConfig, Database};
use serde_json::{Value, json};

use crate::control::{PASSWORD, Platform, server};

const VARIABLE: &str = "PLATFORM_API_TEST_POSTGRES";
/// Modules whose tests are stories of the control half.
const STORIES: [&str; 8] = [
    "adapter::",
    "database::",
    "identity::",
    "matrix::",
    "oidc::",
    "policy::",
    "registry::",
    "servers::",
];

#[expect(clippy::disallowed_methods, reason = "how this program tells itself where PostgreSQL is")]
fn postgres() -> Option<postgres_service::Address> {
    postgres_service::Address::of_word(&std::env::var(VARIABLE).ok()?)
}

/// The address of an empty database.
pub(crate) fn fresh(folder: &tempfile::TempDir) -> String {
    match postgres() {
        Some(server) => server.create(),
        None => format!("sqlite:{}?mode=rwc", folder.path().join("platform.db").display()),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "in CI a missing part is a fault")]
fn the_stories_hold_on_postgresql() {
    if postgres().is_some() {
        return;
    }
    let server = match postgres_service::Server::start() {
        Ok(server) => server,
        Err(why) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {why}");
            return;
        }
        Err(why) => panic!("{why}"),
    };
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--test-threads", "4"])
        .args(STORIES)
        .env(VARIABLE, server.address().to_word())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{told}\n{}", String::from_utf8_lossy(&done.stderr));
    let ran = told.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(ran > 25, "only {ran} stories ran:\n{told}");
}

#[tokio::test]
async fn several_processes_bring_an_empty_database_to_this_version_at_once() {
    if postgres().is_none() {
        // A SQLite file has one process, which holds its folder.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let address = fresh(&folder);
    let opened = futures::future::join_all((0..4).map(|_| Database::open(&address))).await;
    for database in opened {
        database.unwrap().close().await;
    }
    Database::open(&address).await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_version_still_opens() {
    sqlx::any::install_default_drivers();
    let folder = tempfile::tempdir().unwrap();
    let address = fresh(&folder);
    Database::open(&address).await.unwrap().close().await;
    let pool = sqlx::AnyPool::connect(&address).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9999, 'of the future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    Database::open(&address).await.unwrap();
}

#[tokio::test]
async fn a_quota_holds_against_publications_at_once() {
    let config = ControlConfig {
        servers_max: Some(3),
        ..ControlConfig::default()
    };
    let platform = Platform::with(config).await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let names: Vec<_> = (0..12).map(|number| format!("server-{number}")).collect();
    let tries = names.iter().map(async |name| {
        platform
            .ask("POST", "/api/v1/runtime/servers", Some(&ada), &server(name))
            .await
            .0
    });
    let mut answers = futures::future::join_all(tries).await;
    answers.sort_unstable();
    assert_eq!(answers, [[201; 3].as_slice(), [429; 9].as_slice()].concat());
}

#[tokio::test]
async fn a_team_or_an_account_is_made_once() {
    let platform = Platform::new().await;
    let made = async |path: &str, body: Value| {
        let tries = (0..8).map(|_| platform.ask("POST", path, Some(&platform.root), &body));
        let answers = futures::future::join_all(tries).await;
        answers.iter().filter(|(status, _)| *status == 201).count()
    };
    assert_eq!(made("/api/v1/runtime/teams", json!({"slug": "acme"})).await, 1);
    let account = json!({"email": "ada@example.com", "password": PASSWORD});
    assert_eq!(made("/api/v1/users", account).await, 1);
}

#[tokio::test]
async fn pages_come_in_the_order_of_bytes_and_meet() {
    let platform = Platform::new().await;
    for slug in ["b", "a-1", "a", "a1", "z"] {
        platform
            .done("POST", "/api/v1/runtime/teams", &platform.root, json!({"slug": slug}))
            .await;
    }
    let (mut seen, mut next) = (Vec::new(), Some("/api/v1/runtime/teams?limit=2".to_owned()));
    while let Some(uri) = next {
        let page = platform.done("GET", &uri, &platform.root, Value::Null).await;
        let teams = page["teams"].as_array().unwrap();
        seen.extend(teams.iter().map(|team| team["slug"].as_str().unwrap().to_owned()));
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, ["a", "a-1", "a1", "b", "z"]);
}

#[tokio::test]
async fn what_is_removed_leaves_nothing_behind_and_frees_its_name() {
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let done = async |method: &str, uri: &str, body: Value| platform.done(method, uri, &ada, body).await;
    done("POST", "/api/v1/runtime/servers", server("payments")).await;
    let grant = json!({
        "name": "cursor", "namespace": "mcp-team-acme", "serverRef": {"name": "payments"}, "subject": {"agentID": "cursor"},
        "allowedSideEffects": ["read"],
    });
    done("POST", "/api/v1/runtime/grants", grant).await;
    let wish = json!({"serverName": "payments", "agentID": "cursor"});
    done("POST", "/api/v1/runtime/adapter/sessions", wish.clone()).await;
    let session = done("POST", "/api/v1/runtime/adapter/sessions", wish).await;
    let counts = async || {
        let summary = done("GET", "/api/v1/dashboard/summary", Value::Null).await;
        [
            &summary["published_servers"],
            &summary["active_grants"],
            &summary["open_sessions"],
        ]
        .map(|count| count.as_u64().unwrap())
    };
    assert_eq!(counts().await, [1, 1, 2]);
    let name = session["name"].as_str().unwrap();
    let revoke = format!("/api/v1/runtime/sessions/mcp-team-acme/{name}/revoke");
    done("POST", &revoke, Value::Null).await;
    assert_eq!(counts().await, [1, 1, 1], "what is revoked is not open");
    let gone = done("DELETE", "/api/v1/runtime/servers/mcp-team-acme/payments", Value::Null).await;
    assert_eq!(gone["removed"].as_array().unwrap().len(), 3, "{gone}");
    assert_eq!(counts().await, [0, 0, 0]);
    done("DELETE", "/api/v1/runtime/teams/acme", Value::Null).await;
    let again = json!({"slug": "acme"});
    platform.done("POST", "/api/v1/runtime/teams", &platform.root, again).await;
}
