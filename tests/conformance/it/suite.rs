//! The suite as a process, and its results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../services/install.sh");
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/client.mjs");
const ENTRY: &str = "npm/node_modules/@modelcontextprotocol/conformance/dist/index.js";

/// How a check ended; the greater, the worse.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    Info,
    Skipped,
    Success,
    Warning,
    Failure,
}

#[derive(Debug, Deserialize)]
struct Check {
    id: String,
    status: Status,
    #[serde(rename = "errorMessage", default)]
    error: Option<String>,
}

/// The worst end of each check, by scenario and check, with what was said about it.
#[derive(Debug, Default)]
pub(crate) struct Results(pub(crate) BTreeMap<(String, String), (Status, String)>);

/// The folder of the installed components. Installing what is missing may take minutes the first time.
async fn services() -> PathBuf {
    let output = Command::new(INSTALL).arg("node").stderr(Stdio::inherit()).output().await;
    let output = output.expect("running install.sh");
    assert!(output.status.success(), "install.sh: {}", output.status);
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

impl Results {
    /// Runs the server scenarios of a revision against an address, and tells whether all that are scored passed.
    pub(crate) async fn of_server(url: &str, revision: &str, folder: &Path) -> (Self, bool, String) {
        let services = services().await;
        let output = Command::new(services.join("bin/node"))
            .arg(services.join(ENTRY))
            .args(["server", "--url", url, "--requirements", revision, "--output-dir"])
            .arg(folder)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("running the suite");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (Self::read(folder, "server-"), output.status.success(), said)
    }

    /// Runs a client scenario with the official client, behind `wrapper` unless that is empty.
    pub(crate) async fn of_client(scenario: &str, wrapper: &str, folder: &Path) -> Self {
        let services = services().await;
        let node = services.join("bin/node");
        let client = format!("{wrapper} {} {CLIENT}", node.display());
        let output = Command::new(&node)
            .arg(services.join(ENTRY))
            .args(["client", "--scenario", scenario, "--command", client.trim(), "--output-dir"])
            .arg(folder)
            .env("MCP_RUNTIME_SERVICES_INSTALLED", &services)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("running the suite");
        let results = Self::read(folder, "");
        assert!(
            !results.0.is_empty(),
            "{scenario}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        results
    }

    /// Every folder is named after its scenario and the time: `server-tools-list-2026-11-22T…`.
    fn read(folder: &Path, prefix: &str) -> Self {
        let mut all = Self::default();
        for entry in std::fs::read_dir(folder).expect("the results") {
            let entry = entry.expect("a result");
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = name.strip_prefix(prefix) else { continue };
            let (scenario, _time) = name.split_at(name.rfind('T').and_then(|at| at.checked_sub(11)).expect("a time"));
            let text = std::fs::read(entry.path().join("checks.json")).expect("the checks");
            let checks: Vec<Check> = serde_json::from_slice(&text).expect("checks as JSON");
            for check in checks {
                let end = (check.status, check.error.unwrap_or_default());
                let worst = all.0.entry((scenario.to_owned(), check.id)).or_insert_with(|| end.clone());
                if end.0 > worst.0 {
                    *worst = end;
                }
            }
        }
        all
    }

    /// Checks that ended worse than in another run, or are missing.
    pub(crate) fn worse_than(&self, other: &Self) -> Vec<String> {
        let worse = other.0.iter().filter_map(|(check, (before, _))| match self.0.get(check) {
            Some((now, why)) if now > before => Some(format!("{check:?}: {before:?} became {now:?}: {why}")),
            Some(_) => None,
            None => Some(format!("{check:?}: {before:?} became nothing")),
        });
        worse.collect()
    }

    pub(crate) fn count(&self, status: Status) -> usize {
        self.0.values().filter(|(end, _)| *end == status).count()
    }
}
