//! What running a server means on this machine: a program, a container, or nothing but reaching it. Pure, so that every rule has a test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crds::McpServer;
use http::Uri;

use crate::args::parse_upstream;

/// The path below which servers answer, unless they say otherwise.
pub(crate) const MCP_PATH: &str = "/mcp";

/// How a server comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Launch {
    /// It runs already.
    Reached(Uri),
    /// A program of this machine.
    Program(Program),
    /// An image, for whichever container engine is there.
    Image(Image),
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) command: Vec<String>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) common: Common,
}

/// A container to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// With its tag or digest.
    pub(crate) reference: String,
    /// Instead of the image's own, when not empty.
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) folder: Option<String>,
    /// Port within the container.
    pub(crate) port: u16,
    pub(crate) common: Common,
}

/// What programs and containers have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Common {
    pub(crate) env: BTreeMap<String, String>,
    /// Variables whose values are in files: name and file.
    pub(crate) secrets: BTreeMap<String, PathBuf>,
    /// The port it would like to have.
    pub(crate) port: Option<u16>,
    /// Where the gateway reaches it, when that is not for us to choose.
    pub(crate) upstream: Option<Uri>,
    /// Paths to look for it at, the likeliest first.
    pub(crate) paths: Vec<String>,
}

/// Why a spec cannot be run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LaunchFault {
    #[error("`gateway.upstreamURL` {0:?} is not an http or https URL with a host, such as http://127.0.0.1:3001/mcp")]
    Upstream(String),
    #[error("the server has neither `command` nor `image` nor `gateway.upstreamURL`, so nothing says what to run")]
    Nothing,
}

/// What a spec asks for. `secrets` is the folder of secrets: a file for each key, in a folder for each namespace and secret.
pub(crate) fn launch(server: &McpServer, secrets: &Path) -> Result<Launch, LaunchFault> {
    let spec = &server.spec;
    let named = spec.gateway.as_ref().and_then(|gateway| gateway.upstream_url.as_deref());
    let upstream = match named.map(str::trim).filter(|url| !url.is_empty()) {
        Some(url) => Some(parse_upstream(url).ok_or_else(|| LaunchFault::Upstream(url.to_owned()))?),
        None => None,
    };
    let image = spec.image.as_deref().map(str::trim).filter(|image| !image.is_empty());
    if let Some(upstream) = upstream.clone().filter(|_| image.is_none() && spec.command.is_empty()) {
        return Ok(Launch::Reached(upstream));
    }
    let namespace = secrets.join(server.metadata.namespace.as_str());
    let common = Common {
        env: spec
            .env_vars
            .iter()
            .map(|variable| (variable.name.clone(), variable.value.clone()))
            .collect(),
        secrets: spec
            .secret_env_vars
            .iter()
            .map(|variable| {
                let secret = &variable.secret_key_ref;
                (
                    variable.name.clone(),
                    namespace.join(file_name(&secret.name)).join(file_name(&secret.key)),
                )
            })
            .collect(),
        port: spec.port.filter(|port| *port != 0),
        upstream,
        paths: vec![MCP_PATH.to_owned(), format!("/{}{MCP_PATH}", server.prefix()), "/".to_owned()],
    };
    match image {
        Some(image) => Ok(Launch::Image(Image {
            reference: reference(image, spec.image_tag.as_deref()),
            command: spec.command.clone(),
            args: spec.args.clone(),
            folder: spec.working_dir.clone(),
            port: spec.port(),
            common,
        })),
        None if spec.command.is_empty() => Err(LaunchFault::Nothing),
        None => Ok(Launch::Program(Program {
            command: spec.command.iter().chain(&spec.args).cloned().collect(),
            folder: spec
                .working_dir
                .as_deref()
                .filter(|folder| !folder.is_empty())
                .map(PathBuf::from),
            common,
        })),
    }
}

/// A name that stays within its folder.
fn file_name(name: &str) -> String {
    name.replace(['/', '\\'], "_").trim_start_matches('.').to_owned()
}

