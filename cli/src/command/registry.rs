//! `registry`: bringing images to the registry that servers are deployed from, without a container engine.

mod image;
mod remote;
mod upload;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::Global;
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::metadata::Scope;
use crate::profile::{self, Profiles};
use crate::render::{self, Done};
use image::Image;
use remote::{Login, Remote};

/// Engines that can hand out an image they hold, in the order in which they are looked for.
const ENGINES: [&str; 2] = ["docker", "podman"];

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Push an image by layers; what the registry has is not sent again, and a push that broke off goes on
    #[command(
        after_help = "Examples:\n  mcp-runtime registry push --scope org --image registry.example.com/org/payments:v1.0.0\n  mcp-runtime registry push --scope org --image payments:v1.0.0 --from payments.tar\n  mcp-runtime registry push --scope tenant --image payments:v1.0.0 --from ./oci-layout --registry 127.0.0.1:5000"
    )]
    Push(PushArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Reference to push as; or the path of an OCI layout or image tarball, with --name
    #[arg(long, value_name = "REF")]
    image: String,
    /// Whom the image is for: its repository goes below `org`, `public` or your team
    #[arg(long, value_enum)]
    scope: Option<Scope>,
    /// Repository and tag to push as, such as payments:v1.0.0 [default: as --image says]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the image is: an OCI layout folder, or a tarball such as `docker save` writes [default: docker or podman is asked for it]
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// Host of the registry [default: that of the login, else that in the reference]
    #[arg(long, env = "MCP_REGISTRY_HOST", hide_env_values = true, value_name = "HOST")]
    registry: Option<String>,
    /// Repository of the same registry that may have layers already; again for more
    #[arg(long = "mount-from", value_name = "REPOSITORY")]
    mount_from: Vec<String>,
    /// User name at a registry that is not the platform's
    #[arg(long, env = "PROVISIONED_REGISTRY_USERNAME", hide_env_values = true, value_name = "NAME")]
    username: Option<String>,
    /// File with the password for it
    #[arg(long, requires = "username", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    plain_http: bool,
}

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: Option<String>,
    repository: String,
    tag: String,
}

/// What a push did.
#[derive(Debug, Serialize)]
struct Pushed {
    name: String,
    digest: String,
    #[serde(flatten)]
    counts: upload::Counts,
}

pub(crate) async fn run(global: &Global, command: RegistryCommand) -> Result<Done, Fault> {
    let RegistryCommand::Push(args) = command;
    push(global, &args).await
}

async fn push(global: &Global, args: &PushArgs) -> Result<Done, Fault> {
    let output = global.form()?;
    // Who may not push is told before any work.
    let client = Client::new(global)?;
    let me = Me::of(&client).await?;
    let is_path = Path::new(&args.image).exists();
    let named = match (&args.name, is_path) {
        (Some(name), _) => name.as_str(),
        (None, false) => args.image.as_str(),
        (None, true) => {
            return Err(
                Fault::new(Exit::Usage, format!("{} is a file or folder, which says no name", args.image))
                    .hint("name what it becomes: --name payments:v1.0.0"),
            );
        }
    };
    let mut target = Target::parse(named)?;
    target.repository = scoped(&target.repository, args.scope, &me)?;
    let profile = saved_registry(global)?;
    let host = args.registry.clone().or(profile.clone()).or_else(|| target.host.clone());
    let host = host.ok_or_else(|| {
        Fault::new(Exit::Usage, "no registry is known to push to")
            .hint("name it with --registry, or log in again with --registry-host")
    })?;
    let saved;
    let path = match (&args.from, is_path) {
        (Some(path), _) => path.as_path(),
        (None, true) => Path::new(&args.image),
        (None, false) => {
            saved = Saved::of(&args.image).await?;
            saved.0.as_path()
        }
    };
    let image = Image::open(path, &target.tag)?;
    let login = login(
        args,
        &client,
        profile.as_deref() == Some(host.as_str()) || args.registry.is_some(),
    )?;
    let folder = profile::folder(global.config_dir.as_deref());
    let remote = Remote::new(&host, &target.repository, args.plain_http, login)?;
    let push = upload::Push::new(remote, bar(image.bytes()), folder, args.mount_from.clone());
    let (digest, counts) = push.image(&image, &target.tag).await?;
    let pushed = Pushed {
        name: format!("{host}/{}:{}", target.repository, target.tag),
        digest,
        counts,
    };
    render::document(output, &pushed, |pushed| {
        let counts = &pushed.counts;
        render::note(&format!(
            "{} layers and manifests sent, {} were there, {} taken from another repository",
            counts.sent, counts.present, counts.mounted
        ));
        format!("{}@{}", pushed.name, pushed.digest)
    })?;
    Ok(Done::Well)
}

