//! The whole way on a cluster: manifests by `kubectl`, a sidecar before a server, an official client, a revocation.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use operator::object::{Kind, text};
use serde_json::{Value, json};
use service_kit::http::{HttpLimits, bind, serve};
use service_kit::{Stage, Tasks};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::cluster::{root, services, variable};
use crate::harness::{OWN_POLICIES, World, guide, wait};
use crate::node::Node;

const KEY: &str = "key-of-this-namespace";

/// An ingest that takes what comes with the namespace's key, and remembers it.
#[derive(Clone, Default)]
struct Ingest(Arc<Mutex<Vec<Value>>>);

impl Ingest {
    /// Starts it, and gives its address.
    fn start(&self, tasks: &Tasks) -> String {
        let ingest = self.clone();
        let take = async move |headers: http::HeaderMap, body: String| {
            if headers.get("x-api-key").is_none_or(|key| key != KEY) {
                return http::StatusCode::UNAUTHORIZED;
            }
            let events = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            ingest.0.lock().unwrap().extend(events);
            http::StatusCode::ACCEPTED
        };
        let app = axum::Router::new().route("/events", axum::routing::post(take));
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = serve("ingest", listener, app, HttpLimits::default(), tasks, Stage::Admin).unwrap();
        format!("http://{address}/events")
    }

    /// Calls of a tool that were recorded, by decision.
    fn calls(&self, tool: &str, decision: &str) -> usize {
        let events = self.0.lock().unwrap();
        let of_tool = events.iter().map(ToString::to_string).filter(|event| event.contains(tool));
        of_tool.filter(|event| event.contains(&format!("\"{decision}\""))).count()
    }
}

