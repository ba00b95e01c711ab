//! Client scenarios: a gateway between the official client and the suite's server changes nothing for the worse.
//!
//! Those of authorization are left out: the suite's servers are protected resources of their own, under their own address and with opaque
//! tokens, so that a client must not follow them through another address. What the gateway does as a protected resource is tested
//! with a real provider in its own tests.

use tempfile::TempDir;

use crate::suite::{Results, Status};

const SCENARIOS: [&str; 10] = [
    "initialize",
    "tools_call",
    "sse-retry",
    "elicitation-sep1034-client-defaults",
    "request-metadata",
    "sep-2322-client-request-state",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_sees_no_gateway() {
    let through = env!("CARGO_BIN_EXE_conformance-through");
    let (mut passed, mut worse) = (0, Vec::new());
    for scenario in SCENARIOS {
        let (before, after) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let direct = Results::of_client(scenario, "", before.path()).await;
        let governed = Results::of_client(scenario, through, after.path()).await;
        worse.extend(governed.worse_than(&direct));
        passed += governed.count(Status::Success);
    }
    assert!(worse.is_empty(), "worse through the gateway:\n{}", worse.join("\n"));
    assert!(passed >= 30, "{passed} checks passed");
}
