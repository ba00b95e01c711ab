//! `auth`: logging in, who one is, logging out, keys.

mod oidc;

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::{Global, Output};
use crate::client::{Client, Granted, read_secret};
use crate::fault::{Exit, Fault};
use crate::profile::{self, Profile, Profiles};
use crate::render::{self, Done};
use crate::text;

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Log in and remember it as a profile; on the machine of a standalone nothing but its address is needed
    #[command(
        after_help = "Examples:\n  mcp-runtime auth login --api-url https://platform.example.com --email ada@example.com\n  mcp-runtime auth login --api-url https://platform.example.com --token-stdin < key\n  mcp-runtime auth login --api-url https://platform.example.com --browser"
    )]
    Login(LoginArgs),
    /// Use another profile from now on
    #[command(after_help = "Example:\n  mcp-runtime auth use staging")]
    Use {
        /// Its name
        name: String,
    },
    /// Who you are, where, and until when; exit code 4 when the login no longer works
    #[command(after_help = "Example:\n  mcp-runtime auth status")]
    Status,
    /// Log out: end the login at the service and forget the profile
    #[command(after_help = "Example:\n  mcp-runtime auth logout --profile staging")]
    Logout {
        /// Every profile
        #[arg(long)]
        all: bool,
    },
    /// Keys for programs that act for you
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct LoginArgs {
    /// E-mail address of your account
    #[arg(long, alias = "username")]
    email: Option<String>,
    /// Read the password from standard input instead of asking for it
    #[arg(long, requires = "email")]
    password_stdin: bool,
    /// File with a key or token to log in with
    #[arg(long, value_name = "FILE", conflicts_with_all = ["email", "token_stdin"])]
    token_file: Option<PathBuf>,
    /// Log in with the platform's identity provider, in a browser on this machine
    #[arg(long, conflicts_with_all = ["email", "token_file", "token_stdin"])]
    browser: bool,
    /// The same, but do not open the browser: the address to open is printed
    #[arg(long, requires = "browser")]
    no_open: bool,
    /// Log in with the platform's identity provider, on another device
    #[arg(long, conflicts_with_all = ["browser", "email", "token_file", "token_stdin"])]
    device: bool,
    /// Read a key or token from standard input
    #[arg(long, conflicts_with = "email")]
    token_stdin: bool,
    /// Host of the registry that images are pushed to
    #[arg(long, value_name = "HOST")]
    registry_host: Option<String>,
    /// Do not ask the service whether the token works
    #[arg(long)]
    skip_verify: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is shown once and kept as a hash
    #[command(after_help = "Example:\n  mcp-runtime auth key create ci --right read --right write --expires-in 90d")]
    Create {
        /// What it is for
        name: String,
        /// What it may be used for: read, write, adapter, pull or push; again for more
        #[arg(long = "right", value_name = "RIGHT")]
        rights: Vec<String>,
        /// Only in this namespace; again for more
        #[arg(long = "namespace", short, value_name = "NAME")]
        namespaces: Vec<String>,
        /// Ends after this time (12h, 90d); without it, never
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
    },
    /// List your keys, never their secrets
    #[command(after_help = "Example:\n  mcp-runtime auth key list")]
    List,
    /// End a key at once
    #[command(after_help = "Example:\n  mcp-runtime auth key revoke 0190f1e0-0000-7abc-8def-000000000001")]
    Revoke {
        /// Id of the key, as listed
        id: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Me {
    principal: Principal,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Principal {
    role: String,
    subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allowed_namespaces: Option<Vec<String>>,
    teams: Vec<Value>,
    rights: Vec<String>,
}

pub(crate) async fn run(global: &Global, command: AuthCommand) -> Result<Done, Fault> {
    match command {
        AuthCommand::Login(args) => login(global, args).await,
        AuthCommand::Use { name } => choose(global, &name),
        AuthCommand::Status => status(global).await,
        AuthCommand::Logout { all } => logout(global, all).await,
        AuthCommand::Key(command) => keys(&Client::new(global)?, global.form()?, command).await,
    }
}

fn folder(global: &Global) -> Result<PathBuf, Fault> {
    profile::folder(global.config_dir.as_deref()).ok_or_else(|| {
        Fault::new(Exit::Failed, "finding the home folder to keep the login in").hint("set MCP_RUNTIME_CONFIG_DIR")
    })
}

async fn login(global: &Global, args: LoginArgs) -> Result<Done, Fault> {
    let folder = folder(global)?;
    let mut profiles = Profiles::read(&folder)?;
    // A new profile is no profile yet, so its name must not be looked up.
    let base = Client::new(&Global {
        profile: None,
        platform_api_token: None,
        ..global.clone()
    })?
    .base()
    .to_owned();
    let mut made = Profile {
        api_url: base.clone(),
        registry_host: args.registry_host.clone(),
        ..Profile::default()
    };
    let token = match (&args.token_file, args.token_stdin) {
        (Some(path), _) => Some(read_secret(path, "the token")?),
        (None, true) => Some(read_line("a token")?),
        (None, false) => None,
    };
    if let Some(token) = token {
        made.token = Some(token);
        if !args.skip_verify {
            introduce(&Client::at(&base, made.token.clone())?, &mut made).await?;
        }
    } else if args.browser {
        oidc::in_browser(&Client::at(&base, None)?, !args.no_open)
            .await?
            .keep(&mut made);
    } else if args.device {
        oidc::on_a_device(&Client::at(&base, None)?).await?.keep(&mut made);
    } else if let Some(email) = &args.email {
        password_login(&base, email, args.password_stdin, &mut made).await?;
    } else {
        match introduce(&Client::fresh_at(&base)?, &mut made).await {
            Ok(()) => {}
            Err(fault) if fault.exit == Exit::NotAllowed && std::io::stdin().is_terminal() => {
                ask_who(&base, &mut made).await?;
            }
            Err(fault) if fault.exit == Exit::NotAllowed => {
                return Err(Fault::new(Exit::Usage, format!("{base} wants to know who you are")).hint(
                    "give --email and --password-stdin, --token-stdin, --browser or --device; on a terminal you are asked",
                ));
            }
            Err(fault) => return Err(fault),
        }
    }
    let name = profile_name(global.profile.as_deref(), &made);
    let said = format!(
        "Logged in at {base} as {}; profile `{name}` is now current.",
        text::safe(&made.username)
    );
    profiles.accounts.insert(name.clone(), made);
    profiles.current = Some(name.clone());
    profiles.write(&folder)?;
    render::document(global.form()?, &json!({ "profile": name, "api_url": base }), |_| said)?;
    Ok(Done::Well)
}

/// Asks the person at the terminal: the identity provider where there is one, else for a password.
async fn ask_who(base: &str, made: &mut Profile) -> Result<(), Fault> {
    let client = Client::at(base, None)?;
    if oidc::Methods::of(&client).await.is_ok_and(|methods| methods.has_provider()) {
        oidc::in_browser(&client, true).await?.keep(made);
        return Ok(());
    }
    let email = ask_for("E-mail")?;
    password_login(base, &email, false, made).await
}

async fn password_login(base: &str, email: &str, from_stdin: bool, made: &mut Profile) -> Result<(), Fault> {
    let password = if from_stdin {
        read_line("a password")?
    } else if std::io::stdin().is_terminal() {
        rpassword::prompt_password("Password: ")
            .map_err(|error| Fault::new(Exit::Failed, "reading the password").caused_by(&error))?
    } else {
        return Err(
            Fault::new(Exit::Usage, "there is no terminal to ask for the password on").hint("give it with --password-stdin")
        );
    };
    let body = json!({ "email": email, "password": password });
    let granted: Granted = Client::at(base, None)?
        .send(Method::POST, "/api/v1/auth/login", Some(&body))
        .await?;
    granted.keep(made);
    Ok(())
}

/// Asks the service who one is.
async fn introduce(client: &Client, made: &mut Profile) -> Result<(), Fault> {
    let me: Me = client.get("/api/v1/auth/me", &[]).await?;
    made.role = me.principal.role;
    made.username = me.principal.email.unwrap_or(me.principal.subject);
    Ok(())
}

/// The name given, else what tells logins apart: the person, or the machine's own.
fn profile_name(given: Option<&str>, made: &Profile) -> String {
    let name = profile::name_of(given.unwrap_or_else(|| made.username.split('@').next().unwrap_or_default()));
    if name.is_empty() { "default".to_owned() } else { name }
}

fn read_line(what: &str) -> Result<String, Fault> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Fault::new(Exit::Failed, format!("reading {what} from standard input")).caused_by(&error))?;
    let line = line.trim_end_matches(['\n', '\r']).to_owned();
    if line.is_empty() {
        return Err(Fault::new(Exit::Usage, format!("standard input holds no line with {what}")));
    }
    Ok(line)
}

fn ask_for(what: &str) -> Result<String, Fault> {
    render::question(&format!("{what}: "));
    read_line(&what.to_lowercase())
}

fn choose(global: &Global, name: &str) -> Result<Done, Fault> {
    let folder = folder(global)?;
    let mut profiles = Profiles::read(&folder)?;
    let name = profile::name_of(name);
    if !profiles.accounts.contains_key(&name) {
        return Err(profiles.unknown(&name));
    }
    profiles.current = Some(name.clone());
    profiles.write(&folder)?;
    render::document(global.form()?, &json!({ "profile": name }), |_| {
        format!("Profile `{name}` is now current.")
    })?;
    Ok(Done::Well)
}

#[derive(Debug, Serialize)]
struct StatusView {
    api_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    profiles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ends: Option<Timestamp>,
    principal: Principal,
}

async fn status(global: &Global) -> Result<Done, Fault> {
    let client = Client::new(global)?;
    let me: Me = client.get("/api/v1/auth/me", &[]).await?;
    // Read after asking: the token may have been renewed.
    let profiles = Profiles::read(&folder(global)?)?;
    let chosen = profiles.chosen(global.profile.as_deref())?;
    let view = StatusView {
        api_url: client.base().to_owned(),
        profile: chosen.map(|(name, _)| name.to_owned()),
        token_ends: chosen.and_then(|(_, profile)| profile.expires_at),
        profiles: profiles.accounts.keys().cloned().collect(),
        principal: me.principal,
    };
    render::document(global.form()?, &view, status_table)?;
    Ok(Done::Well)
}

fn status_table(view: &StatusView) -> String {
    let me = &view.principal;
    let teams: Vec<_> = me
        .teams
        .iter()
        .filter_map(|team| Some(format!("{} ({})", team.get("slug")?.as_str()?, team.get("role")?.as_str()?)))
        .collect();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text::safe(&text) };
    let namespaces = me
        .allowed_namespaces
        .as_ref()
        .map_or_else(|| "all".to_owned(), |names| names.join(", "));
    let rows = [
        ("Service", view.api_url.clone()),
        ("Profile", or_dash(view.profile.clone().unwrap_or_default())),
        ("Who", or_dash(me.email.clone().unwrap_or_else(|| me.subject.clone()))),
        ("Role", me.role.clone()),
        ("Rights", me.rights.join(", ")),
        ("Namespace", me.namespace.clone()),
        ("Namespaces", namespaces),
        ("Teams", or_dash(teams.join(", "))),
        (
            "Token ends (UTC)",
            view.token_ends.map_or_else(|| "-".to_owned(), text::moment),
        ),
        ("Profiles", or_dash(view.profiles.join(", "))),
    ];
    render::table(&["", ""], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]))
}