/// The official Python SDK, connected to a server.
struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn connect(url: &str, token: &str) -> Option<Self> {
        let python = services().join("mcp2/bin/python");
        if !python.exists() {
            assert!(
                variable("CI").is_none(),
                "no Python SDK; run tests/services/install.sh python"
            );
            println!("skipped: no Python SDK; run tests/services/install.sh python");
            return None;
        }
        let mut process = Command::new(python)
            .arg(root().join("tests/services/kubernetes/call.py"))
            .arg(url)
            .arg(format!("X-MCP-Agent-Session={token}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        })
    }

    fn call(&mut self, tool: &str) -> Value {
        writeln!(self.input, "{}", json!({ "name": tool, "arguments": {} })).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("the client answers each line")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _waited = self.process.wait();
    }
}

fn access(namespace: &str, session: &str) -> String {
    let hash = hex::encode(Sha256::digest(format!("token-of-{session}")));
    format!(
        "---\napiVersion: mcpruntime.org/v1alpha1\nkind: MCPAccessGrant\nmetadata: {{name: cursor, namespace: {namespace}}}\n\
         spec:\n  serverRef: {{name: payments}}\n  subject: {{agentID: cursor}}\n  maxTrust: high\n  allowedSideEffects: [read]\n\
         ---\napiVersion: mcpruntime.org/v1alpha1\nkind: MCPAgentSession\nmetadata: {{name: {session}, namespace: {namespace}}}\n\
         spec:\n  serverRef: {{name: payments}}\n  subject: {{humanID: ada, agentID: cursor}}\n  consentedTrust: medium\n  tokenHash: sha256:{hash}\n"
    )
}

/// Whoever does not show the token of one of the server's pods is refused.
async fn strangers_get_no_policy(world: &World, policies: &str) {
    let mut config = kube::Config::new(policies.parse().unwrap());
    config.accept_invalid_certs = true;
    let client = kube::Client::try_from(config).unwrap();
    let ask = async |server: &str, token: &str| {
        let request = http::Request::get(format!("/policies/{}/{server}", world.namespace))
            .header("authorization", format!("Bearer {token}"))
            .body(kube::client::Body::empty())
            .unwrap();
        client.send(request).await.unwrap().status().as_u16()
    };
    let token = |more: &[&str]| {
        let create = ["create", "token", "-n", &world.namespace, "default"];
        world.cluster.kubectl(&[&create[..], more].concat(), "").unwrap()
    };
    let pods = world
        .cluster
        .kubectl(&["get", "pods", "-n", &world.namespace, "-o=name"], "")
        .unwrap();
    let pod = pods.trim().trim_start_matches("pod/");
    let of_pod = ["--bound-object-kind", "Pod", "--bound-object-name", pod];
    let for_us = ["--audience", "mcp-operator"];
    for (what, server, token, expected) in [
        ("nobody", "payments", String::new(), 401),
        ("a made-up token", "payments", "a.b.c".to_owned(), 401),
        ("an account without a pod", "payments", token(&for_us), 401),
        ("a pod's token for somebody else", "payments", token(&of_pod), 401),
        (
            "a pod of another server",
            "other",
            token(&[&of_pod[..], &for_us].concat()),
            403,
        ),
        (
            "a pod of the server",
            "payments",
            token(&[&of_pod[..], &for_us].concat()),
            200,
        ),
    ] {
        assert_eq!(ask(server, &token).await, expected, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_server_answers_a_client_and_a_revocation_is_in_force_within_a_second() {
    const NAMESPACE: &str = "op-pods";
    let Some(world) = World::new(NAMESPACE).await else { return };
    let Some(mut node) = Node::new(&world) else { return };
    let ingest = Ingest::default();
    let running = Tasks::for_test();
    let operator = world
        .operator(&["--ingest-url", &ingest.start(&running.tasks()), OWN_POLICIES])
        .await;
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: mcp-sentinel-ingest-key, namespace: {NAMESPACE}}}\nstringData: {{api-key: {KEY}}}\n"
    );
    world.apply(&secret);
    world.apply(
        &(guide(NAMESPACE)
            + "    stripPrefix: /payments\n  tools: [{name: list_invoices, sideEffect: read}]\n"
            + &access(NAMESPACE, "first")),
    );
    node.until(&world, "payments", "to be ready", |server| {
        text(server, "/status/phase") == "Ready"
    })
    .await;
    node.until(&world, "payments", "to know what its gateway runs", |server| {
        server["status"]["policy"]["activeReplicas"] == 1
    })
    .await;

    strangers_get_no_policy(&world, &operator.policies).await;

    let url = format!("http://127.0.0.1:{}/payments/mcp", node.ports("gateway")[0]);
    let mut quickest = Duration::MAX;
    for session in ["first", "second", "third"] {
        world.apply(&access(NAMESPACE, session));
        let Some(mut client) = Client::connect(&url, &format!("token-of-{session}")) else {
            return;
        };
        // A new session, too, is there as soon as the gateway has been told.
        wait("a call to be allowed", || {
            let answer = client.call("list_invoices");
            async move { (answer["ok"] == true).then_some(()) }
        })
        .await;
        assert!(client.call("refund_invoice")["refused"].is_string(), "nobody granted that");
        let change = json!({ "spec": { "revoked": true } });
        world.edit(Kind::Session, session, &change).await;
        let start = Instant::now();
        let refused = wait("a call to be refused", || {
            let answer = client.call("list_invoices");
            async move { answer["refused"].is_string().then_some(answer) }
        })
        .await;
        quickest = quickest.min(start.elapsed());
        assert!(refused.to_string().contains("revoked"), "{refused}");
    }
    println!("a revocation was in force after {quickest:?}");
    // The machine may be busy with other things; it is not three times in a row.
    assert!(quickest < Duration::from_secs(1), "{quickest:?}\n{}", node.logs());
    wait("the events", || async {
        (ingest.calls("list_invoices", "allow") >= 3 && ingest.calls("list_invoices", "deny") >= 3).then_some(())
    })
    .await;
    let server = node
        .until(&world, "payments", "to say that the gateway knows", |server| {
            let conditions = server["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|condition| condition["reason"] == "AllAcknowledged")
        })
        .await;
    assert_eq!(server["status"]["policy"]["activeReplicas"], 1);
    drop(node);
    world.clean().await;
    operator.stop().await;
}
