//! Objects in Kubernetes: the same promises as the database keeps, on a real API server.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crds::cluster::definitions;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::{Api, Client};
use platform_api::objects::Objects;
use platform_api::objects::kubernetes::KubernetesObjects;
use platform_api::{ControlConfig, Database};
use serde_json::{Value, json};
use service_kit::Tasks;

use crate::control::{Platform, server};
use crate::world::{DEADLINE, soon};

const NONE: Value = Value::Null;
const SERVERS: &str = "/api/v1/runtime/servers";

/// A control plane of one's own, which ends with this value.
struct Cluster {
    process: Child,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "in CI a missing part is a fault")]
async fn cluster() -> Option<Cluster> {
    let start = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/services/kubernetes/start");
    let folder = tempfile::tempdir().unwrap();
    let mut process = Command::new(start)
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "the control plane did not start");
        eprintln!("skipped: no control plane; run tests/services/install.sh kubernetes");
        return None;
    }
    drop(rustls::crypto::ring::default_provider().install_default());
    let file = Kubeconfig::read_from(line.trim()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    let cluster = Cluster {
        process,
        client: Client::try_from(config).unwrap(),
        _folder: folder,
    };
    cluster.define().await;
    Some(cluster)
}

impl Cluster {
    /// Makes the three kinds known, and waits until they are served.
    async fn define(&self) {
        let kind = ApiResource {
            group: "apiextensions.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            plural: "customresourcedefinitions".to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        for definition in definitions() {
            let definition: DynamicObject = serde_json::from_value(serde_json::to_value(definition).unwrap()).unwrap();
            api.create(&PostParams::default(), &definition).await.unwrap();
        }
        let served = async {
            loop {
                let all = ["mcpservers", "mcpaccessgrants", "mcpagentsessions"].map(|plural| self.api(plural));
                let mut is_served = true;
                for api in &all {
                    is_served &= api.list(&ListParams::default()).await.is_ok();
                }
                if is_served {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        soon("the definitions", served).await;
    }

    fn api(&self, plural: &str) -> Api<DynamicObject> {
        let kind = ApiResource {
            group: crds::GROUP.to_owned(),
            version: crds::VERSION.to_owned(),
            api_version: crds::API_VERSION.to_owned(),
            kind: String::new(),
            plural: plural.to_owned(),
        };
        Api::all_with(self.client.clone(), &kind)
    }
}

#[tokio::test]
async fn what_is_published_is_a_custom_resource() {
    let Some(cluster) = cluster().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&crate::database::fresh(&folder)).await.unwrap();
    let running = Tasks::for_test();
    let objects = Arc::new(KubernetesObjects::new(
        cluster.client.clone(),
        database.clone(),
        &running.tasks(),
    ));
    let mut changes = objects.changes();
    let config = ControlConfig {
        servers_max: Some(2),
        ..ControlConfig::default()
    };
    let kept: Arc<dyn Objects> = objects;
    let platform = Platform::over_objects(database, folder, config, kept).await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let made = platform.done("POST", SERVERS, &ada, server("payments")).await;
    assert_eq!(made["server"]["namespace"], "mcp-team-acme", "its namespace is made with it");
    let listed = cluster.api("mcpservers").list(&ListParams::default()).await.unwrap();
    let found = &listed.items[0];
    assert_eq!(
        (found.metadata.name.as_deref(), &found.data["spec"]["image"]),
        (Some("payments"), &json!("payments"))
    );
    tokio::time::timeout(DEADLINE, changes.changed()).await.unwrap().unwrap();
    refused_and_replaced(&platform, &ada, &made["server"]).await;
    // What somebody wrote with other tools is seen, and what they keep beside it stays.
    let api: Api<DynamicObject> = cluster.api("mcpservers");
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 2);
    let wish = json!({"serverName": "payments", "agentID": "cursor"});
    let grant = json!({
        "name": "cursor", "namespace": "mcp-team-acme", "serverRef": {"name": "payments"}, "subject": {"agentID": "cursor"},
        "allowedSideEffects": ["read"],
    });
    platform.done("POST", "/api/v1/runtime/grants", &ada, grant).await;
    let session = platform.done("POST", "/api/v1/runtime/adapter/sessions", &ada, wish).await;
    assert_eq!(session["phase"], "Active");
    let policy = format!("{SERVERS}/mcp-team-acme/payments/policy");
    let policy = platform.done("GET", &policy, &ada, NONE).await;
    assert_eq!(
        (&policy["policy"]["grants"][0]["name"], &policy["unread"]),
        (&json!("cursor"), &json!([]))
    );
    let gone = platform
        .done("DELETE", &format!("{SERVERS}/mcp-team-acme/payments"), &ada, NONE)
        .await;
    assert_eq!(gone["removed"].as_array().unwrap().len(), 2, "{gone}");
    let left = cluster.api("mcpagentsessions").list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.len(), 0);
    let event = platform.fact("server_retire").await;
    assert_eq!((event.namespace(), event.server()), ("mcp-team-acme", "payments"));
    assert!(running.stop().await.is_clean());
}

/// A quota, a schema, and a change made meanwhile are told as they are over the database.
async fn refused_and_replaced(platform: &Platform, ada: &str, made: &Value) {
    let again = platform.ask("POST", SERVERS, Some(ada), &server("payments")).await;
    assert_eq!((again.0, &again.1["error"]), (409, &json!("already_exists")));
    let mut update = server("payments");
    update["update"] = json!(true);
    update["spec"]["description"] = json!("Other invoices");
    let replaced = platform.done("POST", SERVERS, ada, update.clone()).await;
    assert_eq!(
        (&replaced["server"]["generation"], &replaced["server"]["uid"]),
        (&json!(2), &made["uid"])
    );
    assert!(replaced["server"]["revision"].as_i64() > made["revision"].as_i64());
    let late = http::Request::post(SERVERS)
        .header("authorization", format!("Bearer {ada}"))
        .header("content-type", "application/json")
        .header("if-match", format!("\"{}\"", made["revision"]))
        .body(update.to_string().into())
        .unwrap();
    assert_eq!(platform.world.send(late).await.status(), 409);
    platform.done("POST", SERVERS, ada, server("second")).await;
    let third = platform.ask("POST", SERVERS, Some(ada), &server("third")).await;
    assert_eq!((third.0, &third.1["error"]), (429, &json!("active_server_limit_reached")));
    update["spec"]["imageTag"] = json!("not a tag");
    let (status, answer) = platform.ask("POST", SERVERS, Some(ada), &update).await;
    assert_eq!((status, &answer["error"]), (422, &json!("invalid")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("imageTag"), "{answer}");
}
