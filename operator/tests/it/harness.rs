//! A running operator, and a hand in the cluster beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use operator::metrics::OperatorMetrics;
use operator::object::{Kind, text};
use operator::{Args, Config};
use serde_json::{Value, json};
use service_kit::{Metrics, Running, Tasks};
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::cluster::{Cluster, cluster};

/// Among an operator's options: gateways are told of its true port.
pub(crate) const OWN_POLICIES: &str = "own-policies";
/// Longest wait for anything. Machines of tests are slow and shared.
const DEADLINE: Duration = Duration::from_secs(90);

/// A world of its own for one test: a namespace, and the cluster for as long as the test runs.
pub(crate) struct World {
    pub(crate) cluster: MutexGuard<'static, Cluster>,
    pub(crate) admin: kube::Client,
    pub(crate) namespace: String,
}

/// An operator that runs.
pub(crate) struct Operator {
    pub(crate) running: Running,
    /// Where gateways may wait for their policy.
    pub(crate) policies: String,
    pub(crate) metrics: Arc<OperatorMetrics>,
}

impl World {
    /// Installs definitions and roles, and makes the namespace. `None`: there is no cluster.
    pub(crate) async fn new(namespace: &str) -> Option<Self> {
        let cluster = cluster().await?;
        let admin = cluster.admin().await;
        let world = Self {
            cluster,
            admin,
            namespace: namespace.to_owned(),
        };
        world.apply(&operator::print::crds());
        world
            .cluster
            .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "")
            .unwrap();
        if world.cluster.is_ours() {
            // What a failed test left behind must not count as this one's.
            world
                .cluster
                .kubectl(&["delete", "mcps,mcpg,mcpsess", "--all", "--all-namespaces"], "")
                .unwrap();
        }
        for namespace in ["mcp-runtime", namespace] {
            world.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"));
        }
        world.apply(&operator::print::yaml(&operator::rbac::objects()));
        Some(world)
    }

    /// Starts an operator with these options, and waits until it knows everything.
    pub(crate) async fn operator(&self, options: &[&str]) -> Operator {
        let operator = self.operator_at_work(options).await;
        wait("the operator to know everything", || async {
            operator
                .running
                .tasks()
                .ready_report()
                .conditions
                .iter()
                .all(|condition| condition.ready || condition.name == "started")
                .then_some(())
        })
        .await;
        operator
    }

    async fn operator_at_work(&self, options: &[&str]) -> Operator {
        // A host of its own for each test: what another one left behind claims no route of this one.
        let host = &*format!("{}.example.com", self.namespace);
        let tls = service_kit::http::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let policies = format!("https://{}", tls.local_addr().unwrap());
        // The same for every operator of a test, unless it is about gateways: another address would be another pod.
        let base = [
            "mcp-operator",
            "--policy-url",
            if options.contains(&OWN_POLICIES) {
                &policies
            } else {
                "https://127.0.0.1:9443"
            },
            "--ingress-readiness",
            "permissive",
            "--ingress-host",
            host,
            "--gateway-image",
            "mcp-gateway:test",
        ];
        let options: Vec<&str> = options.iter().copied().filter(|option| *option != OWN_POLICIES).collect();
        let args = Args::try_parse_from([&base[..], &options].concat()).unwrap();
        let running = Tasks::for_test();
        let metrics = Metrics::clone(running.tasks().metrics());
        let client = self.cluster.operator(&metrics).await;
        let admin = service_kit::http::bind(([127, 0, 0, 1], 0).into()).unwrap();
        operator::serve(
            Config::try_from(args.operator).unwrap(),
            &client,
            admin,
            tls,
            &running.tasks(),
        )
        .unwrap();
        Operator {
            policies,
            metrics: OperatorMetrics::shared(&metrics),
            running,
        }
    }

    pub(crate) fn apply(&self, yaml: &str) {
        self.try_apply(yaml).unwrap();
    }

    pub(crate) fn try_apply(&self, yaml: &str) -> Result<String, String> {
        self.cluster
            .kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], yaml)
    }

    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.admin.clone(), &self.namespace, &kind.resource())
    }

    /// An object as it is; nothing while the API server does not answer, so that waits go on.
    pub(crate) async fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        let found = self.api(kind).get_opt(name).await.ok().flatten();
        found.map(|object| serde_json::to_value(object).unwrap())
    }

    /// Waits until an object says what is expected.
    pub(crate) async fn until(&self, kind: Kind, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let found = self.get(kind, name).await;
            if let Some(found) = found.as_ref().filter(|found| holds(found)) {
                return found.clone();
            }
            assert!(
                start.elapsed() < DEADLINE,
                "waiting for {kind} {name} {what}; it is {found:#?}"
            );
            pause().await;
        }
    }

    pub(crate) async fn until_gone(&self, kind: Kind, name: &str) {
        wait(&format!("{kind} {name} to go"), || async {
            self.get(kind, name).await.is_none().then_some(())
        })
        .await;
    }

    pub(crate) async fn until_phase(&self, name: &str, phase: &str) -> Value {
        self.until(Kind::Server, name, &format!("to be {phase}"), |object| {
            text(object, "/status/phase") == phase
        })
        .await
    }

    /// Merges fields into an object, as somebody else would.
    pub(crate) async fn edit(&self, kind: Kind, name: &str, change: &Value) {
        self.api(kind)
            .patch(name, &PatchParams::default(), &Patch::Merge(change))
            .await
            .unwrap();
    }

    /// What a node does: every pod of the server starts and is ready.
    pub(crate) async fn run_pods(&self, server: &str, wanted: usize) {
        let pods: Vec<DynamicObject> = wait(&format!("{wanted} pods of {server}"), || async {
            let pods = self
                .api(Kind::Pod)
                .list(&ListParams::default().labels(&format!("app={server}")))
                .await
                .unwrap()
                .items;
            (pods.len() >= wanted).then_some(pods)
        })
        .await;
        for pod in pods {
            let status = json!({ "status": { "phase": "Running", "conditions": [
                { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
                { "type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            ] } });
            self.set_pod_status(pod.metadata.name.as_deref().unwrap(), &status).await;
        }
    }

    pub(crate) async fn set_pod_status(&self, name: &str, status: &Value) {
        // A pod may be replaced in the meantime.
        let _gone = self
            .api(Kind::Pod)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await;
    }

    /// Deletes what the test made, so that the next test's operator has nothing to do with it. A connection from before a restart of the
    /// API server breaks when it is used next, so a request that fails is made again.
    pub(crate) async fn clean(&self) {
        for kind in [Kind::Grant, Kind::Session, Kind::Server] {
            wait(&format!("every {kind} to be deleted"), || async {
                let all = ListParams::default();
                self.api(kind).delete_collection(&DeleteParams::default(), &all).await.ok()
            })
            .await;
        }
        for kind in [Kind::Deployment, Kind::ConfigMap] {
            let ours = ListParams::default().labels("app.kubernetes.io/managed-by=mcp-runtime");
            wait_long(&format!("every {kind} to go"), || async {
                self.api(kind).list(&ours).await.ok()?.items.is_empty().then_some(())
            })
            .await;
        }
    }
}

impl Operator {
    pub(crate) async fn stop(self) {
        let report = self.running.stop().await;
        assert!(report.is_clean(), "{report:?}");
    }

    /// Requests that change something, by verb and resource; nothing of leases.
    pub(crate) fn writes(&self) -> BTreeMap<String, u64> {
        let resources = [Kind::Server, Kind::Grant, Kind::Session, Kind::Event]
            .into_iter()
            .chain(Kind::OWNED)
            .map(|kind| kind.names().3);
        let mut counts = BTreeMap::new();
        for resource in resources {
            for verb in ["create", "patch", "update", "delete", "patch_status"] {
                let count = self.metrics.requests(verb, resource);
                if count > 0 {
                    counts.insert(format!("{verb} {resource}"), count);
                }
            }
        }
        counts
    }

    /// Writes since an earlier count.
    pub(crate) fn writes_since(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let now = self.writes().into_iter();
        now.map(|(what, count)| {
            let since = count - before.get(&what).copied().unwrap_or_default();
            (what, since)
        })
        .filter(|(_, count)| *count > 0)
        .collect()
    }

    /// Waits until nothing waits for a pass, and nothing was written for a while.
    pub(crate) async fn settle(&self) {
        let (mut last, mut same) = (self.writes(), 0);
        wait_long("the operator to settle", || {
            let now = self.writes();
            let quiet = now == last && self.metrics.waiting.get() == 0 && self.metrics.running.get() == 0;
            same = if quiet { same + 1 } else { 0 };
            last = now;
            let done = same >= 15;
            async move { done.then_some(()) }
        })
        .await;
    }
}

/// Asks again and again, until there is an answer.
pub(crate) async fn wait<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    wait_up_to(DEADLINE, what, ask).await
}

/// As [`wait`], for what takes as long as there are many objects.
pub(crate) async fn wait_long<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    wait_up_to(DEADLINE * 10, what, ask).await
}

async fn wait_up_to<T, F: Future<Output = Option<T>>>(deadline: Duration, what: &str, mut ask: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < deadline, "waiting for {what}");
        pause().await;
    }
}

/// Time between two questions.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

pub(crate) const GUIDE: &str = "apiVersion: mcpruntime.org/v1alpha1
kind: MCPServer
metadata:
  name: payments
  namespace: NAMESPACE
spec:
  description: Payments MCP server for invoice lookup and refund workflows.
  image: registry.example.com/payments
  imageTag: v1.0.0
  port: 8088
  publicPathPrefix: payments
  gateway:
    enabled: true
";

/// The manifest of the publishing guide, in a namespace.
pub(crate) fn guide(namespace: &str) -> String {
    GUIDE.replace("NAMESPACE", namespace)
}

pub(crate) fn grant(namespace: &str, name: &str, server: &str) -> String {
    format!(
        "---\napiVersion: mcpruntime.org/v1alpha1\nkind: MCPAccessGrant\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  serverRef: {{name: {server}}}\n  subject: {{agentID: cursor}}\n  maxTrust: high\n  allowedSideEffects: [read]\n"
    )
}

pub(crate) fn session(namespace: &str, name: &str, server: &str) -> String {
    format!(
        "---\napiVersion: mcpruntime.org/v1alpha1\nkind: MCPAgentSession\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  serverRef: {{name: {server}}}\n  subject: {{humanID: ada, agentID: cursor}}\n  consentedTrust: medium\n"
    )
}