async fn logout(global: &Global, all: bool) -> Result<Done, Fault> {
    let folder = folder(global)?;
    let mut profiles = Profiles::read(&folder)?;
    let names: Vec<String> = if all {
        profiles.accounts.keys().cloned().collect()
    } else {
        let chosen = profiles.chosen(global.profile.as_deref())?;
        let (name, _) = chosen.ok_or_else(|| Fault::new(Exit::NotAllowed, "you are not logged in"))?;
        vec![name.to_owned()]
    };
    let mut left = Vec::new();
    for name in &names {
        // A login that the service does not know any more is as good as ended; one that cannot be told of lives on there.
        let here = Global {
            profile: Some(name.clone()),
            api_url: None,
            platform_api_url: None,
            api_key_file: None,
            platform_api_token: None,
            ..global.clone()
        };
        let client = Client::new(&here)?;
        let has_login = profiles
            .accounts
            .get(name)
            .is_some_and(|profile| profile.refresh_token.is_some());
        if has_login && client.has_credential() {
            let ended: Result<Value, Fault> = client.send(Method::POST, "/api/v1/auth/logout", None).await;
            if ended.is_err_and(|fault| fault.exit != Exit::NotAllowed) {
                left.push(name.clone());
            }
        }
        profiles.accounts.remove(name);
    }
    if profiles.current.as_ref().is_some_and(|current| names.contains(current)) {
        profiles.current = profiles.accounts.keys().next().cloned();
    }
    profiles.write(&folder)?;
    for name in left {
        render::note(&format!(
            "note: the service of `{name}` did not answer, so that login ends there only with its time"
        ));
    }
    let said = match names.as_slice() {
        [] => "There was no profile.".to_owned(),
        names => format!("Logged out: {}.", names.join(", ")),
    };
    render::document(global.form()?, &json!({ "profiles": names }), |_| said)?;
    Ok(Done::Well)
}

