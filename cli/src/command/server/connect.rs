//! `server connect-config`: what to paste into a client, such that it works.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{PlaceArgs, Server, find};
use crate::args::Global;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::{self, Done};

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Name of the server
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Which client
    #[arg(long, value_enum, default_value_t = Kind::Json)]
    client: Kind,
    /// Agent to be; without it, the client's own name
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Connect straight to the URL, for servers that ask for no session
    #[arg(long)]
    direct: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Claude Desktop and Claude Code
    Claude,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    #[value(alias = "vs-code")]
    Vscode,
    /// Codex, as TOML
    Codex,
    /// Any client that knows `mcpServers`
    #[value(alias = "raw")]
    Json,
}

impl Kind {
    fn agent(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Cursor => "cursor",
            Self::Vscode => "vscode",
            Self::Codex => "codex",
            Self::Json => "agent",
        }
    }
}

/// The program and its words. Clients with windows know no `PATH` of a shell, so the program is named in full; where the login is chosen
/// by an option, the client's copy chooses it too.
fn command_line(global: &Global, server: &Server, agent: &str) -> (String, Vec<String>) {
    let program = std::env::current_exe().map_or_else(|_| "mcp-runtime".to_owned(), |path| path.display().to_string());
    let mut words: Vec<String> = Vec::new();
    for (option, value) in [("--profile", &global.profile), ("--api-url", &global.api_url)] {
        words.extend(value.iter().flat_map(|value| [option.to_owned(), value.clone()]));
    }
    let rest = [
        "adapter",
        "stdio",
        "--server",
        &server.name,
        "--namespace",
        &server.namespace,
        "--agent",
        agent,
        "--auto-refresh",
    ];
    words.extend(rest.map(str::to_owned));
    (program, words)
}

pub(super) async fn run(global: &Global, args: &ConnectArgs) -> Result<Done, Fault> {
    let server = find(&Client::new(global)?, &args.name, &args.place).await?;
    let agent = args.agent.as_deref().unwrap_or(args.client.agent());
    let (program, words) = command_line(global, &server, agent);
    let entry = match (args.direct, args.client) {
        (true, Kind::Codex) => {
            return render::line(&format!("[mcp_servers.{}]\nurl = {:?}", server.name, server.endpoint)).map(|()| Done::Well);
        }
        (false, Kind::Codex) => {
            let list: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
            let text = format!(
                "[mcp_servers.{}]\ncommand = {program:?}\nargs = [{}]",
                server.name,
                list.join(", ")
            );
            return render::line(&text).map(|()| Done::Well);
        }
        (true, _) => json!({ "type": "http", "url": server.endpoint }),
        (false, Kind::Vscode) => json!({ "type": "stdio", "command": program, "args": words }),
        (false, _) => json!({ "command": program, "args": words }),
    };
    let list = if args.client == Kind::Vscode {
        "servers"
    } else {
        "mcpServers"
    };
    let document = json!({ list: { server.name.as_str(): entry } });
    render::line(&serde_json::to_string_pretty(&document).unwrap_or_default())?;
    Ok(Done::Well)
}