/// The image with the tag, unless it names one or a digest itself.
fn reference(image: &str, tag: Option<&str>) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || image.contains('@') {
        return image.to_owned();
    }
    let tag = tag.filter(|tag| !tag.is_empty()).unwrap_or(crds::server::DEFAULT_IMAGE_TAG);
    format!("{image}:{tag}")
}

/// Puts variables in: `$(NAME)` as Kubernetes has it, `$$(NAME)` for the text itself. A name that is not known stays as it is.
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix("$(") {
            out.push_str("$(");
            rest = after;
            continue;
        }
        let value = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some((value, after)) = value.and_then(|(name, after)| Some((env.get(name)?, after))) {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(spec: &serde_json::Value) -> McpServer {
        serde_json::from_value(serde_json::json!({
            "apiVersion": crds::API_VERSION, "kind": "MCPServer",
            "metadata": { "name": "payments", "namespace": "acme" }, "spec": spec,
        }))
        .unwrap()
    }

    fn launched(spec: &serde_json::Value) -> Result<Launch, LaunchFault> {
        launch(&server(spec), Path::new("/data/secrets"))
    }

    #[test]
    fn an_address_a_program_and_an_image_are_told_apart() {
        let reached = launched(&serde_json::json!({ "gateway": { "upstreamURL": "http://127.0.0.1:3001/mcp" } })).unwrap();
        assert_eq!(reached, Launch::Reached("http://127.0.0.1:3001/mcp".parse().unwrap()));
        let Launch::Program(program) = launched(&serde_json::json!({
            "command": ["python3", "server.py"], "args": ["--port", "$(PORT)"], "workingDir": "/srv/payments", "port": 9000,
            "secretEnvVars": [{ "name": "TOKEN", "secretKeyRef": { "name": "stripe", "key": "../token" } }],
        }))
        .unwrap() else {
            panic!("a program")
        };
        assert_eq!(program.command, ["python3", "server.py", "--port", "$(PORT)"]);
        assert_eq!(
            (program.folder, program.common.port),
            (Some("/srv/payments".into()), Some(9000))
        );
        assert_eq!(program.common.secrets["TOKEN"], Path::new("/data/secrets/acme/stripe/_token"));
        assert_eq!(program.common.paths, ["/mcp", "/payments/mcp", "/"]);
        let Launch::Image(image) =
            launched(&serde_json::json!({ "image": "ghcr.io/acme/payments", "imageTag": "v1" })).unwrap()
        else {
            panic!("an image")
        };
        assert_eq!((image.reference.as_str(), image.port), ("ghcr.io/acme/payments:v1", 8088));
        assert_eq!(launched(&serde_json::json!({})), Err(LaunchFault::Nothing));
        assert!(matches!(
            launched(&serde_json::json!({ "gateway": { "upstreamURL": "127.0.0.1:1" } })),
            Err(LaunchFault::Upstream(_))
        ));
    }

    #[test]
    fn tags_are_added_only_where_none_is() {
        for (image, tag, expected) in [
            ("payments", None, "payments:latest"),
            ("localhost:5000/payments", Some("v1"), "localhost:5000/payments:v1"),
            ("payments:v2", Some("v1"), "payments:v2"),
            ("payments@sha256:00", Some("v1"), "payments@sha256:00"),
        ] {
            assert_eq!(reference(image, tag), expected);
        }
    }

    #[test]
    fn variables_are_put_in_as_kubernetes_does() {
        let env = BTreeMap::from([("PORT".to_owned(), "4000".to_owned())]);
        for (text, expected) in [
            ("127.0.0.1:$(PORT)", "127.0.0.1:4000"),
            ("$(PORT)$(PORT)", "40004000"),
            ("$(OTHER) $PORT $", "$(OTHER) $PORT $"),
            ("$$(PORT)", "$(PORT)"),
            ("$(PORT", "$(PORT"),
        ] {
            assert_eq!(expand(text, &env), expected);
        }
    }
}
