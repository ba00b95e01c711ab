//! A node of sorts: runs the pods of a namespace as processes of this machine.
//!
//! It does what a kubelet does, as far as governed servers need it: containers get their environment and their volumes (`ConfigMap`s,
//! Secrets, projected tokens), are probed, and the pod's status says what became of them. Since all pods share one address, every port
//! of a container is mapped to a free one, also where the environment names it. Images are programs of this repository, built if need be.
//!
//! A `ConfigMap` is mounted once and not kept current: a kubelet takes a minute or two for that, and tests show what comes before it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::api::ListParams;
use operator::object::{Kind, text};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{root, variable};
use crate::harness::World;

/// Which program an image stands for, and how it is started there.
const IMAGES: [(&str, &str, &[&str]); 2] = [
    ("mcp-gateway:test", "mcp-gateway", &[]),
    ("registry.example.com/payments:v1.0.0", "mcp-demo-server", &["serve"]),
];

/// The pods that run.
pub(crate) struct Node {
    folder: TempDir,
    programs: PathBuf,
    pods: BTreeMap<String, Pod>,
}

struct Pod {
    containers: Vec<Container>,
    is_ready: bool,
}

struct Container {
    name: String,
    process: Child,
    log: PathBuf,
    /// Port that a probe asks, and the path when it asks by HTTP.
    probe: Option<(u16, Option<String>)>,
    /// Mapped ports, by name.
    ports: HashMap<String, u16>,
}

impl Drop for Container {
    fn drop(&mut self) {
        // Gone already is as good.
        let _gone = self.process.kill();
        let _waited = self.process.wait();
    }
}

impl Node {
    /// A node without pods. `None`: on a cluster with nodes of its own there is nothing to do here.
    pub(crate) fn new(world: &World) -> Option<Self> {
        if !world.cluster.is_ours() {
            println!("skipped: this cluster runs pods itself, and has no images of what is tested");
            return None;
        }
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            programs: programs(),
            pods: BTreeMap::new(),
        })
    }

    /// Starts pods that are new, stops those that are gone, and writes the status of those that have become ready.
    pub(crate) async fn look(&mut self, world: &World) {
        let pods = world.api(Kind::Pod).list(&ListParams::default()).await.unwrap().items;
        let pods: Vec<Value> = pods.iter().map(|pod| serde_json::to_value(pod).unwrap()).collect();
        self.pods
            .retain(|name, _| pods.iter().any(|pod| text(pod, "/metadata/name") == name));
        for pod in pods {
            let name = text(&pod, "/metadata/name").to_owned();
            if !self.pods.contains_key(&name) {
                let started = self.start(world, &pod).await;
                self.pods.insert(name.clone(), started);
            }
            let running = self.pods.get_mut(&name).unwrap();
            for container in &mut running.containers {
                let exit = container.process.try_wait().unwrap();
                let log = || std::fs::read_to_string(&container.log).unwrap_or_default();
                assert!(
                    exit.is_none(),
                    "container {} of {name} ended with {exit:?}: {}",
                    container.name,
                    log()
                );
            }
            if !running.is_ready && running.containers.iter().all(Container::is_ready) {
                running.is_ready = true;
                let is_true =
                    |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
                let conditions = ["Initialized", "ContainersReady", "Ready"].map(is_true);
                let status = json!({ "status": {
                    "phase": "Running", "podIP": "127.0.0.1", "podIPs": [{ "ip": "127.0.0.1" }], "conditions": conditions,
                } });
                world.set_pod_status(&name, &status).await;
            }
        }
    }

    /// Looks after the pods until the server says what is expected.
    pub(crate) async fn until(&mut self, world: &World, server: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let start = tokio::time::Instant::now();
        loop {
            self.look(world).await;
            let found = world.get(Kind::Server, server).await.unwrap_or_default();
            if holds(&found) {
                return found;
            }
            assert!(
                start.elapsed() < Duration::from_mins(2),
                "waiting for {server} {what}; it is {:#}\n{}",
                found["status"],
                self.logs()
            );
            crate::harness::pause().await;
        }
    }

    /// What the containers said.
    pub(crate) fn logs(&self) -> String {
        let containers = self.pods.values().flat_map(|pod| &pod.containers);
        containers.fold(String::new(), |all, container| {
            let log = std::fs::read_to_string(&container.log).unwrap_or_default();
            let start = log.len().saturating_sub(3000);
            all + &format!("--- {}\n{}\n", container.name, log.get(start..).unwrap_or(&log))
        })
    }

    /// Where a port of the pods' containers is on this machine, by the port's name; one for each pod.
    pub(crate) fn ports(&self, name: &str) -> Vec<u16> {
        let containers = self.pods.values().flat_map(|pod| &pod.containers);
        containers
            .filter_map(|container| container.ports.get(name).copied())
            .collect()
    }

    async fn start(&self, world: &World, pod: &Value) -> Pod {
        let name = text(pod, "/metadata/name");
        let folder = self.folder.path().join(name);
        let mut folders = HashMap::new();
        for volume in list(pod, "/spec/volumes") {
            let path = folder.join(text(volume, "/name"));
            std::fs::create_dir_all(&path).unwrap();
            fill(world, pod, volume, &path).await;
            folders.insert(text(volume, "/name").to_owned(), path);
        }
        let mut mapped = BTreeMap::new();
        for port in list(pod, "/spec/containers").flat_map(|container| list(container, "/ports")) {
            let number = port["containerPort"].as_u64().unwrap();
            mapped.insert(number.to_string(), free_port());
        }
        let start = |container| self.start_container(container, &folder, &folders, &mapped);
        Pod {
            containers: list(pod, "/spec/containers").map(start).collect(),
            is_ready: false,
        }
    }

    fn start_container(
        &self,
        container: &Value,
        folder: &Path,
        folders: &HashMap<String, PathBuf>,
        mapped: &BTreeMap<String, u16>,
    ) -> Container {
        let image = text(container, "/image");
        let (_, program, args) = IMAGES.iter().find(|(known, ..)| *known == image).unwrap();
        let ports: HashMap<String, u16> = list(container, "/ports")
            .map(|port| (text(port, "/name").to_owned(), mapped[&port["containerPort"].to_string()]))
            .collect();
        let name = text(container, "/name").to_owned();
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(self.programs.join(program));
        command.args(*args).env_clear().stdin(Stdio::null()).current_dir(folder);
        if let Some(port) = ports.get("http") {
            // What the image's own default is in a container.
            command.env("MCP_DEMO_SERVER_LISTEN", format!("127.0.0.1:{port}"));
        }
        for variable in list(container, "/env") {
            let value = text(variable, "/value");
            let mut value = mapped.get(value).map_or_else(|| value.to_owned(), ToString::to_string);
            for (port, at) in mapped {
                value = value.replace(&format!("http://127.0.0.1:{port}"), &format!("http://127.0.0.1:{at}"));
            }
            for mount in list(container, "/volumeMounts") {
                let at = folders[text(mount, "/name")].to_str().unwrap().to_owned();
                let inside = text(mount, "/mountPath");
                if value.starts_with(&format!("{inside}/")) {
                    value = value.replacen(inside, &at, 1);
                }
            }
            command.env(text(variable, "/name"), value);
        }
        let out = File::create(&log).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let probe = container.get("readinessProbe").map(|probe| {
            let action = probe.get("httpGet").or(probe.get("tcpSocket")).unwrap();
            let path = action.get("path").and_then(Value::as_str).map(str::to_owned);
            (ports[text(action, "/port")], path)
        });
        Container {
            process: command.spawn().unwrap(),
            name,
            log,
            probe,
            ports,
        }
    }
}

