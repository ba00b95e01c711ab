//! `sentinel keys`: who may send events.

use clap::Subcommand;
use domain::operations::{KeyView, NewKey};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::Output;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::{self, Done};
use crate::text;

const PATH: &str = "/api/v1/sentinel/keys";

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key for one namespace; it is shown once and kept as a hash
    #[command(
        after_help = "Examples:\n  mcp-runtime sentinel keys create --namespace acme\n  mcp-runtime sentinel keys create --namespace acme --server payments --expires-in 90d --rate 5000"
    )]
    Create {
        /// Namespace whose events it may send; `*` for any
        #[arg(long, short)]
        namespace: String,
        /// Only for events of this server
        #[arg(long)]
        server: Option<String>,
        /// Ends after this time (12h, 90d); without it, never
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
        /// Most events a second
        #[arg(long, value_name = "EVENTS")]
        rate: Option<u32>,
        /// What it is for
        #[arg(long, default_value = "")]
        note: String,
    },
    /// List keys, never their secrets
    #[command(after_help = "Example:\n  mcp-runtime sentinel keys list")]
    List,
    /// End a key at once
    #[command(after_help = "Example:\n  mcp-runtime sentinel keys revoke 4f1c9a27b3d0")]
    Revoke {
        /// Id of the key, as listed
        id: String,
    },
    /// Make a key like an old one, which ends after an overlap
    #[command(after_help = "Example:\n  mcp-runtime sentinel keys rotate 4f1c9a27b3d0 --overlap 24h")]
    Rotate {
        /// Id of the old key, as listed
        id: String,
        /// How long the old key still works
        #[arg(long, default_value = "24h", value_name = "TIME")]
        overlap: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Keys {
    keys: Vec<KeyView>,
}

pub(crate) async fn run(client: &Client, output: Output, command: KeysCommand) -> Result<Done, Fault> {
    match command {
        KeysCommand::Create {
            namespace,
            server,
            expires_in,
            rate,
            note,
        } => {
            let body = json!({
                "namespace": namespace, "server": server, "expires_in": expires_in, "events_per_second_max": rate, "note": note,
            });
            let key: NewKey = client.send(Method::POST, PATH, Some(&body)).await?;
            render::document(output, &key, once)?;
        }
        KeysCommand::List => {
            let keys: Keys = client.get(PATH, &[]).await?;
            render::document(output, &keys, list)?;
        }
        KeysCommand::Revoke { id } => {
            let key: KeyView = client.send(Method::DELETE, &format!("{PATH}/{id}"), None).await?;
            render::document(output, &key, |key| {
                format!("Key {} of namespace {} is revoked.", key.id, key.namespace)
            })?;
        }
        KeysCommand::Rotate { id, overlap } => {
            let body = json!({ "overlap": overlap });
            let key: NewKey = client.send(Method::POST, &format!("{PATH}/{id}/rotate"), Some(&body)).await?;
            render::document(output, &key, once)?;
        }
    }
    Ok(Done::Well)
}

fn once(key: &NewKey) -> String {
    format!(
        "Key {} for namespace {}. Keep it now, it is not shown again:\n\n  {}",
        key.view.id, key.view.namespace, key.key
    )
}

fn list(keys: &Keys) -> String {
    if keys.keys.is_empty() {
        return "No keys: every sender is refused. Make one: mcp-runtime sentinel keys create --namespace NAME".to_owned();
    }
    let time = |time: Option<domain::Timestamp>| time.map_or_else(|| "-".to_owned(), text::moment);
    let rows = keys.keys.iter().map(|key| {
        vec![
            key.id.clone(),
            key.namespace.clone(),
            key.server.clone().unwrap_or_else(|| "-".to_owned()),
            time(Some(key.created_at)),
            time(key.expires_at),
            time(key.revoked_at),
            text::safe(&key.note),
        ]
    });
    render::table(
        &["ID", "NAMESPACE", "SERVER", "CREATED (UTC)", "ENDS", "REVOKED", "NOTE"],
        rows,
    )
}
