//! What is deployed agrees with the programs: settings that exist, ports that are listened on, programs confined and probed; and a
//! Kubernetes API takes the manifests.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::process::run;
use crate::harness::{setting, skip};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What is made of a kustomization; `None`, and told, without kubectl.
fn kustomized(folder: &str) -> Option<String> {
    let made = Command::new("kubectl")
        .arg("kustomize")
        .arg(repository().join("deploy").join(folder))
        .output();
    let Ok(made) = made else {
        skip(&format!("deploy/{folder}"), "kubectl is not here");
        return None;
    };
    assert!(made.status.success(), "{folder}: {}", String::from_utf8_lossy(&made.stderr));
    Some(String::from_utf8(made.stdout).expect("manifests"))
}

fn objects(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").filter(|text| !text.trim().is_empty());
    documents
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
        .collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Names of the environment that a program reads, as its help tells them.
async fn options(program: &str) -> BTreeSet<String> {
    let help = run(program, &["--help".to_owned()]).await;
    let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split([']', '=']).next());
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    assert!(!names.is_empty(), "{program} tells of no option");
    names
}

/// The one container of a pod, neither of which may do more than it must.
fn confined<'a>(name: &Value, pod: &'a Value) -> &'a Value {
    assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
    let [container] = list(pod, "/containers") else {
        panic!("{name} has not one container")
    };
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}");
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{name}");
    assert_eq!(list(container, "/securityContext/capabilities/drop"), ["ALL"], "{name}");
    assert!(
        container.pointer("/resources/limits/memory").is_some(),
        "{name} has no bound of memory"
    );
    container
}

/// The program of an image.
fn program_of(image: &str) -> Option<&str> {
    let image = image.strip_prefix("mcp-runtime/")?;
    Some(image.split(':').next().unwrap_or(image))
}

#[tokio::test]
async fn manifests_confine_probe_and_configure_what_the_programs_are() {
    let Some(text) = kustomized("base") else { return };
    let objects = objects(&text);
    let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).collect::<Vec<_>>();
    let settings = |name: &Value| {
        let map = objects
            .iter()
            .find(|object| object["kind"] == "ConfigMap" && &object["metadata"]["name"] == name);
        map.and_then(|map| map["data"].as_object())
            .unwrap_or_else(|| panic!("no ConfigMap {name}"))
    };
    let workloads: Vec<&Value> = ["Deployment", "StatefulSet", "Job"]
        .iter()
        .flat_map(|kind| of_kind(kind))
        .collect();
    assert_eq!(workloads.len(), 4);
    for workload in workloads {
        let (name, pod) = (&workload["metadata"]["name"], &workload["spec"]["template"]["spec"]);
        let container = confined(name, pod);
        let command = container
            .pointer("/command/0")
            .and_then(Value::as_str)
            .and_then(|path| path.rsplit('/').next());
        let program = command
            .or_else(|| program_of(container["image"].as_str()?))
            .expect("a program");
        let known = options(program).await;
        for source in list(container, "/envFrom") {
            // A map is shared, so a program need not know all of it; somebody must, which the next test looks at.
            let map = settings(&source["configMapRef"]["name"]);
            assert!(
                map.keys().any(|name| known.contains(name)),
                "{program} reads nothing of {source}"
            );
        }
        for variable in list(container, "/env") {
            let name = variable["name"].as_str().unwrap_or_default();
            assert!(known.contains(name), "{program} does not know {name}");
        }
        if workload["kind"] == "Job" {
            continue;
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "admin", "{name}: {probe}");
        }
        let label = &workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"];
        let selects = |object: &&Value| {
            let selector = &object["spec"]["selector"];
            &selector["app.kubernetes.io/name"] == label || &selector["matchLabels"]["app.kubernetes.io/name"] == label
        };
        assert_eq!(
            of_kind("PodDisruptionBudget").into_iter().filter(selects).count(),
            1,
            "{name}"
        );
        let ports: Vec<&Value> = list(container, "/ports").iter().map(|port| &port["name"]).collect();
        for service in of_kind("Service").into_iter().filter(selects) {
            for port in list(service, "/spec/ports") {
                assert!(ports.contains(&&port["targetPort"]), "{name}: {port}");
            }
        }
        let reached = |policy: &&&Value| &policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == label;
        assert_eq!(of_kind("NetworkPolicy").iter().filter(reached).count(), 1, "{name}");
    }
}

#[tokio::test]
async fn settings_in_manifests_and_compose_are_options_of_some_program() {
    let mut known = BTreeSet::new();
    for program in [
        "sentinel-ingest",
        "sentinel-keys",
        "sentinel-processor",
        "sentinel-migrate",
        "platform-api",
    ] {
        known.extend(options(program).await);
    }
    if let Some(text) = kustomized("base") {
        for object in objects(&text).iter().filter(|object| object["kind"] == "ConfigMap") {
            for name in object["data"].as_object().into_iter().flatten().map(|(name, _)| name) {
                assert!(known.contains(name), "no program knows {name}");
            }
        }
    }
    let compose = compose();
    for (name, service) in compose["services"].as_object().expect("services") {
        if program_of(service["image"].as_str().unwrap_or_default()).is_none() {
            continue;
        }
        for variable in service["environment"].as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(
                variable == "<<" || known.contains(variable),
                "{name}: no program knows {variable}"
            );
        }
    }
}