#[derive(Debug, Serialize, Deserialize)]
struct Key {
    id: String,
    name: String,
    prefix: String,
    rights: Vec<String>,
    namespaces: Vec<String>,
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Timestamp>,
    revoked: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MadeKey {
    key: Key,
    api_key: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyAnswer {
    key: Key,
}

const KEYS: &str = "/api/v1/user/api-keys";

async fn keys(client: &Client, output: Output, command: KeyCommand) -> Result<Done, Fault> {
    match command {
        KeyCommand::Create {
            name,
            rights,
            namespaces,
            expires_in,
        } => {
            let mut body = json!({ "name": name, "namespaces": namespaces, "expires_in": expires_in });
            if !rights.is_empty() {
                body["rights"] = json!(rights);
            }
            let made: MadeKey = client.send(Method::POST, KEYS, Some(&body)).await?;
            render::document(output, &made, |made| {
                format!(
                    "Key {} for {}. Keep it now, it is not shown again:\n\n  {}",
                    made.key.id,
                    text::safe(&made.key.name),
                    made.api_key
                )
            })?;
        }
        KeyCommand::List => {
            let keys: Keys = client.get(KEYS, &[]).await?;
            render::document(output, &keys, key_table)?;
        }
        KeyCommand::Revoke { id } => {
            let answer: KeyAnswer = client.send(Method::DELETE, &format!("{KEYS}/{id}"), None).await?;
            render::document(output, &answer, |answer| format!("Key {} is revoked.", answer.key.id))?;
        }
    }
    Ok(Done::Well)
}

fn key_table(keys: &Keys) -> String {
    if keys.keys.is_empty() {
        return "No keys. Make one: mcp-runtime auth key create NAME".to_owned();
    }
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), text::moment);
    let rows = keys.keys.iter().map(|key| {
        vec![
            key.id.clone(),
            text::safe(&key.name),
            format!("{}…", key.prefix),
            key.rights.join(","),
            if key.namespaces.is_empty() {
                "all".to_owned()
            } else {
                key.namespaces.join(",")
            },
            time(key.expires_at),
            time(key.last_used_at),
            if key.revoked { "revoked" } else { "works" }.to_owned(),
        ]
    });
    render::table(
        &[
            "ID",
            "NAME",
            "KEY",
            "RIGHTS",
            "NAMESPACES",
            "ENDS (UTC)",
            "LAST USED",
            "STATE",
        ],
        rows,
    )
}