/// What proves the right to push. The platform's credential is shown to the platform's registry alone.
fn login(args: &PushArgs, client: &Client, is_ours: bool) -> Result<Login, Fault> {
    if let Some(name) = &args.username {
        let password = match &args.password_file {
            Some(path) => crate::client::read_secret(path, "the password")?,
            None => return Err(Fault::new(Exit::Usage, "--username needs a password").hint("give it with --password-file")),
        };
        return Ok(Login::basic(name, &password, None));
    }
    Ok(match client.credential() {
        Some(token) if is_ours => Login::basic("mcp", &token, Some(client.base())),
        _ => Login::none(),
    })
}

/// Progress on the terminal; nothing anywhere else.
fn bar(bytes: u64) -> ProgressBar {
    let shown = std::io::stderr().is_terminal();
    let target = if shown {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let style = ProgressStyle::with_template("{bar:30} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12} {eta:>5} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn saved_registry(global: &Global) -> Result<Option<String>, Fault> {
    let Some(folder) = profile::folder(global.config_dir.as_deref()) else {
        return Ok(None);
    };
    let profiles = Profiles::read(&folder)?;
    Ok(profiles
        .chosen(global.profile.as_deref())?
        .and_then(|(_, profile)| profile.registry_host.clone()))
}

/// Who pushes, as far as names of repositories care.
#[derive(Debug, Default)]
struct Me {
    teams: Vec<String>,
}

impl Me {
    async fn of(client: &Client) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            principal: Principal,
        }
        #[derive(Deserialize)]
        struct Principal {
            #[serde(default)]
            teams: Vec<Value>,
        }
        let answer: Answer = client.get("/api/v1/auth/me", &[]).await?;
        let slug = |team: &Value| team.get("slug").and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            teams: answer.principal.teams.iter().filter_map(slug).collect(),
        })
    }
}

