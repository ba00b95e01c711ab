//! `doctor`: looks at everything that commonly goes wrong, and says what to do about it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::Global;
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::profile::{self, Profiles};
use crate::render::{self, Done};
use crate::text::safe;

/// Servers that are looked at one by one.
const SERVERS_MAX: usize = 50;
const PROBE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Works, but somebody will stumble over it.
    Warn,
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, finding: impl Into<String>) -> Self {
        Self {
            name,
            state,
            finding: finding.into(),
            remedy: None,
        }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn of(name: &'static str, fault: &Fault) -> Self {
        let (message, hint) = fault.parts();
        let check = Self::new(name, State::Failed, message);
        match hint {
            Some(hint) => check.remedy(hint),
            None => check,
        }
    }
}

pub(crate) async fn run(global: &Global) -> Result<Done, Fault> {
    let output = global.form()?;
    let mut checks = vec![logins(global), program()];
    match Client::new(global) {
        Ok(client) => platform(&client, &mut checks).await,
        Err(fault) => checks.push(Check::of("platform", &fault)),
    }
    checks.push(engine());
    render::document(output, &checks, |checks| table(checks))?;
    let is_well = checks.iter().all(|check| check.state != State::Failed);
    Ok(if is_well { Done::Well } else { Done::ButNotWell })
}

fn table(checks: &[Check]) -> String {
    let rows = checks.iter().map(|check| {
        let state = match check.state {
            State::Ok => "ok",
            State::Warn => "warning",
            State::Failed => "FAILED",
        };
        vec![check.name.to_owned(), state.to_owned(), safe(&check.finding)]
    });
    let mut out = render::table(&["CHECK", "STATE", "FINDING"], rows);
    let remedies: Vec<_> = checks
        .iter()
        .filter(|check| check.state != State::Ok)
        .filter_map(|check| Some((check.name, check.remedy.as_ref()?)))
        .collect();
    for (name, remedy) in &remedies {
        // Writing to a String cannot fail.
        let _ignored = write!(out, "\n\ntry, for {name}: {}", safe(remedy));
    }
    out
}

/// The file of logins.
fn logins(global: &Global) -> Check {
    const NAME: &str = "logins";
    let Some(folder) = profile::folder(global.config_dir.as_deref()) else {
        return Check::new(NAME, State::Failed, "there is no home folder to keep logins in")
            .remedy("set MCP_RUNTIME_CONFIG_DIR");
    };
    let profiles = match Profiles::read(&folder) {
        Ok(profiles) => profiles,
        Err(fault) => return Check::of(NAME, &fault),
    };
    let file = folder.join("config.json");
    if is_open_to_others(&file) {
        return Check::new(NAME, State::Failed, format!("{} can be read by others", file.display()))
            .remedy(format!("chmod 600 {}", file.display()));
    }
    match profiles.chosen(global.profile.as_deref()) {
        Ok(Some((name, profile))) => Check::new(NAME, State::Ok, format!("profile `{name}` for {}", profile.api_url)),
        Ok(None) => Check::new(NAME, State::Ok, "none, which a standalone of your own does not need"),
        Err(fault) => Check::of(NAME, &fault),
    }
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_path: &Path) -> bool {
    false
}

/// What clients start.
fn program() -> Check {
    match std::env::current_exe() {
        Ok(path) => Check::new(
            "program",
            State::Ok,
            format!("{} {}", path.display(), env!("CARGO_PKG_VERSION")),
        ),
        Err(error) => Check::new("program", State::Warn, format!("its own place is not known: {error}"))
            .remedy("give clients the full path of mcp-runtime"),
    }
}

async fn platform(client: &Client, checks: &mut Vec<Check>) {
    #[derive(Deserialize)]
    struct Me {
        principal: Principal,
    }
    #[derive(Deserialize)]
    struct Principal {
        role: String,
        subject: String,
    }
    let base = client.base().to_owned();
    let health = client.get::<Value>("/health", &[]).await;
    match &health {
        Err(fault) if fault.exit == Exit::Failed && fault.parts().0.starts_with("no platform API answers") => {
            checks.push(Check::of("platform", fault));
            return;
        }
        Err(fault) => checks.push(Check::of("platform", fault).remedy("look at its log: mcp-runtime sentinel logs all")),
        Ok(_) => checks.push(Check::new("platform", State::Ok, format!("{base} answers and is ready"))),
    }
    match client.get::<Me>("/api/v1/auth/me", &[]).await {
        Ok(me) => checks.push(Check::new(
            "access",
            State::Ok,
            format!("you are {} with the role {}", me.principal.subject, me.principal.role),
        )),
        Err(fault) => {
            checks.push(Check::of("access", &fault).remedy(format!("mcp-runtime auth login --api-url {base}")));
            return;
        }
    }
    servers(client, checks).await;
}

async fn servers(client: &Client, checks: &mut Vec<Check>) {
    let servers = match super::server::all(client).await {
        Ok(servers) => servers,
        Err(fault) => return checks.push(Check::of("servers", &fault)),
    };
    if servers.is_empty() {
        let check = Check::new("servers", State::Warn, "none is published");
        return checks.push(check.remedy("mcp-runtime server init NAME, then mcp-runtime server deploy NAME"));
    }
    let waiting: Vec<_> = servers.iter().filter(|server| !server.ready).collect();
    for server in waiting.iter().take(SERVERS_MAX) {
        let why = server.message.as_deref().unwrap_or("it does not say why");
        checks.push(
            Check::new(
                "server",
                State::Failed,
                format!("{} in {} is {}: {why}", server.name, server.namespace, server.status),
            )
            .remedy(format!(
                "mcp-runtime server logs {} --namespace {}",
                server.name, server.namespace
            )),
        );
    }
    if waiting.is_empty() {
        checks.push(Check::new(
            "servers",
            State::Ok,
            format!("{} published, all ready", servers.len()),
        ));
    }
    if let Some(first) = servers.iter().find(|server| server.ready) {
        checks.push(gateway(&first.endpoint).await);
    }
}

/// Whether the address that clients are given is one that this machine reaches.
async fn gateway(endpoint: &str) -> Check {
    let unreachable = |why: String| {
        Check::new(
            "gateway",
            State::Failed,
            format!("{endpoint} is not reached from here: {why}"),
        )
        .remedy("is the public address of the platform one that this machine knows?")
    };
    let client = match reqwest::Client::builder().timeout(PROBE_WAIT_MAX).build() {
        Ok(client) => client,
        Err(error) => return unreachable(error.to_string()),
    };
    // Whatever it answers to a request that says nothing: it answers.
    match client.get(endpoint).send().await {
        Ok(answer) => Check::new(
            "gateway",
            State::Ok,
            format!("{endpoint} answers ({})", answer.status().as_u16()),
        ),
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            unreachable(cause)
        }
    }
}

/// Whether images can be built here.
fn engine() -> Check {
    let there = ["docker", "podman", "buildah"].into_iter().find(|engine| {
        let null = std::process::Stdio::null;
        let mut command = std::process::Command::new(engine);
        let status = command.arg("info").stdin(null()).stdout(null()).stderr(null()).status();
        status.is_ok_and(|status| status.success())
    });
    match there {
        Some(engine) => Check::new("image builder", State::Ok, format!("{engine} works")),
        None => Check::new("image builder", State::Warn, "neither docker, podman nor buildah works here")
            .remedy("install one to build images; pushing one from a file and servers that run already need none"),
    }
}