fn compose() -> Value {
    let text = std::fs::read_to_string(repository().join("deploy/compose.yaml")).expect("the compose file");
    serde_saphyr::from_str(&text).expect("the compose file as YAML")
}

#[test]
fn compose_confines_every_service_and_refers_to_what_is_there() {
    let compose = compose();
    let services = compose["services"].as_object().expect("services");
    let containerfile =
        std::fs::read_to_string(repository().join("deploy/containers/Containerfile")).expect("the container file");
    for (name, service) in services {
        assert!(service["mem_limit"].is_string(), "{name} has no bound of memory");
        assert_eq!(list(service, "/cap_drop"), ["ALL"], "{name}");
        if let Some(program) = program_of(service["image"].as_str().unwrap_or_default()) {
            assert_eq!(service["read_only"], true, "{name}");
            assert_eq!(service["build"]["target"], program, "{name}");
            assert!(
                containerfile.contains(&format!(" AS {program}\n")),
                "{name}: no stage {program}"
            );
        }
        for (other, _) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services.contains_key(other), "{name} depends on {other}, which is not there");
        }
        for secret in list(service, "/secrets").iter().filter_map(Value::as_str) {
            assert!(compose["secrets"].get(secret).is_some(), "{name}: no secret {secret}");
        }
        for volume in list(service, "/volumes").iter().filter_map(Value::as_str) {
            let source = volume.split(':').next().unwrap_or_default();
            if let Some(path) = source.strip_prefix("./").or(source.starts_with("../").then_some(source)) {
                let made = path.starts_with("compose/secrets/");
                assert!(
                    made || repository().join("deploy").join(path).exists(),
                    "{name}: {path} is not there"
                );
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name}: no volume {source}");
            }
        }
        for port in list(service, "/ports").iter().filter_map(Value::as_str) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to everybody");
        }
    }
}

#[test]
fn images_run_as_nobody_and_hold_only_programs() {
    let text = std::fs::read_to_string(repository().join("deploy/containers/Containerfile")).expect("the container file");
    let stages: Vec<&str> = text.split("\nFROM ").skip(2).collect();
    assert_eq!(stages.len(), 5);
    for program in ["mcp-gateway", "mcp-operator"] {
        assert!(
            text.contains(&format!(" AS {program}\n")),
            "deploy/operator names an image {program}"
        );
    }
    for stage in stages {
        assert!(
            stage.contains("distroless") && stage.contains("\nUSER 65532:65532\n"),
            "{stage}"
        );
        assert!(
            !stage.contains("\nRUN ") && stage.contains("\nENTRYPOINT [\"/usr/local/bin/"),
            "{stage}"
        );
    }
}

#[test]
fn a_kubernetes_api_takes_the_manifests() {
    let services = setting("MCP_RUNTIME_SERVICES").map_or_else(|| repository().join(".services"), PathBuf::from);
    if setting("KUBECONFIG_TEST").is_none() && !services.join("kubernetes/kube-apiserver").exists() {
        skip(
            "the dry run of the manifests",
            "no Kubernetes: tests/services/install.sh kubernetes",
        );
        return;
    }
    let folder = tempfile::TempDir::with_prefix("kubernetes.").expect("a temporary folder");
    let mut control_plane = None;
    let kubeconfig = setting("KUBECONFIG_TEST").unwrap_or_else(|| {
        let mut child = Command::new(repository().join("tests/services/kubernetes/start"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting a control plane");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("where its kubeconfig is");
        control_plane = Some(child);
        line.trim().to_owned()
    });
    let kubectl = |args: &[&str], input: &str| {
        let mut child = Command::new("kubectl")
            .args(["--kubeconfig", &kubeconfig])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("running kubectl");
        child
            .stdin
            .take()
            .expect("its input")
            .write_all(input.as_bytes())
            .expect("telling kubectl");
        let output = child.wait_with_output().expect("the end of kubectl");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    kubectl(&["create", "namespace", "mcp-sentinel"], "");
    for folder in ["base", "kustomize/small"] {
        let Some(text) = kustomized(folder) else { continue };
        let said = kubectl(&["apply", "--dry-run=server", "--validate=strict", "--filename=-"], &text);
        assert_eq!(
            said.lines().filter(|line| line.contains("(server dry run)")).count(),
            objects(&text).len(),
            "{said}"
        );
    }
    if let Some(mut child) = control_plane {
        drop(child.stdin.take());
        let _gone = child.wait();
    }
}
