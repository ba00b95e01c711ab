//! Whatever is sent, the answer is one of those described, and never a fault of ours: Schemathesis asks over a socket.

use std::process::Command;

use platform_api::{ControlConfig, RegistryTokens};
use serde_json::json;
use service_kit::Stage;
use service_kit::http::HttpLimits;

use crate::control::Platform;

const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/services/install.sh");
/// Streams without an end.
const LEFT_OUT: [&str; 2] = ["/api/v1/events/stream", "/api/v1/sentinel/logs/{component}"];
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// The folder of the services' programs, or why there is none.
fn installed() -> Result<String, String> {
    let done = Command::new(INSTALL).arg("schemathesis").output().unwrap();
    if done.status.success() {
        Ok(String::from_utf8(done.stdout).unwrap().trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "in CI a missing part is a fault")]
async fn every_answer_is_one_of_those_described() {
    let services = match tokio::task::spawn_blocking(installed).await.unwrap() {
        Ok(services) => services,
        Err(why) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {why}");
            return;
        }
        Err(why) => panic!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let provider = oidc_service::Provider::start();
    let tokens = RegistryTokens::open(&folder.path().join("key.pem"), "mcp-runtime", "registry").unwrap();
    let config = ControlConfig {
        registry_tokens: Some(tokens),
        ..crate::oidc::config(&provider, "cli")
    };
    let platform = Platform::with(config).await;
    platform.world.store.fill(20).await;
    let wish = json!({"name": "stranger", "rights": ["write", "adapter", "pull", "push"]});
    let made = platform.done("POST", "/api/v1/user/api-keys", &platform.root, wish).await;
    let key = made["api_key"].as_str().unwrap();
    let tasks = platform.world.running.tasks();
    let listener = service_kit::http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let app = platform.world.app.clone();
    let address = service_kit::http::serve("platform-api", listener, app, HttpLimits::default(), &tasks, Stage::Query).unwrap();
    let mut asking = Command::new(format!("{services}/schemathesis/bin/schemathesis"));
    asking
        .current_dir(&folder)
        .args(["run", &format!("http://{address}/api/v1/openapi.json")])
        .args(["--header", &format!("x-api-key: {key}"), "--checks", CHECKS])
        .args(["--phases", "coverage", "--seed", "1", "--workers", "2"])
        .args(["--request-timeout", "20", "--no-color", "--generation-database", "none"])
        .args(LEFT_OUT.iter().flat_map(|path| ["--exclude-path", path]));
    let asked = tokio::task::spawn_blocking(move || asking.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&asked.stdout);
    assert!(asked.status.success(), "{told}\n{}", String::from_utf8_lossy(&asked.stderr));
}
