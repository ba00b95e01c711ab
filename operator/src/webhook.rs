//! Answers the API server before it takes objects in: refuses what the operator could not use, and fills in what people leave out.
//!
//! Optional: the schema refuses most of it without, and the status tells the rest. What is refused here is what needs to see more than one
//! object (a route that is taken, a server of another namespace), or a language of ours (amounts, conditions). `mcp-operator webhooks` prints the
//! configurations; whoever applies them switches this on. They are asked only while an operator answers, so its absence stops nobody.
//!
//! The configurations come without the authority that the API server is to believe us by: [`trust`] writes it into them, now and when it
//! changes, which is all the operator may do with them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use service_kit::error::Chain;
use service_kit::{Clock, Problem, Shutdown};
use tokio::sync::watch;

use crate::FIELD_MANAGER;
use crate::apply::status_code;
use crate::args::Settings;
use crate::authority::Held;
use crate::object::Kind;
use crate::watch::SharedWorld;

mod defaults;
mod review;

/// Name of both configurations.
pub const NAME: &str = "mcp-operator";
/// How often the configurations are looked for while nobody has applied them, or somebody may have applied them anew.
const LOOK_PAUSE: Duration = Duration::from_mins(1);
const AFTER_FAULT: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Context {
    world: SharedWorld,
    settings: Arc<Settings>,
    clock: Clock,
}

/// The routes that the API server asks.
pub fn routes(world: SharedWorld, settings: Arc<Settings>, clock: Clock) -> Router {
    Router::new()
        .route("/webhooks/validate", post(validate))
        .route("/webhooks/default", post(default))
        .with_state(Context { world, settings, clock })
}

async fn validate(State(context): State<Context>, Json(question): Json<Value>) -> Result<Json<Value>, Problem> {
    let now = domain::Timestamp::from_nanos(context.clock.unix_ns());
    let request = question
        .get("request")
        .ok_or_else(|| Problem::bad_request("an AdmissionReview has a request"))?;
    let review = context
        .world
        .with(|world| review::review(world, &context.settings, request, now));
    let mut response = json!({ "allowed": review.faults.is_empty(), "warnings": review.warnings });
    if !review.faults.is_empty() {
        response["status"] = json!({ "code": 422, "reason": "Invalid", "message": review.faults.join("; ") });
    }
    Ok(answer(request, response))
}

async fn default(State(context): State<Context>, Json(question): Json<Value>) -> Result<Json<Value>, Problem> {
    let now = domain::Timestamp::from_nanos(context.clock.unix_ns());
    let request = question
        .get("request")
        .ok_or_else(|| Problem::bad_request("an AdmissionReview has a request"))?;
    let patch = defaults::patch(&request["object"], now);
    let mut response = json!({ "allowed": true });
    if !patch.is_empty() {
        let patch = Value::Array(patch).to_string();
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(ByteString(patch.into_bytes()));
    }
    Ok(answer(request, response))
}

fn answer(request: &Value, mut response: Value) -> Json<Value> {
    response["uid"] = request["uid"].clone();
    Json(json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response }))
}

/// The configurations, as an administrator applies them.
pub fn configurations() -> Vec<Value> {
    let kinds = [Kind::Server, Kind::Grant, Kind::Session];
    let configuration = |kind: &str, hook: &str, path: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": { "name": NAME },
            "webhooks": [{
                "name": format!("{hook}.{}", crds::GROUP),
                "admissionReviewVersions": ["v1"],
                "clientConfig": { "service": { "name": NAME, "namespace": "mcp-runtime", "path": path, "port": 9443 } },
                // Without an operator the schema still holds, and the status tells what is wrong.
                "failurePolicy": "Ignore",
                "sideEffects": "None",
                "timeoutSeconds": 5,
                "rules": [{
                    "apiGroups": [crds::GROUP], "apiVersions": [crds::VERSION], "operations": ["CREATE", "UPDATE"],
                    "resources": kinds.map(|kind| kind.names().3), "scope": "Namespaced",
                }],
            }],
        })
    };
    vec![
        configuration("MutatingWebhookConfiguration", "default", "/webhooks/default"),
        configuration("ValidatingWebhookConfiguration", "validate", "/webhooks/validate"),
    ]
}

/// Writes the authority into the configurations, whenever it changes, and again in case somebody applied them anew.
pub async fn trust(client: Client, mut held: watch::Receiver<Option<Held>>, stop: Shutdown) {
    let mut said = false;
    loop {
        let authorities = held.borrow_and_update().as_ref().map(|held| Arc::clone(&held.authorities));
        let mut pause = LOOK_PAUSE;
        if let Some(authorities) = authorities {
            let validating = believe::<ValidatingWebhookConfiguration>(&client, "validate", &authorities).await;
            let mutating = believe::<MutatingWebhookConfiguration>(&client, "default", &authorities).await;
            match validating.and(mutating) {
                Ok(()) => said = false,
                Err(error) => {
                    pause = AFTER_FAULT;
                    if !said {
                        tracing::warn!(error = %Chain(&error), "the API server cannot be told of our certificate; trying again");
                    }
                    said = true;
                }
            }
        }
        let changed = async {
            tokio::select! {
                _changed = held.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        };
        if stop.or(changed).await.is_none() {
            return;
        }
    }
}

async fn believe<K>(client: &Client, hook: &str, authorities: &str) -> Result<(), kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let bundle = ByteString(authorities.as_bytes().to_vec());
    // Webhooks of a list are merged by name.
    let patch = json!({ "webhooks": [{ "name": format!("{hook}.{}", crds::GROUP), "clientConfig": { "caBundle": bundle } }] });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match Api::<K>::all(client.clone())
        .patch(NAME, &params, &Patch::Strategic(patch))
        .await
    {
        Ok(_) => Ok(()),
        // Nobody has applied them.
        Err(error) if status_code(&error) == Some(404) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