/// The repository with the prefix of its scope.
fn scoped(repository: &str, scope: Option<Scope>, me: &Me) -> Result<String, Fault> {
    let prefix = repository.split_once('/').map(|(prefix, _)| prefix);
    match (scope, prefix) {
        (None, _) => Ok(repository.to_owned()),
        (Some(scope @ (Scope::Org | Scope::Public)), prefix) => match prefix {
            Some(prefix) if prefix == scope.as_str() => Ok(repository.to_owned()),
            Some(prefix) => Err(Fault::new(
                Exit::Usage,
                format!(
                    "the repository {repository} is below `{prefix}`, and the scope is `{}`",
                    scope.as_str()
                ),
            )
            .hint("leave the prefix out, or name the scope it belongs to")),
            None => Ok(format!("{}/{repository}", scope.as_str())),
        },
        (Some(Scope::Tenant), Some(prefix)) if me.teams.iter().any(|team| team == prefix) => Ok(repository.to_owned()),
        (Some(Scope::Tenant), Some(prefix)) => Err(Fault::new(
            Exit::NotAllowed,
            format!("the repository {repository} is below `{prefix}`, which is none of your teams"),
        )
        .hint(if me.teams.is_empty() {
            "you are in no team: mcp-runtime auth status".to_owned()
        } else {
            format!("your teams are {}", me.teams.join(", "))
        })),
        (Some(Scope::Tenant), None) => match me.teams.as_slice() {
            [team] => Ok(format!("{team}/{repository}")),
            [] => Err(Fault::new(
                Exit::NotAllowed,
                "you are in no team, so there is no place for a team's image",
            )
            .hint("push with --scope org or public, or ask to be added to a team")),
            teams => Err(
                Fault::new(Exit::Usage, format!("you are in several teams: {}", teams.join(", ")))
                    .hint(format!("name one: --image {}/{repository}", teams[0])),
            ),
        },
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            Fault::new(Exit::Usage, format!("`{text}` is no image reference: {why}"))
                .hint("such as registry.example.com/org/payments:v1.0.0 or payments:v1.0.0")
        };
        if text.contains('@') {
            return Err(wrong("it names a digest, which follows from the content"));
        }
        let (host, rest) = match text.split_once('/') {
            Some((host, rest)) if (host.contains(['.', ':']) && !host.starts_with('.')) || host == "localhost" => {
                (Some(host.to_owned()), rest)
            }
            _ => (None, text),
        };
        let (repository, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
        let is_part = |part: &str| {
            let inner = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '.' | '_' | '-');
            !part.is_empty() && part.chars().all(inner) && part.starts_with(|char: char| char.is_ascii_alphanumeric())
        };
        if !repository.split('/').all(is_part) {
            return Err(wrong(
                "a repository is lower-case letters, digits, `.`, `_` and `-`, in parts separated by `/`",
            ));
        }
        let is_tag = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
        if tag.is_empty() || tag.len() > 128 || !tag.chars().all(is_tag) {
            return Err(wrong("its tag is not 1 to 128 letters, digits, `.`, `_` and `-`"));
        }
        Ok(Self {
            host,
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

/// An image that an engine wrote to a file, removed when dropped.
struct Saved(PathBuf);

impl Saved {
    async fn of(image: &str) -> Result<Self, Fault> {
        let path = std::env::temp_dir().join(format!("mcp-runtime-push-{}.tar", std::process::id()));
        // Made by us and for us alone, so that nobody else can put another in its place.
        profile::private_file(&path)
            .map_err(|error| Fault::new(Exit::Failed, format!("making {}", path.display())).caused_by(&error))?;
        let saved = Self(path);
        let mut told = String::new();
        for engine in ENGINES {
            let mut command = tokio::process::Command::new(engine);
            command.args(["save", "--output"]).arg(&saved.0).arg(image);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            match command.output().await {
                Ok(output) if output.status.success() => return Ok(saved),
                Ok(output) => String::from_utf8_lossy(&output.stderr).trim().clone_into(&mut told),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Fault::new(Exit::Failed, format!("starting {engine}")).caused_by(&error)),
            }
        }
        let fault = if told.is_empty() {
            Fault::new(
                Exit::Failed,
                format!("there is no docker or podman here that could hold {image}"),
            )
        } else {
            Fault::new(
                Exit::NotFound,
                format!("no engine here hands out {image}: {}", crate::text::safe(&told)),
            )
        };
        Err(fault.hint("push from a file without any engine: --from image.tar, or --from an OCI layout folder"))
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        // A file that is left behind in the folder of temporary files is no fault.
        let _left = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let target = |host: Option<&str>, repository: &str, tag: &str| Target {
            host: host.map(str::to_owned),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        };
        for (text, wanted) in [
            ("payments", target(None, "payments", "latest")),
            ("org/payments:v1", target(None, "org/payments", "v1")),
            (
                "127.0.0.1:5000/org/payments:v1",
                target(Some("127.0.0.1:5000"), "org/payments", "v1"),
            ),
            ("localhost/payments", target(Some("localhost"), "payments", "latest")),
        ] {
            assert_eq!(Target::parse(text).unwrap(), wanted, "{text}");
        }
        for text in ["", "Payments", "a//b", "a:b c", "a@sha256:00", "../x", "a:"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_scope_is_a_prefix_and_a_tenant_has_its_own() {
        let me = Me {
            teams: vec!["acme".to_owned()],
        };
        let named = |repository, scope| scoped(repository, Some(scope), &me).map_err(|fault| fault.exit);
        assert_eq!(named("payments", Scope::Org), Ok("org/payments".to_owned()));
        assert_eq!(named("public/payments", Scope::Public), Ok("public/payments".to_owned()));
        assert_eq!(named("org/payments", Scope::Public), Err(Exit::Usage));
        assert_eq!(named("payments", Scope::Tenant), Ok("acme/payments".to_owned()));
        assert_eq!(named("globex/payments", Scope::Tenant), Err(Exit::NotAllowed));
        assert_eq!(
            scoped("payments", Some(Scope::Tenant), &Me::default()).unwrap_err().exit,
            Exit::NotAllowed
        );
    }
}