impl Container {
    fn is_ready(&self) -> bool {
        let Some((port, path)) = &self.probe else { return true };
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", *port)) else {
            return false;
        };
        let Some(path) = path else { return true };
        let patience = Some(Duration::from_secs(5));
        let mut head = [0_u8; 12];
        stream.set_read_timeout(patience).is_ok()
            && write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").is_ok()
            && stream.read_exact(&mut head).is_ok()
            && head.ends_with(b"200")
    }
}

/// Puts into a folder what a volume holds.
async fn fill(world: &World, pod: &Value, volume: &Value, path: &Path) {
    if let Some(map) = volume.get("configMap") {
        let map = world
            .until(Kind::ConfigMap, text(map, "/name"), "to be mounted", |_| true)
            .await;
        for (file, content) in map["data"].as_object().unwrap() {
            std::fs::write(path.join(file), content.as_str().unwrap()).unwrap();
        }
    }
    if let Some(secret) = volume.get("secret") {
        for item in list(secret, "/items") {
            let key = text(item, "/key");
            let get = ["get", "secret", "-n", &world.namespace, text(secret, "/secretName")];
            let template = format!("-o=go-template={{{{index .data \"{key}\" | base64decode}}}}");
            let found = world.cluster.kubectl(&[&get[..], &[&template]].concat(), "");
            match found {
                Ok(value) => std::fs::write(path.join(text(item, "/path")), value).unwrap(),
                Err(error) => assert_eq!(secret["optional"], true, "{error}"),
            }
        }
    }
    for token in list(volume, "/projected/sources").filter_map(|source| source.get("serviceAccountToken")) {
        let account = Some(text(pod, "/spec/serviceAccountName")).filter(|name| !name.is_empty());
        let token_text = world
            .cluster
            .kubectl(
                &[
                    "create",
                    "token",
                    "-n",
                    &world.namespace,
                    account.unwrap_or("default"),
                    "--audience",
                    text(token, "/audience"),
                    "--bound-object-kind",
                    "Pod",
                    "--bound-object-name",
                    text(pod, "/metadata/name"),
                    "--bound-object-uid",
                    text(pod, "/metadata/uid"),
                ],
                "",
            )
            .unwrap();
        std::fs::write(path.join(text(token, "/path")), token_text).unwrap();
    }
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where the programs are: a folder that the environment names, or where cargo has just built them.
fn programs() -> PathBuf {
    if let Some(folder) = variable("MCP_RUNTIME_PROGRAMS") {
        return PathBuf::from(folder);
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "-p", "gateway", "-p", "demo-server"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}
