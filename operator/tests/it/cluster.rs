//! A real control plane, started once for all tests of this binary.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};

use operator::client::with_config;
use operator::metrics::OperatorMetrics;
use service_kit::Metrics;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// Where the tools are: a folder of this repository, unless the environment names another.
pub(crate) fn services() -> PathBuf {
    variable("MCP_RUNTIME_SERVICES").map_or_else(|| root().join(".services"), PathBuf::from)
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no options; the environment is how they are told of a cluster"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A cluster to test against.
#[derive(Debug)]
pub(crate) struct Cluster {
    kubeconfig: PathBuf,
    operator_kubeconfig: PathBuf,
    folder: Option<TempDir>,
    /// Lives as long as its standard input, which closes with this process.
    _process: Option<Child>,
}

static CLUSTER: LazyLock<Option<Mutex<Cluster>>> = LazyLock::new(|| Cluster::start().map(Mutex::new));

/// The cluster, for one test at a time: operators see everything in it. `None` skips the test, which says why; never in CI.
pub(crate) async fn cluster() -> Option<MutexGuard<'static, Cluster>> {
    Some(CLUSTER.as_ref()?.lock().await)
}

impl Cluster {
    fn start() -> Option<Self> {
        if let Some(kubeconfig) = variable("KUBECONFIG_TEST").map(PathBuf::from) {
            return Some(Self {
                operator_kubeconfig: kubeconfig.clone(),
                kubeconfig,
                folder: None,
                _process: None,
            });
        }
        if !services().join("kubernetes/.installed").exists() {
            let why = "skipped: no control plane; run tests/services/kubernetes/build, or set KUBECONFIG_TEST";
            assert!(variable("CI").is_none(), "{why}");
            println!("{why}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(root().join("tests/services/kubernetes/start"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(
            !line.is_empty(),
            "the control plane did not start; see {}",
            folder.path().display()
        );
        Some(Self {
            kubeconfig: PathBuf::from(line.trim()),
            operator_kubeconfig: folder.path().join("operator.kubeconfig"),
            folder: Some(folder),
            _process: Some(process),
        })
    }

    /// An administrator's client.
    pub(crate) async fn admin(&self) -> kube::Client {
        connect(&self.kubeconfig, &OperatorMetrics::shared(&Metrics::new())).await
    }

    /// A client with the operator's roles and no more.
    pub(crate) async fn operator(&self, metrics: &Metrics) -> kube::Client {
        connect(&self.operator_kubeconfig, &OperatorMetrics::shared(metrics)).await
    }

    /// The kubeconfig with the operator's roles and no more.
    pub(crate) fn operator_kubeconfig(&self) -> &Path {
        &self.operator_kubeconfig
    }

    /// Runs `kubectl` as an administrator. Gives what it printed, or what it complained about.
    pub(crate) fn kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        use std::io::Write as _;
        let own = services().join("kubernetes/kubectl");
        let mut child = Command::new(if own.exists() { own } else { PathBuf::from("kubectl") })
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// Whether the cluster is there for these tests alone.
    pub(crate) fn is_ours(&self) -> bool {
        self.folder.is_some()
    }

    /// Kills the API server and starts it again; `false` where that is not ours to do.
    pub(crate) fn restart_api_server(&self) -> bool {
        let Some(folder) = &self.folder else { return false };
        std::fs::write(folder.path().join("restart-apiserver"), "").unwrap();
        true
    }
}

async fn connect(kubeconfig: &Path, metrics: &Arc<OperatorMetrics>) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
        .await
        .unwrap();
    with_config(config, metrics).unwrap()
}
